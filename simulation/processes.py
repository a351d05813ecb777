"""Spreading work over processes."""

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


def map_unordered(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Results of a picklable function as they come; in this process if one worker is enough.

    Raises:
        MTDriveError: a worker was killed.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(function,)) as pool:
        try:
            for future in as_completed([pool.submit(_work, item) for item in items]):
                yield future.result()
        except BrokenProcessPool:
            raise MTDriveError("A worker process was killed (out of memory?); run again with workers=1.") from None


def _start(function: Callable) -> None:
    global _function
    _function = function

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()  # a killed parent would leave its workers waiting


def _work(item: Item) -> Result:
    return _function(item)
