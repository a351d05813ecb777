"""`mtdrive score`: PDM scores of the trajectories in a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from rich.text import Text

from mtdrive.evaluation.explain import draw, explain, explanation_tables, row_of
from mtdrive.evaluation.official_tables import one_stage_table, two_stage_table
from mtdrive.evaluation.score_summary import summary_tables, two_stage_summary
from mtdrive.settings.evaluation import ScoreSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.registry import revisions
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.runtime.files import atomic_path, check_writable
from mtdrive.simulation.scene_cache.build import NO_SUCH_SCENE, CacheReport, build_caches, build_synthetic_caches
from mtdrive.simulation.scene_cache.format import FORMAT_VERSION
from mtdrive.simulation.scene_cache.store import SYNTHETIC, SceneStore
from mtdrive.simulation.scoring import OK, uses_human_filter
from mtdrive.simulation.submission.files import Submission, read_submission
from mtdrive.simulation.submission.mapping import read_mapping
from mtdrive.simulation.submission.one_stage import with_extended_comfort
from mtdrive.simulation.submission.scoring import SubmissionScores, score_submission
from mtdrive.simulation.submission.two_stage import TwoStageScores, aggregate
from mtdrive.terminal import terminal

WIDTH = 140  # of the tables in a file or pipe


def run(config: ScoreSettings) -> int:
    """Score; see configs/score.yaml. Exit status 1 if a scene could not be compiled."""
    out, cache_root = Path(config.out), config.cache_root
    submission = read_submission(Path(config.trajectories))
    explained = None if config.explain is None else row_of(config.explain, submission.tokens)
    for suffix in (".csv", ".navsim.csv", ".json", *([] if explained is None else [f".{explained}.png"])):
        check_writable(out.with_suffix(suffix))
    mapping = config.mapping_file
    groups = read_mapping(mapping) if mapping else None
    failed = build_missing(config, submission, cache_root)
    scores = score_submission(
        submission,
        cache_root,
        config.scene_filter.scene_set.store,
        config.metric,
        human_penalty_filter=config.human_penalty_filter,
        traffic=config.traffic,
        without_scene=failed,
        workers=config.workers,
    )
    if groups is None:
        stages, scores = None, with_extended_comfort(scores)
    else:
        stages = aggregate(scores, groups)
        scores = stages.frames

    write_tables(out, scores, stages)
    with atomic_path(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(provenance(config, scores, stages, failed), indent=2))
    print_summary(config, scores, stages, failed)
    if explained is not None and submission.tokens[explained] not in failed:
        print_explanation(config, submission, scores, explained, cache_root)
    return 1 if failed else 0


def build_missing(config: ScoreSettings, submission: Submission, cache_root: Path) -> dict[str, str]:
    """Compile the scenes that are not yet; returns why, for those that cannot be.

    Raises:
        MTDriveError: a token names no scene of the split, or no synthetic scene.
    """
    tokens = sorted(set(submission.tokens.tolist()))
    recorded, synthetic = [t for t in tokens if not is_synthetic(t)], [t for t in tokens if is_synthetic(t)]
    maps, workers = config.maps_root, config.workers
    failed: dict[str, str] = {}
    if recorded:
        chosen = config.scene_filter
        report = build_caches(config.data_root, maps, chosen, cache_root, tokens=recorded, workers=workers)
        failed |= failures(report, recorded, config, f"{chosen.scene_set} in {config.data_root}")
    if synthetic:
        if config.synthetic_scenes is None:
            raise MTDriveError(f"{synthetic[0]} is a synthetic scene; say where its pickle is: synthetic_scenes=...")
        report = build_synthetic_caches(config.synthetic_scenes, maps, cache_root, synthetic, workers=workers)
        failed |= failures(report, synthetic, config, f"synthetic_scenes={config.synthetic_scenes}")
    return failed


def failures(report: CacheReport, tokens: list[str], config: ScoreSettings, source: str) -> dict[str, str]:
    """Why scenes could not be compiled, by token.

    Raises:
        MTDriveError: there are no such scenes.
    """
    compiled = {*report.built, *report.skipped}
    unknown = [token for token in tokens if token not in compiled and report.failed.get(token) == NO_SUCH_SCENE]
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise MTDriveError(f"{config.trajectories} names {len(unknown)} scenes that {source} does not have: {shown}.")
    return {token: report.failed.get(token, "not compiled") for token in tokens if token not in compiled}


def write_tables(out: Path, scores: SubmissionScores, stages: TwoStageScores | None) -> None:
    """The CSV with a row for each trajectory, and the one that navsim's script would write."""
    columns = {"token": scores.tokens, **scores.columns, "score": scores.score}
    if stages is not None:
        columns["weight"] = stages.weights
    table = pd.DataFrame({**columns, "metric": scores.metric, "status": scores.status})
    official = one_stage_table(scores) if stages is None else two_stage_table(stages)
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(out.with_suffix(".navsim.csv")) as temporary:
        official.to_csv(temporary)


def provenance(
    config: ScoreSettings, scores: SubmissionScores, stages: TwoStageScores | None, failed: dict[str, str]
) -> dict[str, object]:
    """How a table of scores was made, and its means over the rows with status "ok"."""
    table = pd.DataFrame({**scores.columns, "score": scores.score})
    made = {
        "metric": config.metric,
        "human_penalty_filter": uses_human_filter(config.metric, config.human_penalty_filter),
        "traffic": config.traffic,
        "scene_set": dataclasses.asdict(config.scene_filter.scene_set),
        "title": title(config, scores),
        "trajectories": {**source(Path(config.trajectories)), "rows": len(table)},
        "mtdrive": version("mtdrive"),
        "scene_cache": {"format_version": FORMAT_VERSION, "metric_versions": revisions()},
        "scenes": {token: dataclasses.asdict(fingerprint) for token, fingerprint in scores.fingerprints.items()},
        "status": pd.Series(scores.status).value_counts().to_dict(),
        "failed_scenes": failed,
        "mean": table.mean().dropna().to_dict(),
    }
    if stages is not None and config.mapping_file is not None:
        made["two_stages"] = {
            "mapping": source(config.mapping_file),
            "stage_one": stages.stage_one,
            "stage_two": stages.stage_two,
            "combined": stages.combined,
        }
    return made


def title(config: ScoreSettings, scores: SubmissionScores) -> str:
    """The scenes that have a trajectory, for a heading."""
    chosen, count = config.scene_filter, len({token for token in scores.tokens.tolist() if not is_synthetic(token)})
    if chosen.tokens is not None:
        return f"{chosen.scene_set}, {count:,} of {len(chosen.tokens):,} scenes"
    return f"{chosen.scene_set.name}, {count:,} scenes out of its windows"


def source(path: Path) -> dict[str, str]:
    """Name and digest of a file."""
    with open(path, "rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def print_summary(
    config: ScoreSettings, scores: SubmissionScores, stages: TwoStageScores | None, failed: dict[str, str]
) -> None:
    """The means, what has no score, and where everything lies."""
    console, out = terminal(WIDTH), Path(config.out)
    heading = f"{config.metric} on {title(config, scores)}, traffic {config.traffic}"
    for table in summary_tables(scores.columns, scores.score, heading):
        console.print(table)
    if stages is not None:
        console.print(two_stage_summary(stages))
    for status, count in pd.Series(scores.status[scores.status != OK]).value_counts().items():
        console.print(f"{count} rows without a score: {status}", style="red")
    for token, reason in failed.items():
        console.print(Text.assemble((token, "red"), f": {reason}"))
    console.print(
        f"{len(scores.tokens)} rows in {out}, as navsim writes them in {out.with_suffix('.navsim.csv')}, "
        f"how they were made in {out.with_suffix('.json')}"
    )


def print_explanation(
    config: ScoreSettings, submission: Submission, scores: SubmissionScores, row: int, cache_root: Path
) -> None:
    """Why one trajectory has its score, and a picture of it beside the CSV."""
    token, out = str(submission.tokens[row]), Path(config.out)
    scene = SceneStore(cache_root, SYNTHETIC if is_synthetic(token) else config.scene_filter.scene_set.store).load(
        token
    )
    explanation = explain(scene, submission.poses[row], submission.interval, config.metric, config.human_penalty_filter)
    console, picture = terminal(WIDTH), out.with_suffix(f".{row}.png")
    for table in explanation_tables(explanation, scores, row):
        console.print(table)
    problem = draw(explanation, config.data_root, scene.split, picture)
    console.print(f"picture in {picture}" + (f" (from above alone: {problem})" if problem else ""))
