"""Score trajectories with an unmodified official navsim; `tools/parity.py` runs it under navsim's own interpreter.

    PYTHONPATH=~/navsim:~/nuplan-devkit ~/navsim-venv/bin/python -P tools/official_scores.py \
        --metric pdms_v1 --split test --trajectories T.npz --out S.csv

Imports navsim and nuplan from PYTHONPATH, so it must not import mtdrive. One candidate at a time, with a metric cache
of its own in v2 (scoring changes it), and a fresh metric cache processor for every scene. With --shared-processor one
processor makes the caches of all scenes, in the order in which navsim's loader gives them, as in a worker of navsim's
own caching script: PDM-Closed then ignores the tracks that it has overlapped in earlier scenes, because its list of
them is never cleared.
"""

import argparse
import csv
import gc
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
from navsim.common.dataclasses import Scene, SceneFilter, SensorConfig, Trajectory
from navsim.common.dataloader import filter_scenes
from navsim.evaluate.pdm_score import pdm_score
from navsim.planning.metric_caching.metric_cache_processor import MetricCacheProcessor
from navsim.planning.scenario_builder.navsim_scenario import NavSimScenario
from navsim.planning.simulation.planner.pdm_planner.scoring.pdm_scorer import PDMScorer, PDMScorerConfig
from navsim.planning.simulation.planner.pdm_planner.simulation.pdm_simulator import PDMSimulator
from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling

SAMPLING = TrajectorySampling(num_poses=40, interval_length=0.1)


class V1:
    """navsim v1.1: PDMS."""

    columns = (
        "no_at_fault_collisions",
        "drivable_area_compliance",
        "ego_progress",
        "time_to_collision_within_bound",
        "comfort",
        "driving_direction_compliance",
        "score",
    )

    def __init__(self, human_penalty_filter, traffic="log_replay", shared_processor=False):
        self.scorer = PDMScorer(SAMPLING, PDMScorerConfig())
        self.folder = tempfile.TemporaryDirectory()
        self.processor = self.new_processor() if shared_processor else None

    def new_processor(self):
        """What makes metric caches."""
        return MetricCacheProcessor(self.folder.name, force_feature_computation=True)

    def scenes(self, logs, scene_filter):
        """Frames of each scene that the filter lets through, by token."""
        return filter_scenes(logs, scene_filter)

    def cache(self, scenario):
        """The metric cache of a scenario."""
        import lzma

        entry = (self.processor or self.new_processor()).compute_metric_cache(scenario)
        return pickle.loads(lzma.decompress(Path(entry.file_name).read_bytes()))

    def call(self, cache, trajectory):
        """What `pdm_score` returns for a trajectory."""
        return pdm_score(cache, trajectory, SAMPLING, PDMSimulator(SAMPLING), self.scorer)

    def score(self, token, cache, trajectory):
        """What is kept of a trajectory until `finish`."""
        result = self.call(cache, trajectory)
        return {column: float(getattr(result, column)) for column in self.columns}

    def finish(self, rows, extended_comfort):
        """Columns by row, from what `score` kept by row."""
        return rows


class V2:
    """navsim v2.2: EPDMS of one stage."""

    columns = (
        "no_at_fault_collisions",
        "drivable_area_compliance",
        "driving_direction_compliance",
        "traffic_light_compliance",
        "ego_progress",
        "time_to_collision_within_bound",
        "lane_keeping",
        "history_comfort",
        "two_frame_extended_comfort",
        "score",
    )

    def __init__(self, human_penalty_filter, traffic="log_replay", shared_processor=False):
        self.policy = traffic_policy(traffic)
        self.scorer = PDMScorer(SAMPLING, PDMScorerConfig(human_penalty_filter=human_penalty_filter))
        self.processor = self.new_processor() if shared_processor else None

    def new_processor(self):
        """As V1."""
        return MetricCacheProcessor(None, force_feature_computation=True, proposal_sampling=SAMPLING)

    def scenes(self, logs, scene_filter):
        """As V1."""
        return filter_scenes(logs, scene_filter)[0]

    def cache(self, scenario):
        """As V1."""
        return pickle.dumps((self.processor or self.new_processor()).compute_metric_cache(scenario))

    def call(self, cache, trajectory):
        """As V1."""
        return pdm_score(cache, trajectory, SAMPLING, PDMSimulator(SAMPLING), self.scorer, self.policy)

    def score(self, token, cache, trajectory):
        """As V1."""
        cache = pickle.loads(cache)
        frame, states = self.call(cache, trajectory)
        frame["token"], frame["log_name"], frame["frame_type"] = token, cache.log_name, cache.scene_type
        frame["start_time"], frame["ego_simulated_states"] = cache.timepoint.time_s, [states]
        return frame

    def finish(self, rows, extended_comfort):
        """Final scores of the frames; for extended comfort, the k-th of every token together, as one submission."""
        import pandas as pd
        from navsim.planning.script import run_pdm_score_one_stage as script

        submissions, seen = {}, {}
        for row, frame in rows.items():
            token = frame["token"].iloc[0]
            seen[token] = seen.get(token, -1) + 1
            submissions.setdefault(seen[token], []).append(row)
        finished = {}
        for members in submissions.values():
            table = pd.concat([rows[row] for row in members], ignore_index=True)
            pairs = script.infer_start_adjacent_mapping(table) if extended_comfort else {}
            if pairs:
                table = script.create_scene_aggregators(pairs, table, SAMPLING)
            else:
                table["two_frame_extended_comfort"] = np.nan
            final = script.compute_final_scores(table)
            finished |= dict(zip(members, final[list(self.columns)].to_dict("records"), strict=True))
        return finished


def traffic_policy(traffic):
    """A policy of v2.2, as its own configuration builds it."""
    import navsim
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    folder = Path(navsim.__file__).parent / "planning/script/config/common/traffic_agents_policy"
    name, key = {
        "log_replay": ("log_replay_traffic_agents", "non_reactive"),
        "idm": ("navsim_IDM_traffic_agents", "reactive"),
    }[traffic]
    return instantiate(OmegaConf.load(folder / f"{name}.yaml")[key], SAMPLING)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", choices=["pdms_v1", "epdms_v2"], required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--trajectories", required=True, help="npz with token, poses, interval_length")
    parser.add_argument("--human-penalty-filter", action="store_true")
    parser.add_argument("--extended-comfort", action="store_true")
    parser.add_argument("--shared-processor", action="store_true", help="one for all scenes, not one for each")
    parser.add_argument("--traffic", choices=["log_replay", "idm"], default="log_replay")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    stored = np.load(arguments.trajectories)
    rows = {}
    for row, token in enumerate(stored["token"]):
        rows.setdefault(str(token), []).append(row)
    version = {"pdms_v1": V1, "epdms_v2": V2}[arguments.metric](
        arguments.human_penalty_filter, arguments.traffic, arguments.shared_processor
    )
    logs = Path(os.environ["OPENSCENE_DATA_ROOT"]) / "navsim_logs" / arguments.split
    scene_filter = SceneFilter(
        num_history_frames=4, num_future_frames=10, frame_interval=1, has_route=True, tokens=list(rows)
    )
    scenes = version.scenes(logs, scene_filter)
    interval = float(stored["interval_length"])
    scores = {}
    for count, (token, frames) in enumerate(scenes.items(), 1):  # the order matters to a shared processor
        indices = rows[token]
        scene = Scene.from_scene_dict_list(
            frames, None, num_history_frames=4, num_future_frames=10, sensor_config=SensorConfig.build_no_sensors()
        )
        scenario = NavSimScenario(scene, map_root=os.environ["NUPLAN_MAPS_ROOT"], map_version="nuplan-maps-v1.0")
        cache = version.cache(scenario)
        for row in indices:
            poses = stored["poses"][row]
            trajectory = Trajectory(poses, TrajectorySampling(num_poses=len(poses), interval_length=interval))
            scores[row] = version.score(token, cache, trajectory)
        gc.enable()  # PDM-Closed switches the collector off and leaves it so
        gc.collect()
        print(f"official {count}/{len(rows)} scenes", flush=True)
    scores = version.finish(scores, arguments.extended_comfort)
    with open(arguments.out, "w", newline="") as file:
        writer = csv.DictWriter(file, ["token", *version.columns])
        writer.writeheader()
        writer.writerows({"token": str(stored["token"][row]), **scores[row]} for row in range(len(stored["token"])))


if __name__ == "__main__":
    main()
