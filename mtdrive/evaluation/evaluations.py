"""Finished evaluations, as `mtdrive evaluate` leaves them in its folder, and which of them can stand in one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mtdrive.evaluation.rows import KEY_COLUMNS, PLANNER
from mtdrive.evaluation.tables import read_scores
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.json_files import read_json

SCORED_BY = ("metric", "metric_version")  # of a provenance: scores that differ in them are other quantities
AGREEMENT = 1e-9  # between scores of the same plan
OF_THE_PLANNER = ("planner", "prompt", "turns", "temperature", "seed", "resamples", "scene_cache_format")
"""Of a provenance: what evaluations of the same scenes may differ in."""


@dataclass(frozen=True)
class Evaluation:
    """What `mtdrive evaluate` wrote."""

    folder: Path
    """Its folder."""
    provenance: Mapping[str, Any]
    """What the scores come from; what stands in groups there has keys such as "scene_set.name" here."""
    table: pd.DataFrame
    """One row per scene, policy and turn, as `rows.as_table`."""


def open_evaluation(folder: Path) -> Evaluation:
    """Read an evaluation.

    Raises:
        MTDriveError: the folder holds none, or a file of it is damaged.
    """
    try:
        provenance = read_json(folder / "summary.json")["provenance"]
        table = read_scores(folder / "scores.csv")
        if missing := {*SCORED_BY} - provenance.keys() | {*KEY_COLUMNS} - {*table.columns}:
            raise ValueError(f"there is no {min(missing)}")
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise MTDriveError(
            f"{folder} is not the folder of an evaluation, with a summary.json and a scores.csv ({error}); name one "
            "that mtdrive evaluate has written, or evaluate again."
        ) from error
    provenance.pop("title", None)  # says in words what other keys say
    return Evaluation(folder, dict(_flat(provenance)), table)


def _flat(group: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_one_metric(evaluations: Iterable[Evaluation]) -> None:
    """Refuse evaluations that cannot stand in one table.

    Raises:
        MTDriveError: they were scored by different metrics, or by different versions of one.
    """
    found: dict[tuple[Any, ...], Path] = {}
    for evaluation in evaluations:
        found.setdefault(tuple(evaluation.provenance[key] for key in SCORED_BY), evaluation.folder)
    if len(found) > 1:
        named = ", ".join(f"{metric} version {version} in {folder}" for (metric, version), folder in found.items())
        raise MTDriveError(
            f"One table cannot hold scores of different metrics: {named}; evaluate again by one of them, or score the "
            "stored plans (mtdrive score trajectories=.../episodes.jsonl)."
        )


def differing(evaluations: Sequence[Evaluation]) -> dict[str, list[Any]]:
    """What the provenances differ in: key -> the value of each evaluation, None where it has none."""
    keys = dict.fromkeys(key for evaluation in evaluations for key in evaluation.provenance)
    values = {key: [evaluation.provenance.get(key) for evaluation in evaluations] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def check_comparable(evaluations: Sequence[Evaluation], allow: Sequence[str]) -> None:
    """Refuse evaluations that differ from the first in more than the planner.

    Args:
        evaluations: at least one.
        allow: keys of a provenance that may differ as well; the name of a group stands for its keys.

    Raises:
        MTDriveError: they differ in anything else, or in the metric, whatever is allowed; or no such key exists.
    """
    first, *others = evaluations
    known = {key.partition(".")[0] for evaluation in evaluations for key in evaluation.provenance}
    if unknown := [key for key in allow if key.partition(".")[0] not in known]:
        raise MTDriveError(f"allow={unknown[0]} is no key of the runs' provenance: {', '.join(sorted(known))}.")
    allowed = {*OF_THE_PLANNER, *allow} - {"metric"}
    for other in others:
        found = {
            key: values
            for key, values in differing([first, other]).items()
            if not {key, key.partition(".")[0]} & allowed
        }
        if not found:
            continue
        named = ", ".join(f"{key} {theirs} instead of {ours}" for key, (ours, theirs) in found.items())
        cure = f"allow=[{','.join(dict.fromkeys(key.partition('.')[0] for key in found))}] compares them all the same"
        if "metric" in found:
            cure = "score both by one metric (mtdrive score trajectories=.../episodes.jsonl)"
        raise MTDriveError(f"{other.folder} has {named} as in {first.folder}; {cure}.")


def check_baselines(evaluations: Sequence[Evaluation]) -> None:
    """Refuse evaluations whose baselines, which are the same plans everywhere, have other scores than in the first.

    Raises:
        MTDriveError: they do, so that the scenes are not the same.
    """
    first, *others = [
        evaluation.table[evaluation.table.policy != PLANNER].set_index(["policy", "token"]).score
        for evaluation in evaluations
    ]
    for evaluation, scores in zip(evaluations[1:], others, strict=True):
        apart = (scores - first).abs().dropna()
        if len(apart) and apart.max() > AGREEMENT:
            policy, token = apart.idxmax()
            raise MTDriveError(
                f"{evaluation.folder} and {evaluations[0].folder} were not scored on the same scenes: the plan of "
                f"{policy} in {token} differs by {apart.max():.3f}; evaluate again on one scene cache."
            )


def short_names(folders: Sequence[Path]) -> list[str]:
    """The ends of paths, as long as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise MTDriveError(f"{folders[0]} and the other runs must be different folders.")
