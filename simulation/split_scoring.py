"""Scoring a submission over the compiled scenes of a split."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.processes import map_unordered
from mtdrive.simulation.scene_cache.format import Fingerprint
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import score
from mtdrive.simulation.submission import Submission

NO_SCENE = "no_scene"
SCENES_PER_TASK = 128
MIN_SCENES_PER_WORKER = 512  # scoring so many scenes takes about as long as starting a process


@dataclass(frozen=True)
class SubmissionScores:
    """Scores of N trajectories, in the order of the submission.

    status: (N,) "ok", "invalid_trajectory" or "no_scene" (its scene could not be compiled); not "ok" means NaN.
    columns: navsim's column name -> (N,). score: (N,). fingerprints: what each scene was compiled from, by token.
    """

    status: np.ndarray
    columns: dict[str, np.ndarray]
    score: np.ndarray
    fingerprints: dict[str, Fingerprint]


@dataclass(frozen=True)
class _Task:
    """Scenes of one task: token -> rows of the submission, and their poses."""

    rows: dict[str, np.ndarray]
    poses: dict[str, np.ndarray]


def score_submission(
    submission: Submission,
    cache_root: Path,
    split: str,
    metric: str,
    *,
    human_penalty_filter: bool | None = None,
    without_scene: Collection[str] = (),
    workers: int = 1,
) -> SubmissionScores:
    """Score trajectories scene by scene.

    Args:
        cache_root, split: where the compiled scenes are, as in SceneStore.
        metric, human_penalty_filter: as in `scoring.score`.
        without_scene: tokens whose scene could not be compiled.
        workers: processes.

    Raises:
        MTDriveError: there is no such metric, or a scene cache is missing or damaged.
    """
    names = [metric_.column for metric_ in metrics_of(metric)]
    rows_of = _group(submission.tokens)
    for token in without_scene:
        rows_of.pop(token, None)
    tokens = list(rows_of)
    tasks = [
        _Task({token: rows_of[token] for token in part}, {token: submission.poses[rows_of[token]] for token in part})
        for part in (tokens[i : i + SCENES_PER_TASK] for i in range(0, len(tokens), SCENES_PER_TASK))
    ]

    count = len(submission.tokens)
    status = np.full(count, NO_SCENE, dtype="<U32")
    values = np.full((count, len(names) + 1), np.nan)
    fingerprints = {}
    options = (submission.interval, metric, human_penalty_filter)
    work = partial(_score_task, cache_root=cache_root, split=split, options=options)
    workers = min(workers, -(-len(tokens) // MIN_SCENES_PER_WORKER))
    with tqdm(total=len(tokens), desc=f"{metric} on {split}", unit="scene") as progress:
        for rows, task_status, task_values, task_fingerprints in map_unordered(work, tasks, workers):
            status[rows], values[rows] = task_status, task_values
            fingerprints |= task_fingerprints
            progress.update(len(task_fingerprints))
    return SubmissionScores(status, dict(zip(names, values.T, strict=False)), values[:, -1], fingerprints)


def _group(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each token, in the order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, token in enumerate(tokens.tolist()):
        rows.setdefault(token, []).append(row)
    return {token: np.array(group) for token, group in rows.items()}


_store = lru_cache(SceneStore)


def _score_task(
    task: _Task, cache_root: Path, split: str, options: tuple[float, str, bool | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Fingerprint]]:
    """Rows, their status and their values (sub-metrics, then score), and fingerprints by token."""
    store = _store(cache_root, split)
    scored = [score(store.load(token), poses, *options) for token, poses in task.poses.items()]
    values = [np.column_stack([*scores.columns.values(), scores.score]) for scores in scored]
    return (
        np.concatenate(list(task.rows.values())),
        np.concatenate([scores.status for scores in scored]),
        np.concatenate(values),
        {token: store.fingerprint(token) for token in task.rows},
    )
