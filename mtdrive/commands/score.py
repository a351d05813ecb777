"""`mtdrive score`: PDM scores of the trajectories in a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from mtdrive.evaluation.explain import draw, explain, explanation_tables, row_of
from mtdrive.evaluation.official_tables import one_stage_table, two_stage_table
from mtdrive.evaluation.score_summary import (
    comfort_note,
    extended_comfort_rows,
    means_side_by_side,
    means_table,
    summary_tables,
    two_stage_summary,
)
from mtdrive.evaluation.stored_plans import EPISODES, NO_PLAN, read_plans, without_plan
from mtdrive.settings.evaluation import ALL, ScoreSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.registry import revisions
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.runtime.files import atomic_path, check_writable
from mtdrive.simulation.scene_cache.build import NO_SUCH_SCENE, CacheReport, build_caches, build_synthetic_caches
from mtdrive.simulation.scene_cache.format import FORMAT_VERSION
from mtdrive.simulation.scene_cache.store import SYNTHETIC, SceneStore
from mtdrive.simulation.scoring import OK, uses_human_filter
from mtdrive.simulation.submission.definitions import Definition, definitions_for, scores_by_definition
from mtdrive.simulation.submission.files import Submission
from mtdrive.simulation.submission.mapping import read_mapping
from mtdrive.simulation.submission.scoring import SubmissionScores, score_submission
from mtdrive.simulation.submission.two_stage import TwoStageScores
from mtdrive.terminal import terminal

WIDTH = 140  # of the tables in a file or pipe


@dataclass(frozen=True)
class Result:
    """The plans of one turn, scored by one definition."""

    out: Path
    """The .csv with a row for each trajectory; the other files stand beside it."""
    definition: Definition
    """What they are scored by."""
    scores: SubmissionScores
    """Their final scores."""
    stages: TwoStageScores | None
    """Both stages; None for one stage."""


def run(config: ScoreSettings) -> int:
    """Score; see configs/score.yaml. Exit status 1 if a scene could not be compiled."""
    out, console = Path(config.out), terminal(WIDTH)
    plans = read_plans(Path(config.trajectories), config.scene_filter.data_split, config.turns)
    groups = read_mapping(config.mapping_file) if config.mapping_file else None
    definitions = chosen(config)
    submission = next(iter(plans.values()))
    explained = None if config.explain is None else row_of(config.explain, submission.tokens)
    of = {definition: definition.name if len(definitions) > 1 else "" for definition in definitions}
    names = [[part for part in (turn, of[definition]) if part] for turn in plans for definition in definitions]
    places = [out.with_suffix("".join(f".{name}" for name in parts) + ".csv") for parts in names]
    check_places(out, places, explained)
    failed = build_missing(config, submission, config.cache_root)

    results: list[Result] = []
    for turn in plans.values():
        score_by = partial(score_plans, config, turn, failed)
        for definition, scores, stages in scores_by_definition(definitions, score_by, groups):
            results.append(Result(places[len(results)], definition, scores, stages))
            write_result(config, results[-1], failed)
    if len(results) == 1:
        print_summary(config, results[0])
    else:
        compare_means(config, {" ".join(name): result for name, result in zip(names, results, strict=True)})
    for token, reason in failed.items():
        console.print(Text.assemble((token, "red"), f": {reason}"))
    if explained is not None and submission.tokens[explained] not in failed:
        print_explanation(config, submission, results[0].scores, explained)
    return 1 if failed else 0


def chosen(config: ScoreSettings) -> tuple[Definition, ...]:
    """What the plans are scored by."""
    if config.metric == ALL:
        return definitions_for(config.traffic, config.mapping_file is not None)
    return (Definition(config.metric, config.metric, config.human_penalty_filter),)


def check_places(out: Path, places: Sequence[Path], explained: int | None) -> None:
    """Raises MTDriveError if a file that is to be written cannot be."""
    files = [place.with_suffix(suffix) for place in places for suffix in (".csv", ".navsim.csv", ".json")]
    for file in [out, *files, *([] if explained is None else [out.with_suffix(f".{explained}.png")])]:
        check_writable(file)


def score_plans(
    config: ScoreSettings,
    submission: Submission,
    failed: dict[str, str],
    metric: str,
    human_penalty_filter: bool | None,
) -> SubmissionScores:
    """Score the plans by one version; scenes of `failed` have none."""
    scores = score_submission(
        submission,
        config.cache_root,
        config.scene_filter.scene_set.store,
        metric,
        human_penalty_filter=human_penalty_filter,
        traffic=config.traffic,
        without_scene=failed,
        workers=config.workers,
    )
    if Path(config.trajectories).suffix != EPISODES:
        return scores
    return replace(scores, status=np.where(without_plan(submission), NO_PLAN, scores.status))


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


def write_result(config: ScoreSettings, result: Result, failed: dict[str, str]) -> None:
    """The CSV with a row for each trajectory, the one that navsim's script would write, and how they were made."""
    scores, stages = result.scores, result.stages
    columns = {"token": scores.tokens, **scores.columns, "score": scores.score}
    if stages is not None:
        columns["weight"] = stages.weights
    table = pd.DataFrame({**columns, "metric": result.definition.name, "status": scores.status})
    official = one_stage_table(scores) if stages is None else two_stage_table(stages)
    with atomic_path(result.out) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(result.out.with_suffix(".navsim.csv")) as temporary:
        official.to_csv(temporary)
    with atomic_path(result.out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(provenance(config, result, failed), indent=2))


def provenance(config: ScoreSettings, result: Result, failed: dict[str, str]) -> dict[str, object]:
    """How a table of scores was made, and its means over the rows with status "ok"."""
    definition, scores, stages = result.definition, result.scores, result.stages
    table = pd.DataFrame({**scores.columns, "score": scores.score})
    made = {
        "metric": definition.metric,
        "definition": definition.name,
        "human_penalty_filter": uses_human_filter(definition.metric, definition.human_penalty_filter),
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
        "rows": table.notna().sum().to_dict(),  # that each mean is over
        "extended_comfort_rows": extended_comfort_rows(scores),
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


def print_summary(config: ScoreSettings, result: Result) -> None:
    """The means, what has no score, and where everything lies."""
    console, out, scores = terminal(WIDTH), result.out, result.scores
    comfort = comfort_note(scores.metric, extended_comfort_rows(scores) or 0, int((scores.status == OK).sum()))
    heading = f"{scores.metric} on {title(config, scores)}, traffic {config.traffic}{comfort}"
    for table in summary_tables(scores.columns, scores.score, heading):
        console.print(table)
    if result.stages is not None:
        console.print(two_stage_summary(result.stages))
    print_unscored(console, scores)
    console.print(
        f"{len(scores.tokens)} rows in {out}, as navsim writes them in {out.with_suffix('.navsim.csv')}, "
        f"how they were made in {out.with_suffix('.json')}"
    )


def print_unscored(console: Console, scores: SubmissionScores) -> None:
    """How many rows have no score, and why."""
    for status, count in pd.Series(scores.status[scores.status != OK]).value_counts().items():
        console.print(f"{count} rows without a score: {status}", style="red")


def compare_means(config: ScoreSettings, results: Mapping[str, Result]) -> None:
    """The means of all results, by name, side by side: written and printed."""
    console, out = terminal(WIDTH), Path(config.out)
    means = means_side_by_side({name: (result.scores, result.stages) for name, result in results.items()})
    with atomic_path(out) as temporary:
        means.to_csv(temporary)
    first = next(iter(results.values())).scores
    console.print(means_table(means, f"{title(config, first)}, traffic {config.traffic}"))
    print_unscored(console, list(results.values())[-1].scores)
    places = ", ".join(str(result.out) for result in results.values())
    console.print(f"means in {out}, {len(list(results.values())[-1].scores.tokens)} rows in each of {places}")


def print_explanation(config: ScoreSettings, submission: Submission, scores: SubmissionScores, row: int) -> None:
    """Why one trajectory has its score, and a picture of it beside the CSV."""
    token, out = str(submission.tokens[row]), Path(config.out)
    store = SYNTHETIC if is_synthetic(token) else config.scene_filter.scene_set.store
    scene = SceneStore(config.cache_root, store).load(token)
    explanation = explain(scene, submission.poses[row], submission.interval, scores.metric, config.human_penalty_filter)
    console, picture = terminal(WIDTH), out.with_suffix(f".{row}.png")
    for table in explanation_tables(explanation, scores, row):
        console.print(table)
    problem = draw(explanation, config.data_root, scene.split, picture)
    console.print(f"picture in {picture}" + (f" (from above alone: {problem})" if problem else ""))
