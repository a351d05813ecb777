"""Time an unmodified official navsim on request; `tools/bench_scoring.py` runs it under navsim's own interpreter.

    PYTHONPATH=~/navsim:~/nuplan-devkit ~/navsim-venv/bin/python tools/official_timing.py \
        --metric pdms_v1 --split test --tokens A,B --folder F

Reads a request per line from standard input and answers with a line, both JSON; what navsim prints goes to standard
error. Every answer holds seconds of this process's clock, and what was scored.
"""

import argparse
import gc
import json
import lzma
import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np
from navsim.common.dataclasses import Scene, SceneFilter, SensorConfig, Trajectory
from navsim.evaluate.pdm_score import get_trajectory_as_array, transform_trajectory
from navsim.planning.metric_caching.metric_cache_processor import MetricCacheProcessor
from navsim.planning.scenario_builder.navsim_scenario import NavSimScenario
from navsim.planning.simulation.planner.pdm_planner.simulation.pdm_simulator import PDMSimulator
from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling
from official_scores import SAMPLING, V1, V2


class TimedV1(V1):
    """navsim v1.1."""

    def numbers(self, result):
        """Score and sub-metrics of what `pdm_score` returned, by column."""
        return {column: float(getattr(result, column)) for column in self.columns}

    def build(self, scenario, folder):
        """The function of a scenario that builds and saves its metric cache."""
        return MetricCacheProcessor(str(folder), force_feature_computation=True).compute_metric_cache

    def score_states(self, cache, states):
        """Simulate and score (N, 41, 11) plans and PDM-Closed's in one call."""
        simulated = PDMSimulator(SAMPLING).simulate_proposals(states, cache.ego_state)
        self.scorer.score_proposals(
            simulated, cache.observation, cache.centerline, cache.route_lane_ids, cache.drivable_area_map
        )


class TimedV2(V2):
    """navsim v2.2, whose script computes the final score and extended comfort later, from the whole table."""

    def numbers(self, result):
        """As TimedV1."""
        frame = result[0]
        return {column: float(frame[column].iloc[0]) for column in self.columns if column in frame}

    def build(self, scenario, folder):
        """As TimedV1."""
        processor = MetricCacheProcessor(str(folder), force_feature_computation=True, proposal_sampling=SAMPLING)
        return processor.compute_and_save_metric_cache

    def score_states(self, cache, states):
        """As TimedV1; the traffic, which log replay does not let depend on the plan, is that of the first."""
        simulated = PDMSimulator(SAMPLING).simulate_proposals(states, cache.ego_state)
        self.scorer.score_proposals(
            simulated,
            cache.observation,
            cache.centerline,
            cache.route_lane_ids,
            cache.drivable_area_map,
            cache.map_parameters,
            self.policy.simulate_environment(simulated[1], cache),
            cache.past_human_trajectory,
        )


class Session:
    """What has been loaded: the frames of all scenes, and one metric cache at a time."""

    def __init__(self, version, scenes, folder):
        self.version, self.frames, self.folder = version, scenes, folder
        self.cache = None

    def build(self, token):
        """Compute a metric cache and save it, compressed, as navsim's caching script does."""
        scene = Scene.from_scene_dict_list(
            self.frames[token], None, num_history_frames=4, num_future_frames=10,
            sensor_config=SensorConfig.build_no_sensors(),
        )  # fmt: skip
        scenario = NavSimScenario(scene, map_root=os.environ["NUPLAN_MAPS_ROOT"], map_version="nuplan-maps-v1.0")
        build = self.version.build(scenario, self.folder)
        started = time.perf_counter()
        entry = build(scenario)
        seconds = time.perf_counter() - started
        gc.enable()  # PDM-Closed switches the collector off and leaves it so
        gc.collect()
        return {"seconds": seconds, "path": str(entry.file_name)}

    def load(self, path):
        """Load a metric cache as navsim's MetricCacheLoader does."""
        started = time.perf_counter()
        with lzma.open(path, "rb") as file:
            self.cache = pickle.load(file)
        return {"seconds": time.perf_counter() - started, "bytes": Path(path).stat().st_size}

    def score(self, poses, interval):
        """One `pdm_score` call for each trajectory."""
        seconds, rows = [], []
        for trajectory in self._trajectories(poses, interval):
            started = time.perf_counter()
            result = self.version.call(self.cache, trajectory)
            seconds.append(time.perf_counter() - started)
            rows.append(self.version.numbers(result))
        return {"seconds": seconds, "rows": rows}

    def batch(self, poses, interval):
        """All trajectories in one call of the simulator and one of the scorer, behind PDM-Closed's as in pdm_score."""
        trajectories = self._trajectories(poses, interval)
        started = time.perf_counter()
        plans = [self.cache.trajectory, *(transform_trajectory(plan, self.cache.ego_state) for plan in trajectories)]
        start = self.cache.ego_state.time_point
        states = np.stack([get_trajectory_as_array(plan, SAMPLING, start) for plan in plans])
        sampled = time.perf_counter()
        self.version.score_states(self.cache, states)
        return {"seconds": time.perf_counter() - started, "sampling": sampled - started}

    @staticmethod
    def _trajectories(poses, interval):
        sampling = TrajectorySampling(num_poses=len(poses[0]), interval_length=interval)
        return [Trajectory(np.array(plan), sampling) for plan in poses]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", choices=["pdms_v1", "epdms_v2"], required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--tokens", required=True, help="comma-separated")
    parser.add_argument("--human-penalty-filter", action="store_true")
    parser.add_argument("--folder", type=Path, required=True, help="for metric caches")
    arguments = parser.parse_args()

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    version = {"pdms_v1": TimedV1, "epdms_v2": TimedV2}[arguments.metric](arguments.human_penalty_filter)
    scene_filter = SceneFilter(
        num_history_frames=4, num_future_frames=10, frame_interval=1, has_route=True,
        tokens=arguments.tokens.split(","),
    )  # fmt: skip
    logs = Path(os.environ["OPENSCENE_DATA_ROOT"]) / "navsim_logs" / arguments.split
    session = Session(version, version.scenes(logs, scene_filter), arguments.folder)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(session, request.pop("do"))(**request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
