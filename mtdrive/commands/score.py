"""`mtdrive score`: PDM scores of the trajectories in a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mtdrive.evaluation.official_tables import one_stage_table
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.files import atomic_path
from mtdrive.simulation.one_stage import with_extended_comfort
from mtdrive.simulation.scene_cache.format import FORMAT_VERSION, METRIC_VERSIONS
from mtdrive.simulation.scene_cache.store import NO_SUCH_SCENE, build_caches
from mtdrive.simulation.scoring import OK, uses_human_filter
from mtdrive.simulation.split_scoring import SubmissionScores, score_submission
from mtdrive.simulation.submission import Submission, read_submission


def run(config: DictConfig) -> int:
    """Score; see configs/score.yaml. Exit status 1 if a scene could not be compiled."""
    check(config)
    out, path = Path(config.out), Path(config.trajectories)
    cache_root = Path(config.navsim_exp_root) / "scene_cache"
    submission = read_submission(path)
    failed = build_missing(config, submission, cache_root)
    scores = score_submission(
        submission,
        cache_root,
        config.split,
        config.metric,
        human_penalty_filter=config.human_penalty_filter,
        without_scene=failed,
        workers=config.workers,
    )
    scores = with_extended_comfort(scores)

    table = pd.DataFrame(
        {
            "token": submission.tokens,
            **scores.columns,
            "score": scores.score,
            "metric": config.metric,
            "status": scores.status,
        }
    )
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(out.with_suffix(".navsim.csv")) as temporary:
        one_stage_table(scores).to_csv(temporary)
    with atomic_path(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(provenance(config, path, scores, failed, table), indent=2))
    console = Console(soft_wrap=True)
    console.print(as_rich_table(table, f"{config.metric} on {config.split}, traffic {config.traffic}"))
    for status, count in table.status[table.status != OK].value_counts().items():
        console.print(f"[red]{count} rows without a score: {status}[/]")
    for token, reason in failed.items():
        console.print(f"[red]{token}[/]: {reason}")
    console.print(f"{len(table)} rows in {out}, as navsim writes them in {out.with_suffix('.navsim.csv')}, ", end="")
    console.print(f"how they were made in {out.with_suffix('.json')}")
    return 1 if failed else 0


def check(config: DictConfig) -> None:
    """Refuse what no file is needed to refuse.

    Raises:
        MTDriveError: a value that does not exist, is missing, or has no meaning for the metric.
    """
    for key in ("openscene_data_root", "nuplan_maps_root"):
        if config[key] is None:
            raise MTDriveError(f"Say where the data is: {key}=... or the environment variable {key.upper()}.")
    if config.human_penalty_filter not in (None, True, False):
        raise MTDriveError(f"human_penalty_filter={config.human_penalty_filter} must be true or false.")
    uses_human_filter(config.metric, config.human_penalty_filter)
    if config.traffic != "log_replay":
        raise MTDriveError(f"traffic={config.traffic} is not available; traffic=log_replay is.")
    if Path(config.out).suffix != ".csv":
        raise MTDriveError(f"out={config.out} must name a .csv file.")


def build_missing(config: DictConfig, submission: Submission, cache_root: Path) -> dict[str, str]:
    """Compile the scenes that are not yet; returns why, for those that cannot be.

    Raises:
        MTDriveError: a token names no scene of the split.
    """
    tokens = sorted(set(submission.tokens.tolist()))
    report = build_caches(
        config.openscene_data_root,
        config.nuplan_maps_root,
        config.split,
        cache_root,
        tokens=tokens,
        workers=config.workers,
    )
    compiled = {*report.built, *report.skipped}
    unknown = [token for token in tokens if token not in compiled and report.failed.get(token) == NO_SUCH_SCENE]
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise MTDriveError(
            f"{config.trajectories} names {len(unknown)} scenes that split {config.split} of "
            f"{config.openscene_data_root} does not have: {shown}."
        )
    return {token: report.failed.get(token, "not compiled") for token in tokens if token not in compiled}


def provenance(
    config: DictConfig, path: Path, scores: SubmissionScores, failed: dict[str, str], table: pd.DataFrame
) -> dict[str, object]:
    """How a table of scores was made, and its means over the rows with status "ok"."""
    ok = table[table.status == OK]
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "metric": config.metric,
        "human_penalty_filter": uses_human_filter(config.metric, config.human_penalty_filter),
        "traffic": config.traffic,
        "split": config.split,
        "trajectories": {"file": path.name, "sha256": digest, "rows": len(table)},
        "mtdrive": version("mtdrive"),
        "scene_cache": {"format_version": FORMAT_VERSION, "metric_versions": METRIC_VERSIONS},
        "scenes": {token: dataclasses.asdict(fingerprint) for token, fingerprint in scores.fingerprints.items()},
        "status": table.status.value_counts().to_dict(),
        "failed_scenes": failed,
        "mean": ok[[*scores.columns, "score"]].mean().dropna().to_dict(),
    }


def as_rich_table(table: pd.DataFrame, title: str) -> Table:
    """Means over the rows with status "ok"."""
    ok = table[table.status == OK]
    rich_table = Table(title=title, title_justify="left")
    rich_table.add_column("mean of")
    rich_table.add_column(f"{len(ok)} ok rows", justify="right")
    for name in table.columns.drop(["token", "metric", "status"]):
        mean = ok[name].mean()
        rich_table.add_row(name, "-" if np.isnan(mean) else f"{mean:.4f}")
    return rich_table
