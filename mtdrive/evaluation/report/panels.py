"""Which values of the training logs are shown as small charts, and how to read them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtdrive.evaluation.report.data import Panel, Series
from mtdrive.simulation.errors import MTDriveError


@dataclass(frozen=True)
class Chart:
    """What a panel takes from a log."""

    stage: Literal["sft", "rl"]
    """The stage that writes the log."""
    title: str
    """Title of the panel, with the unit."""
    keys: dict[str, str]
    """Regular expressions of keys of the log, each with the name of their lines, which may refer to its groups."""
    note: str
    """One sentence on how to read the panel."""


BY_TURN = r"turn \1"  # a line for each turn
CHARTS = (
    Chart("sft", "Loss", {"loss": "training", "eval_loss": "validation"}, "Cross-entropy of the answer's tokens."),
    Chart("sft", "Answers that parse", {"eval_parse_rate": "validation"}, "Share of greedy answers, other logs."),
    Chart("sft", "Displacement [m]", {"eval_ade": "validation"}, "Mean distance to the plan to learn, greedy."),
    Chart("rl", "PDMS", {r"pdms/turn_(\d+)": BY_TURN}, "Sampled episodes on training scenes; the plan in force."),
    Chart("rl", "Clean plans", {"clean": "episodes"}, "Share of episodes that end with nothing to improve."),
    Chart("rl", "Turns used", {"turns": "mean"}, "An episode ends with a clean plan or at the last turn."),
    Chart("rl", "Answers that do not parse", {r"parse_errors/turn_(\d+)": BY_TURN}, "Share of the answers of a turn."),
    Chart(
        "rl",
        "Without gradient",
        {"groups_without_gradient": "groups", "episodes_without_gradient": "episodes"},
        "Shares whose advantages are all zero.",
    ),
    Chart("rl", "Entropy [nat]", {"sampling_entropy": "per token"}, "Mean −log p of the sampled tokens."),
    Chart(
        "rl",
        "Degenerate plans",
        {"reversing": "reversing", "standing": "standing"},
        "Shares of plans that move backwards, or less than 1 m.",
    ),
    Chart("rl", "No at-fault collision", {r"no_at_fault_collisions/turn_(\d+)": BY_TURN}, "Mean sub-metric NC."),
)


def read_log(path: Path) -> list[dict[str, float]]:
    """Entries of a training log, which has one JSON object with `step` per line.

    Raises:
        MTDriveError: the file is missing or a line does not read.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise MTDriveError(f"{path} is no training log ({error}); run the training stage again.") from error


def panels(stage: Literal["sft", "rl"], log: list[dict[str, float]]) -> tuple[Panel, ...]:
    """The charts of a stage, without those whose values the log lacks."""
    names = sorted({key for entry in log for key in entry})
    found = []
    for chart in CHARTS:
        lines = tuple(
            _series(log, name, match.expand(label))
            for pattern, label in chart.keys.items()
            for name in names
            if (match := re.fullmatch(pattern, name))
        )
        if chart.stage == stage and lines:
            found.append(Panel(stage, chart.title, "step", lines, chart.note))
    return tuple(found)


def _series(log: list[dict[str, float]], key: str, name: str) -> Series:
    points = [(entry["step"], entry[key]) for entry in log if key in entry]
    return Series(name, tuple(step for step, _ in points), tuple(value for _, value in points))
