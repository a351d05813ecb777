"""Spreading work over processes of this machine, or over the machines of a Ray cluster.

A pool is made of pipes alone. The standard library's pools keep named semaphores in shared memory, which outlive a run
that is killed, and go on with what is queued when they are interrupted.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from mtdrive.simulation.errors import MTDriveError

Item = TypeVar("Item")
Result = TypeVar("Result")
RAY = "ray"
KILLED = "A worker process was killed (out of memory?)"
MOST_WORKERS = 1024
PATIENCE = 0.5  # [s] for workers to remove what they have half written


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | str, most: int | None = None
) -> Iterator[Result]:
    """Results of a picklable function as they come.

    Args:
        workers: processes; 1 is this one. RAY spreads the items over the cluster that the environment variable
            RAY_ADDRESS names, or else over this machine; its nodes must see the same files.
        most: processes that are worth starting.

    Raises:
        MTDriveError: a worker was killed, Ray is not installed, or workers is neither a number from 1 on nor RAY.
    """
    if workers == RAY:
        return _map_over_ray(function, items)
    check_workers(workers, f", or {RAY}")
    workers = min(workers, len(items), len(items) if most is None else most)
    return _map_here(function, items) if workers <= 1 else _map_over_pool(function, items, workers)


def check_workers(workers: object, otherwise: str = "", least: int = 1, key: str = "workers") -> None:
    """Refuse what is no number of processes.

    Raises:
        MTDriveError: it is none; the sentence names the key and what else it may be.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not least <= workers <= MOST_WORKERS:
        raise MTDriveError(
            f"{key}={workers} must be a number of processes{otherwise}; the number from {least} to {MOST_WORKERS}."
        )


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
    """A process of a pool ended before its work did; the pool takes no more."""


class Pool:
    """Processes of this machine that apply one function to items, each to one at a time.

    A context manager: the processes end with its block, with this process, and at once where the block raises.

    Args:
        function: picklable; each process gets it once.
        warm_up: called in every process before its first item.
    """

    def __init__(
        self, function: Callable[[Item], Result], workers: int, warm_up: Callable[[], None] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._bell, self._ring = context.Pipe(duplex=False)  # wakes the thread that hands out items
        self._waiting: deque[tuple[Future, Any]] = deque()
        self._busy: dict[Connection, Future] = {}
        self._broken = False
        self._lock = threading.Lock()  # of the two above and of the bell
        self._processes, self._idle = [], []
        resource_tracker.ensure_running()  # which would let through again what is held back here
        held_back = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, function, warm_up), daemon=True)
                process.start()  # and inherits that Ctrl-C is not for it
                theirs.close()
                self._processes.append(process)
                self._idle.append(ours)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
        self._pipes = list(self._idle)
        threading.Thread(target=self._hand_out, daemon=True).start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if kind is None:
            for pipe in self._pipes:
                pipe.close()  # a process that waits for its next item ends by that
        else:
            for process in self._processes:
                process.terminate()
        for process in self._processes:
            process.join(PATIENCE)
            process.kill()
        with self._lock:
            self._ring.close()

    def submit(self, item: Item) -> Future:
        """The function's result in the future, or what it raised there.

        Raises, now or in the future's place:
            WorkerKilled
        """
        future: Future = Future()
        with self._lock:
            if self._broken:
                raise WorkerKilled
            self._waiting.append((future, item))
        with suppress(OSError):  # a process has just ended, and the future says so
            self._ring.send_bytes(b".")
        return future

    def _hand_out(self) -> None:
        """In a thread: items to idle processes, results to their futures, until the pool's block or a process ends."""
        try:
            while True:
                for pipe in wait([self._bell, *self._busy]):
                    if pipe is self._bell:
                        self._bell.recv_bytes()
                    else:
                        self._take(pipe)
                while self._idle and self._waiting:
                    self._give(self._idle.pop())
        except (EOFError, OSError):
            with self._lock:
                self._broken = True
                self._bell.close()
                left = [*self._busy.values(), *(future for future, _ in self._waiting)]
            for future in left:
                if not future.done():
                    future.set_exception(WorkerKilled())

    def _give(self, pipe: Connection) -> None:
        future, item = self._waiting.popleft()
        self._busy[pipe] = future
        try:
            pipe.send(item)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self._idle.append(pipe)
            self._busy.pop(pipe).set_exception(error)

    def _take(self, pipe: Connection) -> None:
        worked, answer = pipe.recv()
        self._idle.append(pipe)
        future = self._busy.pop(pipe)
        if worked:
            future.set_result(answer)
        else:
            future.set_exception(answer)


def _serve(pipe: Connection, function: Callable[[Item], Result], warm_up: Callable[[], None] | None) -> None:
    """In a process of a pool: answers items until there are no more."""

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()  # a killed parent would leave its workers at work
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # removes what is half written
    if warm_up is not None:
        warm_up()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(item)
        except Exception as error:
            answer = False, _portable(error)
        try:
            pipe.send(answer)
        except BrokenPipeError:  # nobody waits for it any more
            return


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
    waiting = []
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
