"""Assess plans in this process, or in a pool of worker processes while this one goes on.

A worker receives a scene's token and the plans, and loads the scene from its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import Assessment
from mtdrive.simulation.runtime.processes import KILLED, Pool, WorkerKilled, check_workers
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore

Assess = Callable[[Scene, np.ndarray], Sequence[Assessment]]
"""Assesses plans (N, 8, 3) of one scene: `feedback.assessment.assess` with its options bound."""

KEPT_SCENES = 64  # in each worker, enough for a few training steps


class Assessor(Protocol):
    """Assesses plans and returns the results as futures."""

    def submit(self, scene: Scene, poses: np.ndarray) -> Future[Sequence[Assessment]]:
        """Assess plans (N, 8, 3) of one scene: the future holds N assessments, or the exception that was raised."""


class InProcessAssessor:
    """Assesses plans in this process, as soon as they are submitted."""

    def __init__(self, assess: Assess):
        self._assess = assess

    def submit(self, scene: Scene, poses: np.ndarray) -> Future[Sequence[Assessment]]:
        """See `Assessor.submit`; the future is done."""
        future: Future[Sequence[Assessment]] = Future()
        try:
            future.set_result(self._assess(scene, poses))
        except Exception as error:
            future.set_exception(error)
        return future


class WorkerPoolAssessor:
    """Assesses plans in a pool of worker processes."""

    def __init__(self, pool: Pool):
        self._pool = pool

    def submit(self, scene: Scene, poses: np.ndarray) -> Future[Sequence[Assessment]]:
        """See `Assessor.submit`.

        Raises:
            MTDriveError: a worker was killed; if it was killed later, the future holds this error.
        """
        future: Future[Sequence[Assessment]] = Future()

        def pass_on(done: Future) -> None:
            error = done.exception()
            if error is None:
                future.set_result(done.result())
            else:
                future.set_exception(_killed() if isinstance(error, WorkerKilled) else error)

        try:
            self._pool.submit((scene.token, poses)).add_done_callback(pass_on)
        except WorkerKilled:
            raise _killed() from None
        return future


@contextmanager
def open_assessor(assess: Assess, store: SceneStore, workers: int) -> Iterator[Assessor]:
    """An assessor, for a `with` block.

    Args:
        assess: assesses the plans; picklable if there are workers.
        store: holds the scenes whose plans will be submitted.
        workers: number of worker processes, which end with the block; 0 assesses in this process.

    Raises:
        MTDriveError: workers is not a number from 0 on.
    """
    check_workers(workers, least=0, key="scoring_workers")
    if workers == 0:
        yield InProcessAssessor(assess)
        return
    task = _WorkerTask(assess, store)
    with Pool(task, workers, task.warm_up) as pool:
        yield WorkerPoolAssessor(pool)


@dataclass(frozen=True)
class _WorkerTask:
    """What a worker does: load a scene by its token and assess plans of it."""

    assess: Assess
    """Assesses the plans."""
    store: SceneStore
    """Where the scenes are."""

    def __call__(self, item: tuple[str, np.ndarray]) -> Sequence[Assessment]:
        token, poses = item
        return self.assess(_load(self.store, token), poses)

    def warm_up(self) -> None:
        """Load the compiled kernels, by assessing a plan."""
        with suppress(Exception):  # a scene that cannot be assessed raises again when its plans are submitted
            self((self.store.tokens[0], np.zeros((1, 8, 3))))


@lru_cache(maxsize=KEPT_SCENES)
def _load(store: SceneStore, token: str) -> Scene:
    return store.load(token)


def _killed() -> MTDriveError:
    return MTDriveError(f"{KILLED}; run again with scoring_workers=0, or with fewer.")
