"""The file of one compiled scene: a JSON header and the arrays, aligned, as they lie in memory.

    magic (8) | header length, CRC-32 of header, CRC-32 of body, 0 (4 x uint32) | header (JSON) | body

The header holds the scalars of the scene, where each array lies (dtype, shape, offset), the versions, and
the fingerprints of the log and the map that it was compiled from. The layout can be mapped, but it is read
in one go: the checksum touches every byte anyway, and a Python mmap keeps a file descriptor per scene, of
which a training run would need more than a process has.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import typing
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.registry import VERSIONS, revisions
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.layout import ALIGNMENT, first_misfit, is_consistent

SUFFIX = ".scene"
FORMAT_VERSION = 3
_MAGIC = b"MTDSCENE"
_PREFIX = struct.Struct("<8sIIII")
_MOST_BYTES = 2**28  # of a file; a scene has less than a hundredth of it


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The files that a scene was compiled from."""

    log: str
    """BLAKE2b digest of the log file."""

    map: str
    """BLAKE2b digest of the map file."""


def save_scene(path: Path, scene: Scene, fingerprint: Fingerprint) -> None:
    """Write a scene cache, atomically."""
    arrays: dict[str, np.ndarray] = {}
    values: dict[str, Any] = {}
    _flatten(scene, "", arrays, values)
    table, size = {}, 0
    for name, array in arrays.items():
        table[name] = (array.dtype.str, array.shape, size)
        size += _aligned(array.nbytes)
    body = b"".join(array.tobytes().ljust(_aligned(array.nbytes), b"\0") for array in arrays.values())
    stamp = _versions() | {"fingerprint": dataclasses.asdict(fingerprint)}
    header = json.dumps(stamp | {"values": values, "arrays": table}).encode()
    header = header.ljust(_aligned(_PREFIX.size + len(header)) - _PREFIX.size)
    prefix = _PREFIX.pack(_MAGIC, len(header), zlib.crc32(header), zlib.crc32(body), 0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(prefix + header + body)


def load_scene(path: Path) -> Scene:
    """Read a scene cache; its arrays are read-only.

    Raises:
        MTDriveError: the file is missing or damaged, was compiled for other versions than this code scores, or holds
            values that no scene can have.
    """
    return _load(path)[0]


def load_fingerprint(path: Path) -> Fingerprint:
    """The files that a scene cache was compiled from; reads only its header. Raises as `load_scene`."""
    with _open(path) as file:
        return _read_header(file, path)[1]


def is_current(path: Path, fingerprint: Fingerprint) -> bool:
    """Whether path holds an undamaged scene cache of these sources and of this code's versions."""
    try:
        return _load(path)[1] == fingerprint
    except MTDriveError:
        return False


def _load(path: Path) -> tuple[Scene, Fingerprint]:
    with _open(path) as file:
        header, fingerprint, checksum = _read_header(file, path)
        body = file.read()
    if zlib.crc32(body) != checksum:
        raise _damaged(path)
    try:
        return _to_scene(header["arrays"], header["values"], body), fingerprint
    except (_NoScene, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise MTDriveError(
            f"The scene cache {path} holds what no scene can have ({error}); delete it and run mtdrive cache."
        ) from None


class _NoScene(Exception):
    pass


def _to_scene(table: dict[str, list], values: dict[str, Any], body: bytes) -> Scene:
    metrics = tuple(values["observations"])
    if list(metrics) != values["references"] or not VERSIONS.keys() >= set(metrics):
        raise _NoScene("observations")
    if (misfit := first_misfit(table, body, metrics)) is not None:
        raise _NoScene(misfit)
    arrays = (np.ndarray(shape, dtype, body, offset) for dtype, shape, offset in table.values())
    scene = _unflatten(Scene, "", arrays, values)
    if not is_consistent(scene):
        raise _NoScene("counts and times that contradict each other")
    return scene


def _open(path: Path) -> typing.BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise MTDriveError(f"There is no scene cache {path}; run mtdrive cache.") from None
    except OSError as error:
        raise MTDriveError(f"Cannot read the scene cache {path}: {error.strerror}.") from None


def _read_header(file: typing.BinaryIO, path: Path) -> tuple[dict, Fingerprint, int]:
    """Header, what the scene was compiled from, and checksum of the body, to which the file is wound."""
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size or not prefix.startswith(_MAGIC):
        raise MTDriveError(f"{path} is no scene cache; delete it and run mtdrive cache.")
    _, length, checksum, body_checksum, _ = _PREFIX.unpack(prefix)
    if not length <= os.fstat(file.fileno()).st_size <= _MOST_BYTES:
        raise _damaged(path)
    header = file.read(length)
    if zlib.crc32(header) != checksum:
        raise _damaged(path)
    try:
        fields = json.loads(header)
        found, fingerprint = {key: fields[key] for key in _versions()}, Fingerprint(**fields["fingerprint"])
    except (KeyError, RecursionError, TypeError, ValueError):
        raise _damaged(path) from None
    for key, value in _versions().items():
        if found[key] != value:
            raise MTDriveError(
                f"The scene cache {path} has {key} {found[key]} where this code needs {value}; run mtdrive cache."
            )
    return fields, fingerprint, body_checksum


def _damaged(path: Path) -> MTDriveError:
    return MTDriveError(f"The scene cache {path} is truncated or damaged; run mtdrive cache to build it again.")


def _versions() -> dict[str, object]:
    return {"format_version": FORMAT_VERSION, "metric_versions": revisions(), "generator": "mtdrive"}


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _flatten(node: Any, prefix: str, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
    """Collect the leaves of nested dataclasses and dicts of them under dotted names."""
    for field in dataclasses.fields(node):
        name, value = prefix + field.name, getattr(node, field.name)
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(value, dict):
            values[name] = list(value)
            for key, child in value.items():
                _flatten(child, f"{name}.{key}.", arrays, values)
        elif dataclasses.is_dataclass(value):
            _flatten(value, f"{name}.", arrays, values)
        else:
            values[name] = value


def _unflatten(cls: type, prefix: str, arrays: Iterator[np.ndarray], values: dict[str, Any]) -> Any:
    """The object of nested dataclasses that `_flatten` took apart; arrays: in that order."""
    fields: dict[str, Any] = {}
    for field, kind, origin in _kinds(cls):
        if kind is np.ndarray:
            fields[field] = next(arrays)
            continue
        name = prefix + field
        if origin is dict:
            child = typing.get_args(kind)[1]
            fields[field] = {key: _unflatten(child, f"{name}.{key}.", arrays, values) for key in values[name]}
        elif dataclasses.is_dataclass(kind):
            fields[field] = _unflatten(kind, f"{name}.", arrays, values)
        else:
            value = values[name]
            if not ({*map(type, value)} <= {str} if origin is tuple else type(value) in kind.__mro__):
                raise _NoScene(name)
            fields[field] = (origin or kind)(value)
    return cls(**fields)


@lru_cache
def _kinds(cls: type) -> list[tuple[str, type, type | None]]:
    """Fields with their types and what these are generic of."""
    return [(name, kind, typing.get_origin(kind)) for name, kind in typing.get_type_hints(cls).items()]
