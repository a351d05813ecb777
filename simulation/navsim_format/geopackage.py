"""Read the tables of an untrusted GeoPackage: an SQLite file can hold programs, and claim sizes that it does not have.

Only tables are read: views, triggers, virtual tables and generated columns run code, possibly without end. A table
yields no more bytes than its file has, in a number of steps bounded by the size of the file. A geometry must be a
polygon, a line, or several of one kind, and its counts must fit its bytes.
"""

from __future__ import annotations

import itertools
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGEST_FILE = 1 << 30  # bytes; nuPlan's maps take up to some 100 MB
LARGEST_VALUE = 1 << 24  # bytes of a geometry or text
ROW = 16  # bytes that a row takes in its file at least, with what is read of it
_STEPS = 1 << 24, 16  # of SQLite's machine: so many, and so many for each byte of the file
_STRIDE = 10_000  # steps between two looks
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_PRAGMA}
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LARGEST_VALUE,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
}
_ENVELOPE_BYTES = (0, 32, 48, 48, 64)
_LINE, _POLYGON = 2, 3  # types of ISO's well-known binary; 1000 more with z
_PARTS = {5: _LINE, 6: _POLYGON}  # what the parts of a multiline and of a multipolygon are
_WITH_Z = {1000: 3, 0: 2}


class BadLayer(Exception):
    """The file is no valid map; the message says why, as the end of a sentence."""


@contextmanager
def open_geopackage(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a GeoPackage as a read-only SQLite connection with all limits set.

    Raises:
        BadLayer: the file is too large.
        sqlite3.Error: it is no database, holds a value over LARGEST_VALUE, or takes too many steps for its size.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise BadLayer(f"it has {size:,} bytes of at most {LARGEST_FILE:,}")
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        for category, limit in _LIMITS.items():
            database.setlimit(category, limit)
        for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
            database.execute(f"PRAGMA {pragma}")
        looks = itertools.count()
        most = (_STEPS[0] + _STEPS[1] * size) // _STRIDE
        database.set_progress_handler(lambda: next(looks) > most, _STRIDE)
        database.set_authorizer(_authorize)
        yield database
    finally:
        database.close()


def _authorize(action: int, _first: str | None, _second: str | None, _database: str | None, view: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED and view is None else sqlite3.SQLITE_DENY


def read_table(database: sqlite3.Connection, size: int, name: str, columns: tuple[str, ...], order: str = "") -> list:
    """Rows of a table, each a tuple of the given columns.

    Args:
        size: size of the file [bytes].
        order: column to sort by.

    Raises:
        BadLayer: there is no such table, or its rows cannot all lie in the file.
    """
    found = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    if found is None or found[0] != "table" or not str(found[1]).upper().startswith("CREATE TABLE"):
        raise BadLayer(f"{name} is no table")
    computed = {column[1] for column in database.execute(f'PRAGMA table_xinfo("{name}")') if column[6]}
    if computed & {*columns, order}:
        raise BadLayer(f"table {name} computes {min(computed)}")
    rows, left = [], size
    sorting = f" ORDER BY {order}" if order else ""
    for row in database.execute(f'SELECT {", ".join(columns)} FROM "{name}"{sorting}'):
        left -= ROW + sum(len(value) for value in row if isinstance(value, bytes | str))
        if left < 0:
            raise BadLayer(f"table {name} holds more than its file")
        rows.append(row)
    return rows


def unpack_geometry(layer: str, blob: object) -> bytes | None:
    """Well-known binary of polygons or lines in a GeoPackage blob; None for None.

    A header of 8 bytes comes first, then an envelope whose size is in bits 1-3 of the flags.

    Raises:
        BadLayer: the blob is none of them, or its counts do not fit its bytes.
    """
    if blob is None:
        return None
    if not isinstance(blob, bytes) or blob[:2] != b"GP" or len(blob) <= 8 or (blob[3] >> 1) & 7 > 4:
        raise BadLayer(f"layer {layer} holds a geometry that is no GeoPackage geometry")
    content = blob[8 + _ENVELOPE_BYTES[(blob[3] >> 1) & 7] :]
    try:
        whole = _end(content) == len(content)
    except (struct.error, KeyError):
        whole = False
    if not whole:
        raise BadLayer(f"layer {layer} holds a geometry that is no polygons or lines, or no whole one")
    return content


def _end(content: bytes) -> int:
    """Where a geometry ends by its counts.

    Raises:
        struct.error: before a count.
        KeyError: it is none of them.
    """
    order, kind, _ = _head(content, 0)
    if kind not in _PARTS:
        return _end_of_part(content, 0, (_LINE, _POLYGON))
    (parts,) = struct.unpack_from(f"{order}I", content, 5)
    position = 9
    for _ in range(parts):
        position = _end_of_part(content, position, (_PARTS[kind],))
    return position


def _head(content: bytes, position: int) -> tuple[str, int, int]:
    """Byte order, type and bytes of a point of the geometry that begins there."""
    (flag,) = struct.unpack_from("B", content, position)
    order = {0: ">", 1: "<"}[flag]
    (kind,) = struct.unpack_from(f"{order}I", content, position + 1)
    return order, kind % 1000, 8 * _WITH_Z[kind // 1000 * 1000]


def _end_of_part(content: bytes, position: int, allowed: tuple[int, ...]) -> int:
    order, kind, point = _head(content, position)
    if kind not in allowed:
        raise KeyError(kind)
    rings, position = 1, position + 5
    if kind == _POLYGON:
        (rings,) = struct.unpack_from(f"{order}I", content, position)
        position += 4
    for _ in range(rings):
        (points,) = struct.unpack_from(f"{order}I", content, position)
        position += 4 + point * points
    return position
