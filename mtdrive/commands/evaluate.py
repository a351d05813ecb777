"""`mtdrive evaluate`: per-turn scores of a planner beside the baselines."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from tqdm import tqdm

from mtdrive.evaluation.rows import PlanRow, as_table, baseline_rows
from mtdrive.evaluation.summary import as_rich_table, difference_lines, summarise
from mtdrive.simulation.baselines import BASELINES
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import SOURCES
from mtdrive.simulation.files import atomic_path
from mtdrive.simulation.scene_cache.store import SceneStore


def run(config: DictConfig) -> None:
    """Evaluate; see configs/evaluate.yaml."""
    check(config)
    store = SceneStore(Path(config.navsim_exp_root) / "scene_cache", config.split)
    tokens = store.tokens[: config.limit]
    families = read_families(config.families) if config.families else {}
    rows: list[PlanRow] = []
    for token in tqdm(tokens, desc="baselines", unit="scene"):
        rows += baseline_rows(store.load(token), families.get(token, ""), config.baselines, config.metric)

    table = as_table(rows)
    summary = {
        "provenance": {
            "split": config.split,
            "scenes": len(tokens),
            "metric": config.metric,
            "feedback": config.feedback,
            "planner": config.planner,
            "turns": config.turns,
            "resamples": config.resamples,
            "seed": config.seed,
        },
        **summarise(table, config.resamples, config.seed),
    }
    out = Path(config.out)
    with atomic_path(out / "scores.csv") as path:
        table.to_csv(path, index=False)
    with atomic_path(out / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2))
    console = Console()
    console.print(as_rich_table(summary, f"{config.split}, {config.metric}, {config.feedback} feedback"))
    for line in difference_lines(summary):
        console.print(line)
    console.print(f"{len(table)} rows in {out / 'scores.csv'}, summary in {out / 'summary.json'}")


def check(config: DictConfig) -> None:
    """Refuse values that no scene is needed to refuse.

    Raises:
        MTDriveError: an unknown baseline or feedback source, nothing to evaluate, or a number out of range.
    """
    unknown = sorted(set(config.baselines) - set(BASELINES))
    if unknown:
        raise MTDriveError(f"There is no baseline {', '.join(unknown)}: choose from {', '.join(BASELINES)}.")
    if config.feedback not in SOURCES:
        raise MTDriveError(f"There is no feedback source {config.feedback!r}: choose {' or '.join(SOURCES)}.")
    if config.planner is None and not config.baselines:
        raise MTDriveError("There is nothing to evaluate: give planner=... or baselines=[...].")
    for name in ("turns", "resamples"):
        if config[name] < 1:
            raise MTDriveError(f"{name}={config[name]} must be at least 1.")


def read_families(path: str) -> dict[str, str]:
    """token -> family from a CSV.

    Raises:
        MTDriveError: the file is missing or lacks the columns.
    """
    try:
        table = pd.read_csv(path, dtype=str)
        return dict(zip(table["token"], table["family"], strict=True))
    except (OSError, KeyError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise MTDriveError(f"families={path} is not a CSV file with columns token and family.") from error
