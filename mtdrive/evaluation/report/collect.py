"""Reading a run's folder, as `mtdrive quickstart` lays it out, into what a report shows."""

from __future__ import annotations

import json
import math
import os
import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors import safe_open

from mtdrive.evaluation.evaluations import check_one_metric, open_evaluation
from mtdrive.evaluation.report.cards import scene_card
from mtdrive.evaluation.report.data import RL, SFT, ReportData, SceneCard
from mtdrive.evaluation.report.gallery import choose
from mtdrive.evaluation.report.panels import panels, read_log
from mtdrive.evaluation.rows import PLANNER
from mtdrive.evaluation.tables import read_scores
from mtdrive.rollout.episode_file import EpisodesHeader, read_episodes
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.stages.stage import finished_stages
from mtdrive.visualization.records import read_evaluation

POLICIES = {"sft": SFT, "rl": RL}
SPLIT = "test"
EPISODES = Path("evaluation/rl-privileged/episodes.jsonl")  # those shown, in a run's folder
AGREEMENT = 1e-9  # between two verbs' scores of the same plans
PACKAGES = ("mtdrive", "torch", "transformers", "trl", "numpy")


def collect(run: Path) -> ReportData:
    """Read a finished run.

    Raises:
        MTDriveError: a file of the run is missing or does not read, or two stages contradict each other.
    """
    table = read_evaluations(run / "evaluation")
    table["surprise"] = table.token.map(read_surprises(run / "world"))
    header, _ = read_episodes(run / EPISODES)
    check_agreement(table, run / "scores" / "human.csv", header.metric)
    return ReportData(
        title="MTDrive: multi-turn planning on the synthetic world",
        metric=header.metric,
        facts=read_facts(run, header),
        stages=finished_stages(run / "stages"),
        table=table,
        panels=(
            *panels("sft", read_log(run / "sft" / "log.jsonl")),
            *panels("rl", read_log(run / "rl" / "log.jsonl")),
        ),
        cards=draw_cards(run, table),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of the run.

    Raises:
        MTDriveError: it is missing or does not read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MTDriveError(
            f"{path} is missing or damaged ({error}); delete it and run the quickstart again."
        ) from error


def read_evaluations(folder: Path) -> pd.DataFrame:
    """The rows of all evaluations, folders `<policy>-<feedback>`, as `ReportData.table`.

    Raises:
        MTDriveError: there is none, one is damaged, or they were not scored by one metric.
    """
    evaluations, tables = [], []
    for name, policy in POLICIES.items():
        for path in sorted(folder.glob(f"{name}-*/scores.csv")):
            evaluations.append(open_evaluation(path.parent))
            table = evaluations[-1].table
            planner = table.policy == PLANNER
            table["feedback"] = np.where(planner, path.parent.name.removeprefix(f"{name}-"), "")
            table["policy"] = np.where(planner, policy, table.policy)
            tables.append(table)
    if not tables:
        raise MTDriveError(f"{folder} holds no evaluation; run the quickstart again.")
    check_one_metric(evaluations)
    return pd.concat(tables, ignore_index=True)


def read_surprises(world: Path) -> dict[str, str]:
    """What becomes of a plan that is good by all that shows at t0, by scene token."""
    return {scene["token"]: scene["surprise"] for scene in read_json(world / "manifest.json")["scenes"]}


def check_agreement(table: pd.DataFrame, path: Path, metric: str) -> None:
    """Hold the human's scores of `mtdrive evaluate`, by this metric, against those of `mtdrive score`.

    Raises:
        MTDriveError: they differ, or are of different metrics.
    """
    rows = read_scores(path)
    if other := sorted(set(rows.metric) - {metric}):
        raise MTDriveError(f"{path} is scored by {other[0]}, and the evaluations beside it by {metric}; score again.")
    scored = rows.set_index("token").score
    evaluated = table[table.policy == "human"].set_index("token").score
    difference = (evaluated - scored).abs().max()
    if len(evaluated) != len(scored) or not difference <= AGREEMENT:
        raise MTDriveError(f"mtdrive evaluate and {path} score the human's plans differently, by up to {difference}.")


def read_facts(run: Path, header: EpisodesHeader) -> dict[str, str]:
    """Provenance, label to value. header: of the episodes that are shown."""
    config = yaml.safe_load((run / "quickstart.yaml").read_text())
    world, dataset = read_json(run / "world" / "manifest.json"), read_json(run / "dataset" / "train" / "manifest.json")
    counts = Counter(scene["split"] for scene in world["scenes"])
    by_turns = ", ".join(f"{count} of {turns}" for turns, count in dataset["counts"]["turns"].items())
    return {
        "Metric": f"{header.metric}, version {header.metric_revision}",
        "Seed": str(config["seed"]),
        "Scenes": ", ".join(f"{count} {split}" for split, count in counts.items()),
        "Recorded conversations": f"{dataset['samples']} (turns: {by_turns})",
        "Planner": f"{architecture(run / 'rl')}, {parameters(run / 'rl') / 1e6:.2f} M parameters, from random weights",
        "Feedback in training": dataset["recipe"]["feedback"],
        "Turns": f"up to {header.turns}, answers at temperature {header.temperature:g}",
        "Versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "Machine": f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, {platform.system()}",
    }


def architecture(planner: Path) -> str:
    """Class name of the model in a planner's folder."""
    return read_json(planner / "config.json")["architectures"][0]


def parameters(planner: Path) -> int:
    """How many weights are stored."""
    with safe_open(planner / "model.safetensors", "np") as weights:
        names = weights.keys()
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)


def draw_cards(run: Path, table: pd.DataFrame) -> tuple[SceneCard, ...]:
    """The gallery: episodes of the RL planner with privileged feedback."""
    shown = table[(table.policy == RL) & (table.feedback == "privileged")]
    recording = read_evaluation(run / EPISODES)
    episodes = {episode.token: episode for episode in recording.episodes}
    store, cards = SceneStore(run / "scene_cache", SPLIT), []
    for choice in choose(shown):
        scene = store.load(choice.token)
        image = read_image(run / "world", SPLIT, scene.camera.image)
        cards.append(scene_card(scene, image, choice, recording, episodes[choice.token]))
    return tuple(cards)
