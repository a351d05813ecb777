"""Scoring a submission over the compiled scenes of a split."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtdrive.simulation.dynamics.state import SIZE
from mtdrive.simulation.geometry.frames import points_to_global
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene import NUM_STEPS, Scene
from mtdrive.simulation.scene_cache.format import Fingerprint
from mtdrive.simulation.scene_cache.store import SYNTHETIC, SceneStore
from mtdrive.simulation.scoring import LOG_REPLAY, Scores, score
from mtdrive.simulation.submission.files import Submission

NO_SCENE = "no_scene"
SCENES_PER_TASK = 128
MIN_SCENES_PER_WORKER = 512  # scoring so many scenes takes about as long as starting a process


@dataclass(frozen=True)
class DrivenTrajectories:
    """Where and how N trajectories were driven; rows without a scene hold "" and NaN.

    log_names: (N,) str. times: (N,) t0 [s]. starts, ends: (N, 2) rear axle at t0 and at the end of the plan, in the
    map's metres. states: (N, 41, 11) simulated, columns as in `dynamics.state`; NaN unless the status is "ok".
    """

    log_names: np.ndarray
    times: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class SubmissionScores:
    """Scores of N trajectories, in the order of the submission.

    metric: score version. tokens: (N,) of their scenes.
    status: (N,) "ok", "invalid_trajectory" or "no_scene" (its scene could not be compiled); not "ok" means NaN.
    columns: navsim's column name -> (N,). score: (N,). fingerprints: what each scene was compiled from, by token.
    driven: None if a token occurs more than once.
    """

    metric: str
    tokens: np.ndarray
    status: np.ndarray
    columns: dict[str, np.ndarray]
    score: np.ndarray
    fingerprints: dict[str, Fingerprint]
    driven: DrivenTrajectories | None


@dataclass(frozen=True)
class _Task:
    """Scenes of one task: token -> rows of the submission, and their poses."""

    rows: dict[str, np.ndarray]
    poses: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Result:
    """What came out of a task: rows of the submission, and what SubmissionScores holds of them."""

    rows: np.ndarray
    status: np.ndarray
    values: np.ndarray  # sub-metrics, then score
    fingerprints: dict[str, Fingerprint]
    driven: DrivenTrajectories | None


def score_submission(
    submission: Submission,
    cache_root: Path,
    split: str,
    metric: str,
    *,
    human_penalty_filter: bool | None = None,
    traffic: str = LOG_REPLAY,
    without_scene: Collection[str] = (),
    workers: int | str = 1,
) -> SubmissionScores:
    """Score trajectories scene by scene.

    Args:
        cache_root, split: where the compiled scenes are, as in SceneStore; synthetic scenes are of split SYNTHETIC.
        metric, human_penalty_filter, traffic: as in `scoring.score`.
        without_scene: tokens whose scene could not be compiled.
        workers: as in `map_unordered`.

    Raises:
        MTDriveError: there is no such metric or traffic, or a scene cache is missing or damaged.
    """
    _store.cache_clear()  # scenes may have been compiled since
    names = [metric_.column for metric_ in metrics_of(metric)]
    rows_of = _group(submission.tokens)
    count = len(submission.tokens)
    drives = _none_driven(count) if len(rows_of) == count else None
    for token in without_scene:
        rows_of.pop(token, None)
    tokens = list(rows_of)
    tasks = [
        _Task({token: rows_of[token] for token in part}, {token: submission.poses[rows_of[token]] for token in part})
        for part in (tokens[i : i + SCENES_PER_TASK] for i in range(0, len(tokens), SCENES_PER_TASK))
    ]

    status = np.full(count, NO_SCENE, dtype="<U32")
    values = np.full((count, len(names) + 1), np.nan)
    fingerprints = {}
    options = (submission.interval, metric, human_penalty_filter, traffic)
    work = partial(_score_task, cache_root=cache_root, split=split, options=options, with_drives=drives is not None)
    most = -(-len(tokens) // MIN_SCENES_PER_WORKER)
    with tqdm(total=len(tokens), desc=f"{metric} on {split}", unit="scene") as progress:
        for result in map_unordered(work, tasks, workers, most):
            status[result.rows], values[result.rows] = result.status, result.values
            fingerprints |= result.fingerprints
            if drives is not None:
                for field in fields(DrivenTrajectories):
                    getattr(drives, field.name)[result.rows] = getattr(result.driven, field.name)
            progress.update(len(result.fingerprints))
    return SubmissionScores(
        metric=metric,
        tokens=submission.tokens,
        status=status,
        columns=dict(zip(names, values.T, strict=False)),
        score=values[:, -1],
        fingerprints=fingerprints,
        driven=drives,
    )


def _group(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each token, in the order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, token in enumerate(tokens.tolist()):
        rows.setdefault(token, []).append(row)
    return {token: np.array(group) for token, group in rows.items()}


def _none_driven(count: int) -> DrivenTrajectories:
    return DrivenTrajectories(
        log_names=np.full(count, "", dtype=object),
        times=np.full(count, np.nan),
        starts=np.full((count, 2), np.nan),
        ends=np.full((count, 2), np.nan),
        states=np.full((count, NUM_STEPS, SIZE), np.nan),
    )


_store = lru_cache(SceneStore)


def _score_task(
    task: _Task, cache_root: Path, split: str, options: tuple[float, str, bool | None, str], with_drives: bool
) -> _Result:
    stores = {token: _store(cache_root, SYNTHETIC if is_synthetic(token) else split) for token in task.rows}
    scored, drives = [], []
    for token, poses in task.poses.items():
        scene = stores[token].load(token)
        scored.append(score(scene, poses, *options))
        if with_drives:
            drives.append(_driven(scene, poses, scored[-1]))
    return _Result(
        rows=np.concatenate(list(task.rows.values())),
        status=np.concatenate([scores.status for scores in scored]),
        values=np.concatenate([np.column_stack([*scores.columns.values(), scores.score]) for scores in scored]),
        fingerprints={token: stores[token].fingerprint(token) for token in task.rows},
        driven=_joined(drives) if with_drives else None,
    )


def _driven(scene: Scene, poses: np.ndarray, scores: Scores) -> DrivenTrajectories:
    count = len(poses)
    return DrivenTrajectories(
        log_names=np.full(count, scene.log_name, dtype=object),
        times=np.full(count, scene.timestamp * 1e-6),
        starts=np.tile(scene.origin[:2], (count, 1)),
        ends=points_to_global(poses[:, -1, :2], scene.origin),
        states=scores.events["states"],
    )


def _joined(parts: Sequence[DrivenTrajectories]) -> DrivenTrajectories:
    names = [field.name for field in fields(DrivenTrajectories)]
    return DrivenTrajectories(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
