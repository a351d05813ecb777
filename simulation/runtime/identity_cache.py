"""Cache what was derived from an object, for as long as the object lives.

functools needs hashable arguments; cachetools with `key=id` serves the result of a dead object to one at its address.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def cache_by_identity(function: Callable[..., Result]) -> Callable[..., Result]:
    """Cache a function by the identity of its first argument and the values of the others.

    For frozen objects that hold arrays and so cannot be hashed. The result must not refer to the first argument.
    """
    known: dict[int, dict[tuple[Any, ...], Result]] = {}

    @functools.wraps(function)
    def wrapper(subject: Any, *arguments: Any) -> Result:
        if id(subject) not in known:
            known[id(subject)] = {}
            weakref.finalize(subject, known.pop, id(subject), None)
        results = known[id(subject)]
        if arguments not in results:
            results[arguments] = function(subject, *arguments)
        return results[arguments]

    return wrapper
