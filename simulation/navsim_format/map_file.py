"""A road map kept in a file that processes map into memory, so that many workers hold one copy of its geometries.

    magic (8) | header length, CRC-32 of header, CRC-32 of body, 0 (4 x uint32) | header (JSON) | body

The body holds well-known binary of the geometries, each once, and a JSON record of each lane and roadblock, which
refers to geometries by number. What a scene needs of them is made anew.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import shapely

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.road_map import Area, Geometries, Lane, Roadblock, RoadMap
from mtdrive.simulation.runtime.files import CannotWrite, atomic_path
from mtdrive.simulation.runtime.locks import locked

FORMAT_VERSION = 1
_MAGIC = b"MTDRVMAP"
_PREFIX = struct.Struct("<8sIIII")
_ALIGNMENT = 64
_REMEMBERED = 4096  # lanes and roadblocks each that a process keeps: those around its last scenes
_AREAS = ("lane_area", "lane_connector_area", "roadblock_area", "connector_area", "intersection_area", "carpark_area")

Item = TypeVar("Item")


def keep_map(path: Path, read: Callable[[], RoadMap]) -> RoadMap:
    """The map in a file, which is written first if it is not there or is not whole.

    Of processes that need it at the same time, one reads the map.

    Raises:
        CannotWrite: the file cannot be written.
        MTDriveError: what `read` raises.
    """
    if (found := _open(path)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"Cannot write maps to {path.parent}: {error.strerror}.") from error
    with locked(path.with_suffix(".lock"), wait=True):
        if (found := _open(path)) is not None:
            return found
        _save(path, read())
        _give_back_memory()
    if (found := _open(path)) is None:
        raise MTDriveError(f"The map in {path} is damaged as soon as it is written; check the disk.")
    return found


def _give_back_memory() -> None:
    """Where the C library is glibc, which keeps what is freed: 0.6 GB after a map of 500 MB."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class _Pool:
    """Geometries, each once, and the numbers that stand for them."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self.shapes: list[shapely.Geometry] = []

    def number(self, shape: shapely.Geometry | None) -> int | None:
        if shape is None:
            return None
        number = self._numbers.setdefault(id(shape), len(self.shapes))
        if number == len(self.shapes):
            self.shapes.append(shape)
        return number


def _save(path: Path, road_map: RoadMap) -> None:
    pool = _Pool()
    areas = {name: getattr(road_map, name) for name in _AREAS}
    rows = {name: [pool.number(shape) for shape in area.polygons] for name, area in areas.items()}
    lanes = [
        [lane.roadblock, pool.number(lane.polygon), [pool.number(line) for line in lane.lines], lane.speed_limit,
         lane.successors]
        for lane in road_map.lanes.values()
    ]  # fmt: skip
    blocks = [
        [pool.number(block.polygon), block.is_connector, block.lanes, block.incoming, block.outgoing]
        for block in road_map.roadblocks.values()
    ]
    shapes = np.array(pool.shapes, dtype=object)
    arrays = {
        "bounds": shapely.bounds(shapes).reshape(-1, 4),
        **_packed("shapes", shapely.to_wkb(shapes)),
        **_packed("lane_ids", [id_.encode() for id_ in road_map.lanes]),
        **_packed("lanes", [json.dumps(record).encode() for record in lanes]),
        **_packed("roadblock_ids", [id_.encode() for id_ in road_map.roadblocks]),
        **_packed("roadblocks", [json.dumps(record).encode() for record in blocks]),
    }
    for name, area in areas.items():
        arrays |= {name: np.array(rows[name], dtype=np.int64)}
        arrays |= _packed(f"{name}_ids", [id_.encode() for id_ in area.ids])
    del pool, shapes, lanes, blocks
    table, size = {}, 0
    for name, array in arrays.items():
        table[name] = (array.dtype.str, array.shape, size)
        size += _aligned(array.nbytes)
    values = {"format_version": FORMAT_VERSION, "location": road_map.location}
    values |= {"without_geometry": road_map.without_geometry, "arrays": table}
    header = json.dumps(values).encode()
    header = header.ljust(_aligned(_PREFIX.size + len(header)) - _PREFIX.size)
    checksum = 0
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.seek(_PREFIX.size + len(header))
        for array in arrays.values():
            for content in (np.ascontiguousarray(array).data, bytes(_aligned(array.nbytes) - array.nbytes)):
                checksum = zlib.crc32(content, checksum)
                file.write(content)
        file.seek(0)
        file.write(_PREFIX.pack(_MAGIC, len(header), zlib.crc32(header), checksum, 0) + header)


def _packed(name: str, items: Sequence[bytes]) -> dict[str, np.ndarray]:
    """The arrays of `_Blobs`."""
    start = np.cumsum([0, *map(len, items)], dtype=np.int64)
    return {name: np.frombuffer(b"".join(items), dtype=np.uint8), f"{name}_start": start}


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _open(path: Path) -> RoadMap | None:
    """The map in a file; None where the file is missing, damaged, or of another version."""
    try:
        with open(path, "rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        magic, length, header_checksum, checksum, _ = _PREFIX.unpack(content[: _PREFIX.size])
        header, body = bytes(content[_PREFIX.size : _PREFIX.size + length]), content[_PREFIX.size + length :]
        if (magic, zlib.crc32(header)) != (_MAGIC, header_checksum) or zlib.crc32(body) != checksum:
            return None
        values = json.loads(header)
        if values["format_version"] != FORMAT_VERSION:
            return None
        table = values["arrays"].items()
        arrays = {name: np.ndarray(shape, dtype, body, offset) for name, (dtype, shape, offset) in table}
        return _road_map(values, arrays)
    except (OSError, struct.error, KeyError, TypeError, ValueError):
        return None


def _road_map(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> RoadMap:
    pool = _Blobs(arrays, "shapes")

    def shape(number: int | None) -> Any:
        return None if number is None else shapely.from_wkb(pool[number])

    def lane(id_: str, record: list) -> Lane:
        roadblock, polygon, lines, limit, successors = record
        return Lane(id_, roadblock, shape(polygon), tuple(map(shape, lines)), limit, tuple(successors))

    def roadblock(id_: str, record: list) -> Roadblock:
        polygon, is_connector, *edges = record
        return Roadblock(id_, shape(polygon), is_connector, *map(tuple, edges))

    return RoadMap(
        location=values["location"],
        lanes=_Records(arrays, "lane_ids", "lanes", lane),
        roadblocks=_Records(arrays, "roadblock_ids", "roadblocks", roadblock),
        without_geometry=values["without_geometry"],
        **{
            name: Area(_Texts(arrays, f"{name}_ids"), _KeptGeometries(pool, arrays["bounds"], arrays[name]))
            for name in _AREAS
        },
    )


class _Blobs(Sequence[bytes]):
    """Byte strings, one after the other in an array, and where each begins."""

    def __init__(self, arrays: Mapping[str, np.ndarray], name: str) -> None:
        self._content, self._start = arrays[name], arrays[f"{name}_start"]

    def __len__(self) -> int:
        return len(self._start) - 1

    def __getitem__(self, row):
        return self._content[self._start[row] : self._start[row + 1]].tobytes()


class _Texts(Sequence[str]):
    def __init__(self, arrays: Mapping[str, np.ndarray], name: str) -> None:
        self._blobs = _Blobs(arrays, name)

    def __len__(self) -> int:
        return len(self._blobs)

    def __getitem__(self, row):
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._blobs[row].decode()


class _KeptGeometries(Geometries):
    """Those of a pool that are in some of its rows."""

    def __init__(self, pool: _Blobs, bounds: np.ndarray, rows: np.ndarray) -> None:
        self._pool, self._rows = pool, rows
        self.bounds = bounds[rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row):
        return shapely.from_wkb(self._pool[self._rows[row]])

    def at(self, rows: np.ndarray) -> np.ndarray:
        return shapely.from_wkb(np.array([self._pool[row] for row in self._rows[rows]], dtype=object))


class _Records(Mapping[str, Item], Generic[Item]):
    """Objects by id, made from their JSON records when they are asked for; the last ones stay."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], ids: str, records: str, make: Callable[[str, list], Item]
    ) -> None:
        blobs = _Blobs(arrays, records)
        self._rows = {id_: row for row, id_ in enumerate(_Texts(arrays, ids))}
        self._made = lru_cache(_REMEMBERED)(lambda id_: make(id_, json.loads(blobs[self._rows[id_]])))

    def __getitem__(self, id_: str) -> Item:
        return self._made(id_)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
