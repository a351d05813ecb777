"""The names that a pickle of plain data may hold, each with its stand-in: a function that checks its arguments.

numpy's names are listed as numpy 1 (`numpy.core`) and numpy 2 (`numpy._core`) write them. `ndarray` and `_reconstruct`
are numpy's own: `pickle_check` allows only the one call to them that numpy itself writes.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy._core import multiarray

from mtdrive.simulation.navsim_format import pickle_values
from mtdrive.simulation.navsim_format.pickle_check import Names
from mtdrive.simulation.navsim_format.pickle_kinds import Role
from mtdrive.simulation.navsim_format.pickle_values import exactly

_PLAIN = re.compile(r"b1|[iu][1248]|f2|f4|f8|f16|c8|c16|c32|[SU][0-9]+")


class Record:
    """Stands in for a class whose objects hold fields, read as attributes."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A field."""

    def __setstate__(self, state: object) -> None:
        for fields in state if isinstance(state, tuple) else (state,):  # (fields, slots) of a class with slots
            if not isinstance(fields, dict | None) or not all(isinstance(name, str) for name in fields or ()):
                raise TypeError("fields of an object")
            vars(self).update(fields or {})


class Quaternion(Record):
    """Stands in for pyquaternion's class; numpy reads it as its four numbers w, x, y, z."""

    q: np.ndarray = np.empty(0)
    """(4,) float64, once the state is set."""

    def __setstate__(self, state: object) -> None:
        super().__setstate__(state)
        if list(vars(self)) != ["q"] or exactly(np.ndarray, self.q).shape != (4,) or self.q.dtype != np.float64:
            raise TypeError("no quaternion")

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.q, dtype=dtype, copy=copy)


def _dtype(code: object, align: object, copy: object) -> np.dtype:
    if not isinstance(code, str) or not _PLAIN.fullmatch(code):
        raise TypeError("a dtype that is not plain")
    return np.dtype(code, align=False, copy=True)


def _filled(dtype: object, content: object) -> np.ndarray:
    """Items of a plain dtype in these bytes, (N,)."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(content, bytes | bytearray):
        raise TypeError("no bytes of a plain dtype")
    items = np.frombuffer(content, dtype) if dtype.itemsize else np.empty(0, dtype)
    if dtype.kind == "b" and items.view(np.uint8).max(initial=0) > 1:
        raise ValueError("a bool that is neither 0 nor 1")
    return items


def _scalar(dtype: object, content: object) -> np.generic:
    (item,) = _filled(dtype, content)
    return item


def _from_buffer(content: object, dtype: object, shape: Any, order: Any) -> np.ndarray:
    items = _filled(dtype, content)
    if math.prod(max(length, 1) for length in shape) > max(len(items), 64) or order not in ("C", "F"):
        raise ValueError("a shape that does not fit")
    return items.reshape(shape, order=order)


def _encode(text: object, codec: object) -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise TypeError("a codec other than latin1")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


def _bytearray(content: object = b"", codec: object = None) -> bytearray:
    return bytearray(_encode(content, codec) if codec is not None else exactly(bytes, content))


def _complex(real: object, imaginary: object) -> complex:
    return complex(exactly(float, real), exactly(float, imaginary))


def _of_keys(kind: type) -> Callable:
    def make(items: Iterable[object] = ()) -> object:
        for item in items:
            if type(item) not in (str, bytes, int, float, bool, type(None)):
                raise TypeError("a set of what is no number or string")
        return kind(items)

    return make


def _value(stand_in: Callable) -> Callable:
    def make(*arguments: object) -> object:
        for argument in arguments:
            if type(argument) not in (str, int):
                raise TypeError("arguments that are no number or string")
        return stand_in(*arguments)

    return make


_TABLE: dict[tuple[str, str], tuple[Role, object]] = {
    ("numpy", "ndarray"): (Role.NDARRAY, np.ndarray),
    ("numpy", "dtype"): (Role.DTYPE, _dtype),
    ("collections", "OrderedDict"): (Role.ORDERED_DICT, collections.OrderedDict),
    ("collections", "defaultdict"): (Role.DEFAULT_DICT, pickle_values.default_dict),
    ("collections", "deque"): (Role.DEQUE, pickle_values.deque),
    ("pyquaternion.quaternion", "Quaternion"): (Role.RECORD, Quaternion),
    ("_codecs", "encode"): (Role.ENCODE, _encode),
    **{
        ("datetime", name): (Role.VALUE, make)
        for name, make in {
            "date": pickle_values.date,
            "time": pickle_values.time,
            "datetime": pickle_values.date_time,
            "timedelta": pickle_values.time_delta,
            "timezone": pickle_values.time_zone,
        }.items()
    },
    **{
        (module, name): (Role.VALUE, make)
        for module in ("pathlib", "pathlib._local")  # as Python 3.13 calls it
        for name, make in {
            "PosixPath": pickle_values.posix_path,
            "PurePosixPath": pickle_values.posix_path,
            "WindowsPath": pickle_values.windows_path,
            "PureWindowsPath": pickle_values.windows_path,
        }.items()
    },
    **{
        (module, name): made
        for module in ("builtins", "__builtin__")
        for name, made in {
            "set": (Role.SET, _of_keys(set)),
            "frozenset": (Role.SET, _of_keys(frozenset)),
            "complex": (Role.FACTORY, _complex),
            "bytearray": (Role.FACTORY, _bytearray),
            "bytes": (Role.BYTES, _bytes),
            **dict.fromkeys(("bool", "dict", "float", "int", "list", "str", "tuple"), (Role.TYPE, None)),
        }.items()
    },
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", (Role.RECONSTRUCT, multiarray._reconstruct)),
            ("multiarray", "scalar", (Role.FACTORY, _scalar)),
            ("numeric", "_frombuffer", (Role.FACTORY, _from_buffer)),
        )
    },
}


def name_table(classes: Mapping[tuple[str, str], type]) -> tuple[dict[tuple[str, str], object], Names]:
    """The stand-in of each name, and the same names for `check_pickle`.

    Args:
        classes: further names. A class whose objects hold fields gets a subclass of Record; a class of immutable
            objects gets a function that makes one from numbers and strings.
    """
    table = dict(_TABLE)
    for name, stand_in in classes.items():
        is_record = isinstance(stand_in, type) and issubclass(stand_in, Record)
        table[name] = (Role.RECORD, stand_in) if is_record else (Role.VALUE, _value(stand_in))
    texts = [f"{module}\n{name}".encode() for module, name in table]
    names = Names(
        text=np.frombuffer(b"".join(texts), dtype=np.uint8),
        start=np.cumsum([0, *map(len, texts)]),
        role=np.array([role for role, _ in table.values()]),
    )
    return {name: stand_in for name, (_, stand_in) in table.items()}, names
