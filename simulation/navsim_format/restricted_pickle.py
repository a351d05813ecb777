"""Reading NAVSIM log pickles without letting them run code.

A pickle may name any importable callable. Logs hold Python containers, numbers, strings and numpy arrays,
so only what rebuilds those is allowed, under the names of numpy 1 (`numpy.core`) and numpy 2 (`numpy._core`).
"""

from __future__ import annotations

import builtins
import codecs
import collections
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np
from numpy._core import multiarray, numeric

from mtdrive.simulation.errors import MTDriveError

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): codecs.encode,
    **{("builtins", name): getattr(builtins, name) for name in ("set", "frozenset", "complex", "bytearray")},
    **{
        (f"numpy.{core}.{module.__name__.rpartition('.')[2]}", name): getattr(module, name)
        for core in ("core", "_core")
        for module, name in ((multiarray, "_reconstruct"), (multiarray, "scalar"), (numeric, "_frombuffer"))
    },
}


class _ForeignClass(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], classes: Mapping[tuple[str, str], type]) -> None:
        super().__init__(file)
        self._allowed = {**_ALLOWED, **classes}

    def find_class(self, module: str, name: str) -> object:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise _ForeignClass(f"{module}.{name}") from None


def load_pickle(
    path: Path, *, kind: str = "NAVSIM log", classes: Mapping[tuple[str, str], type] = MappingProxyType({})
) -> object:
    """The object in a pickle file.

    Args:
        kind: what the file should be, for messages.
        classes: further classes that it may hold, each with what stands in for it, by (module, name).

    Raises:
        MTDriveError: the file is missing, is no complete pickle, or names a class that such a file does not hold.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file, classes).load()
    except FileNotFoundError as error:
        raise MTDriveError(f"There is no file {path}; check openscene_data_root and split.") from error
    except _ForeignClass as error:
        raise MTDriveError(
            f"{path} holds {error}, which is no part of a {kind}; it was not loaded, since a pickle can run code."
        ) from None
    except OSError as error:
        raise MTDriveError(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise MTDriveError(f"{path} is truncated or damaged ({type(error).__name__}); fetch it again.") from error
