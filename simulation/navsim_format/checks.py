"""Check values from a file before they are used as numbers: of the right shape, finite, and physically possible.

A bad value would otherwise go unnoticed: nothing ever collides with a vehicle at NaN.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.kernels import kernel

LATEST = 2**52  # [us] about the year 2112; still exact as a float


def numbers(value: object, name: str, shape: tuple[int | None, ...], most: float) -> np.ndarray:
    """A value from a file as float64 within bounds; arguments and errors as in `plain` and `bounded`."""
    return bounded(plain(value, name, shape), name, most)


def plain(value: object, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A value from a file as float64.

    Args:
        name: what the value is, for messages.
        shape: required shape; None in front stands for any length.

    Raises:
        MTDriveError: it is not an array of plain numbers, or has another shape.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":
        raise MTDriveError(f"{name} must be plain numbers.")
    if array.shape != (shape if shape[0] is not None else (*array.shape[:1], *shape[1:])):
        wanted = ", ".join("N" if length is None else str(length) for length in shape)
        raise MTDriveError(f"{name} must be shaped ({wanted}), not {array.shape}.")
    return array.astype(np.float64, copy=False)


def bounded(values: np.ndarray, name: str, most: float) -> np.ndarray:
    """The values, unchanged.

    Raises:
        MTDriveError: one is NaN, or its magnitude exceeds `most`.
    """
    flat = values.ravel()
    beyond = _first_beyond(flat, most)
    if beyond >= 0:
        raise MTDriveError(f"{name} holds {flat[beyond]:g}; it must be finite and at most {most:g}.")
    return values


@kernel
def _first_beyond(values, most):
    """Index of the first of values (n,) that is NaN or whose magnitude exceeds `most`; -1 if there is none."""
    for index in range(len(values)):
        if not abs(values[index]) <= most:
            return index
    return -1


def is_time(value: object) -> bool:
    """Whether a value from a file is a time in whole microseconds."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(0 <= value <= LATEST)
