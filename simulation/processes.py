"""Spreading work over processes of this machine, or over the machines of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from mtdrive.simulation.errors import MTDriveError

Item = TypeVar("Item")
Result = TypeVar("Result")
RAY = "ray"
KILLED = "A worker process was killed (out of memory?)"


def map_unordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | str, most: int | None = None
) -> Iterator[Result]:
    """Results of a picklable function as they come.

    Args:
        workers: processes; 1 is this one. RAY spreads the items over the cluster that the environment variable
            RAY_ADDRESS names, or else over this machine; its nodes must see the same files.
        most: processes that are worth starting.

    Raises:
        MTDriveError: a worker was killed, Ray is not installed, or workers is neither a number nor RAY.
    """
    if workers == RAY:
        yield from _map_over_ray(function, items)
        return
    if not isinstance(workers, int):
        raise MTDriveError(f"workers={workers} must be a number of processes, or {RAY}.")
    workers = min(workers, len(items), len(items) if most is None else most)
    if workers <= 1:
        for item in items:  # not map, which an exception StopIteration of the function would end
            yield function(item)
        return
    with process_pool(function, workers) as pool:
        try:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
        except BrokenProcessPool:
            raise MTDriveError(f"{KILLED}; run again with workers=1.") from None


def process_pool(
    function: Callable[[Item], Result], workers: int, warm_up: Callable[[], None] | None = None
) -> ProcessPoolExecutor:
    """Processes of this machine for `pool.submit(work, item)`; each gets the function once and ends with its parent.

    warm_up: called in every process before its first item.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(function, warm_up))


def work(item: Item) -> Result:
    """In a process of a pool: the pool's function of an item."""
    return _function(item)


def _start(function: Callable, warm_up: Callable[[], None] | None) -> None:
    global _function
    _function = function

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()  # a killed parent would leave its workers waiting
    if warm_up is not None:
        warm_up()


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
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise MTDriveError(f"Ray lost a task ({type(error).__name__}; out of memory?); see the logs of Ray.") from error


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)
