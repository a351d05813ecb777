"""Score a submission over compiled scenes, in this process or in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtdrive.simulation.dynamics.state import SIZE
from mtdrive.simulation.geometry.frames import points_to_global
from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT
from mtdrive.simulation.metrics.registry import final_score, metrics_of
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene import NUM_STEPS, Scene
from mtdrive.simulation.scene_cache.format import Fingerprint
from mtdrive.simulation.scene_cache.store import SYNTHETIC, SceneStore
from mtdrive.simulation.scoring import LOG_REPLAY, Scores, score
from mtdrive.simulation.submission.files import Submission

NO_SCENE = "no_scene"
SCENES_PER_TASK = 128
MIN_SCENES_PER_WORKER = 512  # as many as are scored in the time that starting a process takes


@dataclass(frozen=True)
class DrivenTrajectories:
    """Where and how N trajectories were driven, to compare them across frames. Rows without a scene hold "" and NaN."""

    log_names: np.ndarray
    """(N,) str, log of the scene."""
    times: np.ndarray
    """(N,) t0 [s since 1970]."""
    starts: np.ndarray
    """(N, 2) UTM x, y [m] of the rear axle at t0."""
    ends: np.ndarray
    """(N, 2) UTM x, y [m] of the rear axle at the end of the plan."""
    states: np.ndarray
    """(N, 41, 11) the driven trajectories, columns as in `dynamics.state`; NaN unless the status is "ok"."""

    @classmethod
    def empty(cls, count: int) -> DrivenTrajectories:
        """`count` rows without a scene."""
        return cls(
            log_names=np.full(count, "", dtype=object),
            times=np.full(count, np.nan),
            starts=np.full((count, 2), np.nan),
            ends=np.full((count, 2), np.nan),
            states=np.full((count, NUM_STEPS, SIZE), np.nan),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[DrivenTrajectories]) -> DrivenTrajectories:
        """The rows of all parts, one part after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def fill(self, rows: np.ndarray, part: DrivenTrajectories) -> None:
        """Write the rows of a part into the given rows (n,)."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(part, field.name)


@dataclass(frozen=True)
class SubmissionScores:
    """Scores of N trajectories, in the order of the submission."""

    metric: str
    """Score version."""
    tokens: np.ndarray
    """(N,) str, tokens of their scenes."""
    status: np.ndarray
    """(N,) str: "ok", "invalid_trajectory" or "no_scene" (its scene could not be compiled)."""
    columns: dict[str, np.ndarray]
    """Sub-metrics (N,) by navsim's column name; NaN unless the status is "ok"."""
    score: np.ndarray
    """(N,) final scores; NaN unless the status is "ok"."""
    fingerprints: dict[str, Fingerprint]
    """What each scene was compiled from, by token."""
    driven: DrivenTrajectories | None
    """The driven trajectories; None if a token occurs more than once."""

    def with_extended_comfort(self, comfort: np.ndarray) -> SubmissionScores:
        """The scores with two-frame extended comfort (N,) as a column and in the final score."""
        columns = {**self.columns, EXTENDED_COMFORT: comfort}
        return replace(self, columns=columns, score=final_score(self.metric, columns))


@dataclass(frozen=True)
class _Task:
    """The scenes of one task."""

    rows: dict[str, np.ndarray]
    """Rows (n,) of the submission by token."""
    poses: dict[str, np.ndarray]
    """Poses (n, T, 3) of these rows by token."""


@dataclass(frozen=True)
class _Result:
    """The scores that a task computed for M rows of the submission."""

    rows: np.ndarray
    """(M,) rows of the submission."""
    status: np.ndarray
    """(M,) str."""
    values: np.ndarray
    """(M, columns + 1) sub-metrics, then the final score."""
    fingerprints: dict[str, Fingerprint]
    """By token."""
    driven: DrivenTrajectories | None
    """M rows, or None if they are not asked for."""


def score_submission(
    submission: Submission,
    cache_root: Path,
    store: str,
    metric: str,
    *,
    human_penalty_filter: bool | None = None,
    traffic: str = LOG_REPLAY,
    without_scene: Collection[str] = (),
    workers: int | str = 1,
) -> SubmissionScores:
    """Score trajectories scene by scene.

    Args:
        submission: the trajectories.
        cache_root: where the compiled scenes are, as in `SceneStore`.
        store: name of the store of the recorded scenes, as in `SceneStore`; synthetic scenes are in store SYNTHETIC.
        metric: score version, as in `scoring.score`.
        human_penalty_filter: as in `scoring.score`.
        traffic: as in `scoring.score`.
        without_scene: tokens whose scene could not be compiled; their rows get the status "no_scene".
        workers: number of processes, as in `map_unordered`.

    Raises:
        MTDriveError: an unknown metric or traffic, or a scene cache that is missing or damaged.
    """
    _store.cache_clear()  # scenes may have been compiled since
    names = [metric_.column for metric_ in metrics_of(metric)]
    rows_of = _group(submission.tokens)
    count = len(submission.tokens)
    driven = DrivenTrajectories.empty(count) if len(rows_of) == count else None
    for token in without_scene:
        rows_of.pop(token, None)
    tokens = list(rows_of)
    tasks = [
        _Task({token: rows_of[token] for token in part}, {token: submission.poses[rows_of[token]] for token in part})
        for part in (tokens[i : i + SCENES_PER_TASK] for i in range(0, len(tokens), SCENES_PER_TASK))
    ]

    status = np.full(count, NO_SCENE, dtype="<U32")
    values = np.full((count, len(names) + 1), np.nan)
    fingerprints: dict[str, Fingerprint] = {}
    score_poses = partial(
        score,
        interval=submission.interval,
        metric=metric,
        human_penalty_filter=human_penalty_filter,
        traffic=traffic,
    )
    work = partial(
        _score_task, cache_root=cache_root, store=store, score_poses=score_poses, with_driven=driven is not None
    )
    most = -(-len(tokens) // MIN_SCENES_PER_WORKER)
    with tqdm(total=len(tokens), desc=f"{metric} on {store}", unit="scene") as progress:
        for result in map_unordered(work, tasks, workers, most):
            status[result.rows], values[result.rows] = result.status, result.values
            fingerprints |= result.fingerprints
            if driven is not None and result.driven is not None:
                driven.fill(result.rows, result.driven)
            progress.update(len(result.fingerprints))
    return SubmissionScores(
        metric=metric,
        tokens=submission.tokens,
        status=status,
        columns=dict(zip(names, values.T, strict=False)),
        score=values[:, -1],
        fingerprints=fingerprints,
        driven=driven,
    )


def _group(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each token, the tokens in the order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, token in enumerate(tokens.tolist()):
        rows.setdefault(token, []).append(row)
    return {token: np.array(group) for token, group in rows.items()}


_store = lru_cache(SceneStore)


def _score_task(
    task: _Task, cache_root: Path, store: str, score_poses: Callable[[Scene, np.ndarray], Scores], with_driven: bool
) -> _Result:
    """Load the scenes of a task and score its trajectories."""
    stores = {token: _store(cache_root, SYNTHETIC if is_synthetic(token) else store) for token in task.rows}
    scored, driven = [], []
    for token, poses in task.poses.items():
        scene = stores[token].load(token)
        scored.append(score_poses(scene, poses))
        if with_driven:
            driven.append(_driven(scene, poses, scored[-1]))
    return _Result(
        rows=np.concatenate(list(task.rows.values())),
        status=np.concatenate([scores.status for scores in scored]),
        values=np.concatenate([np.column_stack([*scores.columns.values(), scores.score]) for scores in scored]),
        fingerprints={token: stores[token].fingerprint(token) for token in task.rows},
        driven=DrivenTrajectories.concatenate(driven) if with_driven else None,
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
