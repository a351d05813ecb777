"""Who assesses plans: this process, at once, or worker processes, while this one goes on.

Workers are sent a scene's token and the plans, and load the scene from its cache themselves.
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
KEPT_SCENES = 64  # in a worker: those of a few steps of training


class Assessor(Protocol):
    """Takes plans in and hands out their assessments when they are asked for."""

    def submit(self, scene: Scene, poses: np.ndarray) -> Future[Sequence[Assessment]]:
        """Plans (N, 8, 3) of one scene -> one assessment a plan, or what went wrong."""


class InProcess:
    """Assesses plans when they are submitted, by a function."""

    def __init__(self, assess: Assess):
        self._assess = assess

    def submit(self, scene: Scene, poses: np.ndarray) -> Future[Sequence[Assessment]]:
        future = Future()
        try:
            future.set_result(self._assess(scene, poses))
        except Exception as error:
            future.set_exception(error)
        return future


class InWorkers:
    """Hands plans to worker processes."""

    def __init__(self, pool: Pool):
        self._pool = pool

    def submit(self, scene: Scene, poses: np.ndarray) -> Future[Sequence[Assessment]]:
        """Raises, now or in the future's place, MTDriveError if a worker was killed."""
        future = Future()

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
    """An assessor on `workers` processes, which end with the block; 0 is this process.

    assess: picklable. store: holds the scenes whose plans will be submitted.

    Raises:
        MTDriveError: workers is no number from 0 on.
    """
    check_workers(workers, least=0, key="scoring_workers")
    if workers == 0:
        yield InProcess(assess)
        return
    stored = _Stored(assess, store)
    with Pool(stored, workers, stored.warm_up) as pool:
        yield InWorkers(pool)


@dataclass(frozen=True)
class _Stored:
    """In a worker: assesses plans of stored scenes."""

    assess: Assess
    store: SceneStore

    def __call__(self, item: tuple[str, np.ndarray]) -> Sequence[Assessment]:
        token, poses = item
        return self.assess(_load(self.store, token), poses)

    def warm_up(self) -> None:
        """Load the compiled kernels, by assessing a plan."""
        with suppress(Exception):  # a scene that cannot be assessed will say so when it is driven
            self((self.store.tokens[0], np.zeros((1, 8, 3))))


@lru_cache(maxsize=KEPT_SCENES)
def _load(store: SceneStore, token: str) -> Scene:
    return store.load(token)


def _killed() -> MTDriveError:
    return MTDriveError(f"{KILLED}; run again with scoring_workers=0, or with fewer.")
