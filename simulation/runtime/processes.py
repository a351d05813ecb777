"""Spread work over processes of this machine, or over the machines of a Ray cluster.

Joblib, loky and concurrent.futures.ProcessPoolExecutor leave named semaphores in /dev/shm where a run is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import LifoQueue
from typing import Generic, Self, TypeVar

from mtdrive.simulation.errors import MTDriveError

Item = TypeVar("Item")
Result = TypeVar("Result")
RAY = "ray"
KILLED = "A worker process was killed (out of memory?)"
MOST_WORKERS = 1024
PATIENCE = 0.5  # [s] for workers to remove files that they have half written


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | str, most: int | None = None
) -> Iterator[Result]:
    """Results of a picklable function as they come.

    Args:
        workers: processes; 1 is this one. RAY spreads the items over the cluster that the environment variable
            RAY_ADDRESS names, or else over this machine; its nodes must see the same files.
        most: no more processes than these are worth starting.

    Raises:
        MTDriveError: a worker was killed, Ray is not installed, or workers is neither a number from 1 on nor RAY.
    """
    if workers == RAY:
        return _map_over_ray(function, items)
    processes = min(check_workers(workers, f", or {RAY}"), len(items), len(items) if most is None else most)
    return _map_here(function, items) if processes <= 1 else _map_over_pool(function, items, processes)


def check_workers(workers: object, otherwise: str = "", least: int = 1, key: str = "workers") -> int:
    """The number of processes, if it is one.

    Raises:
        MTDriveError: it is none; the sentence names the key and what else it may be.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not least <= workers <= MOST_WORKERS:
        raise MTDriveError(
            f"{key}={workers} must be a number of processes{otherwise}; the number from {least} to {MOST_WORKERS}."
        )
    return workers


def _map_here(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    for item in items:
        yield function(item)


def _map_over_pool(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    with Pool(function, workers) as pool:
        try:
            for future in as_completed([pool.submit(item) for item in items]):
                yield future.result()
        except WorkerKilled:
            raise MTDriveError(f"{KILLED}; run again with workers=1.") from None


class WorkerKilled(Exception):
    """A process of a pool ended before its work did; nothing else that the pool was given is worked on."""


class Pool(Generic[Item, Result]):
    """Processes of this machine that apply one function to items, each to one at a time.

    A context manager: the processes end with its block, or with this process.

    Args:
        function: picklable; each process gets it once.
        warm_up: called in every process before its first item.
    """

    def __init__(
        self, function: Callable[[Item], Result], workers: int, warm_up: Callable[[], None] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._threads = ThreadPoolExecutor(workers)  # as many as processes: each waits for the answer of one
        self._processes: list[BaseProcess] = []
        self._idle: LifoQueue[Connection] = LifoQueue()
        self._broken = False  # a process has ended, or the block has
        resource_tracker.ensure_running()  # which would let through again what is held back here
        held_back = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, function, warm_up), daemon=True)
                process.start()  # and inherits that Ctrl-C is not for it
                theirs.close()
                self._processes.append(process)
                self._idle.put(ours)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held_back)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._broken = True
        self._threads.shutdown(wait=False)
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(PATIENCE)
            process.kill()

    def submit(self, item: Item) -> Future[Result]:
        """The function's result in the future, or what it raised there.

        Raises, now or in the future's place:
            WorkerKilled
        """
        if self._broken:
            raise WorkerKilled
        return self._threads.submit(self._ask, item)

    def _ask(self, item: Item) -> Result:
        """In a thread: the answer of an idle process."""
        if self._broken:
            raise WorkerKilled
        pipe = self._idle.get()
        try:
            pipe.send(item)
            worked, answer = pipe.recv()
        except (EOFError, OSError):
            self._broken = True
            raise WorkerKilled from None
        finally:
            self._idle.put(pipe)
        if not worked:
            raise answer
        return answer


def _serve(pipe: Connection, function: Callable[[Item], Result], warm_up: Callable[[], None] | None) -> None:
    """In a process of a pool: answers items until there are no more."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()  # or a killed parent leaves it at work
    signal.signal(signal.SIGTERM, _leave)
    if warm_up is not None:
        warm_up()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        answer: tuple[bool, object]
        try:
            answer = True, function(item)
        except Exception as error:
            answer = False, _portable(error)
        try:
            pipe.send(answer)
        except BrokenPipeError:  # nobody waits for it any more
            return


def _leave(number: int, _frame: object) -> None:
    """Exit, and remove what is half written on the way out."""
    sys.unraisablehook = lambda _: None  # which would print that a finaliser was interrupted
    sys.exit(128 + number)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or its text where it cannot be sent to another process."""
    error.add_note(f"In a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def _map_over_ray(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    try:
        import ray
    except ImportError:
        raise MTDriveError(f"workers={RAY} needs Ray, which is not installed: pip install 'mtdrive[ray]'.") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    task, shared = ray.remote(_call), ray.put(function)
    in_flight = 2 * int(ray.cluster_resources()["CPU"])  # more would only fill the memory of the cluster
    waiting: list[ray.ObjectRef] = []
    try:
        for item in items:
            if len(waiting) >= in_flight:
                (done,), waiting = ray.wait(waiting)
                yield ray.get(done)
            waiting.append(task.remote(shared, item))
        while waiting:
            (done,), waiting = ray.wait(waiting)
            yield ray.get(done)
    except KeyboardInterrupt:
        ray.shutdown()
        raise
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise MTDriveError(f"Ray lost a task ({type(error).__name__}; out of memory?); see the logs of Ray.") from error


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)
