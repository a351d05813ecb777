"""Read untrusted pickles of plain data, such as NAVSIM logs: what they would do is checked before it is done.

A pickle is a program: it can call any importable name, change objects that it gets hold of, and claim sizes that it
does not have. Logs hold Python containers, numbers, strings and numpy arrays, so only opcodes that make those are
allowed (`pickle_check`), and names stand for functions of ours (`pickle_names`).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.pickle_check import MAX_DEPTH, Verdict, check_pickle
from mtdrive.simulation.navsim_format.pickle_names import name_table

LARGEST_FILE = 1 << 28  # bytes; NAVSIM's logs take some 10 MB
MEMORY = 1 << 26, 48  # bytes that the objects in a file may take: so many, and so many for each byte of the file

LONGEST_NAME = 200  # characters of a foreign name that a message shows

_REASONS = {
    Verdict.FORBIDDEN: "does what only a forged one does",
    Verdict.DEEP: f"nests objects more than {MAX_DEPTH} deep",
    Verdict.LARGE: "holds more than a file of its size may hold",
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, stand_ins: Mapping[tuple[str, str], object]) -> None:
        super().__init__(io.BufferedReader(io.BytesIO(data)), fix_imports=False)
        self._stand_ins = stand_ins

    def find_class(self, module: str, name: str) -> object:
        return self._stand_ins[module, name]


def load_pickle(
    path: Path, *, kind: str = "NAVSIM log", classes: Mapping[tuple[str, str], type] = MappingProxyType({})
) -> Any:
    """The object in a pickle file.

    Args:
        kind: what the file should be, for messages.
        classes: further classes that it may hold, each with its stand-in, as in `name_table`.

    Raises:
        MTDriveError: the file is missing or too large, is no complete pickle, names a class that such a file does not
            hold, or does anything else that no pickle of plain data does.
    """
    stand_ins, names = name_table(classes)
    data = _content(path)
    found = check_pickle(data, names, MEMORY[0] + MEMORY[1] * len(data))
    if found.verdict == Verdict.FOREIGN:
        name = ascii(b".".join((data[found.module], data[found.name])).decode(errors="replace"))[1:-1]
        raise MTDriveError(
            f"{path} holds {name[:LONGEST_NAME]}, which is no part of a {kind}; it was not loaded, since a pickle can "
            "run code."
        )
    if found.verdict in _REASONS:
        raise MTDriveError(
            f"{path} is no {kind} that can be trusted: at byte {found.position} it {_REASONS[found.verdict]}; it was "
            "not loaded, since a pickle can run code."
        )
    try:
        if found.verdict == Verdict.FINE:
            return _Unpickler(data, stand_ins).load()
        reason = "it ends too early" if found.verdict == Verdict.TRUNCATED else f"at byte {found.position}"
    except Exception as error:  # a damaged pickle can raise almost any exception
        reason = type(error).__name__
    raise MTDriveError(f"{path} is truncated or damaged ({reason}); fetch it again.")


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise MTDriveError(f"{path} has {size:,} bytes; such a file holds {LARGEST_FILE:,} at most.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MTDriveError(f"There is no file {path}; check openscene_data_root and split.") from error
    except OSError as error:
        raise MTDriveError(f"Cannot read {path}: {error.strerror}.") from error
