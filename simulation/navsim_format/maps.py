"""nuPlan maps: one GeoPackage (SQLite) per location."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.map_file import keep_map
from mtdrive.simulation.navsim_format.map_layers import read_geopackage
from mtdrive.simulation.navsim_format.names import map_part
from mtdrive.simulation.navsim_format.road_map import RoadMap
from mtdrive.simulation.runtime.files import CannotWrite
from mtdrive.simulation.runtime.json_files import read_json

VERSIONS_FILE = "nuplan-maps-v1.0.json"
ALIASES = {"las_vegas": "us-nv-las-vegas-strip"}


def map_path(maps_root: Path | str, location: str) -> Path:
    """The GeoPackage of a location.

    Raises:
        MTDriveError: the maps, or this location, are not there.
    """
    versions_file = Path(maps_root) / VERSIONS_FILE
    try:
        versions = read_json(versions_file)
        known = {place: map_part(version["version"]) for place, version in versions.items()}
    except FileNotFoundError:
        raise MTDriveError(f"There is no {versions_file}; set nuplan_maps_root (NUPLAN_MAPS_ROOT).") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MTDriveError(f"{versions_file} is no list of maps and versions ({error}); fetch it again.") from error
    location = map_part(ALIASES.get(map_part(location), location))
    if location not in known:
        raise MTDriveError(f"{versions_file} lists no map {location!r}, only {', '.join(known)}.")
    path = Path(maps_root) / location / known[location] / "map.gpkg"
    if not path.is_file():
        raise MTDriveError(f"The map {path} is missing; fetch the nuPlan maps v1.0 for {location}.")
    return path


def load_map(path: Path, kept: Path | None = None) -> RoadMap:
    """The map in a GeoPackage; stays for the process while the file does not change.

    Args:
        path: of the GeoPackage.
        kept: file that keeps the map once it is read, under a name that no other map has. All processes then share one
            copy of its geometries in memory. None to have the map in this process alone.

    Raises:
        MTDriveError: a layer is missing, or the file is no GeoPackage.
        CannotWrite: the map cannot be kept.
    """
    status = path.stat()
    found = _load_map(path, status.st_mtime_ns, status.st_size, kept)
    if isinstance(found, str):
        raise MTDriveError(found)
    return found


@lru_cache(maxsize=8)
def _load_map(path: Path, _mtime: int, _size: int, kept: Path | None) -> RoadMap | str:
    """The map, or what is wrong with it."""
    try:
        return read_geopackage(path) if kept is None else keep_map(kept, lambda: read_geopackage(path))
    except CannotWrite:
        raise
    except MTDriveError as error:
        return str(error)
