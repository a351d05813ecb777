"""What datetime, pathlib and collections put into pickles, made anew from arguments that are checked.

Their own classes would not do: `datetime` takes a pickled state as it is, even the 99th of a month, `Path` reaches the
disk, and `defaultdict` keeps a function that it calls.
"""

from __future__ import annotations

import collections
import datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import TypeVar

Plain = TypeVar("Plain")


def exactly(kind: type[Plain], value: object) -> Plain:
    """The value, if that is its type and no subclass of it.

    Raises:
        TypeError: it is not.
    """
    if type(value) is not kind:
        raise TypeError(f"no {kind.__name__}")
    return value


def date(state: object) -> datetime.date:
    """Of a state of 4 bytes: year (2), month, day. Raises TypeError or ValueError, as all here."""
    high, low, month, day = exactly(bytes, state)
    return datetime.date(256 * high + low, month, day)


def time(state: object, zone: object = None) -> datetime.time:
    """Of a state of 6 bytes: hour, with the fold in the highest bit, minute, second, microsecond (3)."""
    hour, minute, second, *parts = exactly(bytes, state)
    return datetime.time(hour & 127, minute, second, _microsecond(parts), _zone(zone), fold=hour >> 7)


def date_time(state: object, zone: object = None) -> datetime.datetime:
    """Of a state of 10 bytes: as `date`, with the fold in the highest bit of the month, then as `time`."""
    high, low, month, day, hour, minute, second, *parts = exactly(bytes, state)
    whole = (256 * high + low, month & 127, day, hour, minute, second, _microsecond(parts))
    return datetime.datetime(*whole, tzinfo=_zone(zone), fold=month >> 7)


def time_delta(days: object, seconds: object, microseconds: object) -> datetime.timedelta:
    """Of three whole numbers."""
    return datetime.timedelta(exactly(int, days), exactly(int, seconds), exactly(int, microseconds))


def time_zone(offset: object, *name: object) -> datetime.timezone:
    """Of an offset, and a name where it has one."""
    return datetime.timezone(exactly(datetime.timedelta, offset), *(exactly(str, text) for text in name))


def posix_path(*parts: object) -> PurePosixPath:
    """Of its parts; it cannot reach the disk."""
    return PurePosixPath(*(exactly(str, part) for part in parts))


def windows_path(*parts: object) -> PureWindowsPath:
    """Of its parts; it cannot reach the disk."""
    return PureWindowsPath(*(exactly(str, part) for part in parts))


def default_dict(_factory: object = None) -> dict:
    """An empty dict: what it would make of a missing key is no data."""
    return {}


def deque(items: object = (), most: object = None) -> collections.deque:
    """An empty deque of at most that many items; the items follow in the pickle."""
    if exactly(tuple, items):
        raise TypeError("a deque that is not new")
    return collections.deque(maxlen=None if most is None else exactly(int, most))


def _microsecond(parts: list[int]) -> int:
    high, middle, low = parts
    return (256 * high + middle) * 256 + low


def _zone(zone: object) -> datetime.timezone | None:
    return None if zone is None else exactly(datetime.timezone, zone)
