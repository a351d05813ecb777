"""Write a map as large as a city's: copies of a small nuPlan map side by side, with ids of their own.

    python tools/big_map.py --maps tests/data/navsim_reference/dataset/maps --location us-ma-boston \
        --lanes 39000 --out big_maps

The first copy stays where it is: logs of the small map compile to the same scenes on the large one. With 39,000
lanes it has about 500 MB, like nuPlan's Las Vegas.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sqlite3
import struct
from pathlib import Path

import numpy as np
import shapely
from tqdm import tqdm

from mtdrive.simulation.navsim_format.geopackage import unpack_geometry
from mtdrive.simulation.navsim_format.maps import map_path

APART = 0.05  # [degree] between the copies
POINT_STEP = 2.2e-5  # [degree] between the points of the copies at most, about 2 m: as dense as a real map
ID_STEP = 1_000_000  # between the ids of one copy and the next


def main() -> None:
    """Read the arguments and write the maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True, help="NUPLAN_MAPS_ROOT of the small map")
    parser.add_argument("--location", required=True, help="the small map")
    parser.add_argument("--lanes", type=int, default=39_000, help="rows of layer lanes_polygons")
    parser.add_argument("--out", type=Path, required=True, help="NUPLAN_MAPS_ROOT to write")
    arguments = parser.parse_args()
    shutil.copytree(arguments.maps, arguments.out)
    path = map_path(arguments.out, arguments.location)
    path.chmod(0o644)
    enlarge(path, arguments.lanes)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


def enlarge(path: Path, lanes: int) -> None:
    """Add copies of all rows of a map until it has so many lanes."""
    with sqlite3.connect(path) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        (present,) = database.execute("SELECT count(*) FROM lanes_polygons").fetchone()
        layers = [name for (name,) in database.execute("SELECT table_name FROM gpkg_geometry_columns")]
        copies = math.ceil(lanes / present)
        for layer in tqdm(layers, "layers"):
            copy_layer(database, layer, copies)
    database.close()


def copy_layer(database: sqlite3.Connection, layer: str, copies: int) -> None:
    """Add copies - 1 copies of the rows of a layer, on a square grid."""
    columns = [column[1] for column in database.execute(f'PRAGMA table_info("{layer}")')]
    rows = database.execute(f'SELECT * FROM "{layer}"').fetchall()
    if not rows:
        return
    ids = [index for index, name in enumerate(columns) if name == "fid" or name.endswith("_fid")]
    at = columns.index("geom")
    headers = [b"GP\0\1" + struct.pack("<i", struct.unpack_from("<i", row[at], 4)[0]) for row in rows]
    shapes = shapely.from_wkb(
        [bytes(row[at][8:]) if is_point(row[at]) else unpack_geometry(layer, row[at]) for row in rows]
    )
    shapes = shapely.segmentize(shapes, POINT_STEP)
    side, marks = math.isqrt(copies - 1) + 1, ", ".join("?" * len(columns))
    for copy in range(1, copies):
        shift = np.array(divmod(copy, side)) * APART
        moved = shapely.to_wkb(shapely.transform(shapes, lambda points, shift=shift: points + shift))
        table = [list(row) for row in rows]
        for row, header, geometry in zip(table, headers, moved, strict=True):
            row[at] = header + geometry
            for index in ids:
                if isinstance(row[index], int):
                    row[index] += copy * ID_STEP
        database.executemany(f'INSERT INTO "{layer}" VALUES ({marks})', table)


def is_point(blob: bytes) -> bool:
    """Whether a GeoPackage geometry without an envelope is a point, as traffic lights are; no map reader needs it."""
    return (blob[3] >> 1) & 7 == 0 and struct.unpack_from("<I", blob, 9)[0] == 1


if __name__ == "__main__":
    main()
