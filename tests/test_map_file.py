"""Maps that are kept in a file give what the map itself gives, bit for bit."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
import shapely
from big_map import enlarge

from mtdrive.simulation.navsim_format.map_file import keep_map
from mtdrive.simulation.navsim_format.map_layers import read_geopackage
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.navsim_format.road_map import RoadMap
from mtdrive.simulation.scene_cache.build import KEPT_MAPS, build_caches
from mtdrive.simulation.scene_cache.format import load_fingerprint, save_scene
from support import reference

LOCATIONS = ["us-ma-boston", "sg-one-north"]
AREAS = ["lane_area", "lane_connector_area", "roadblock_area", "connector_area", "intersection_area", "carpark_area"]
TOKENS = sorted(set(reference.load("trajectories.npz")["token"].tolist()))


def refused() -> RoadMap:
    raise AssertionError("The map is read again.")


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_kept_map_is_the_map(tmp_path, location):
    path = map_path(reference.MAPS_ROOT, location)
    read = load_map(path)
    keep_map(tmp_path / "a.map", lambda: read)
    kept = keep_map(tmp_path / "a.map", refused)
    assert (kept.location, kept.without_geometry) == (read.location, read.without_geometry)
    assert list(kept.lanes) == list(read.lanes)
    assert list(kept.roadblocks) == list(read.roadblocks)
    assert dict(kept.lanes) == dict(read.lanes)
    assert dict(kept.roadblocks) == dict(read.roadblocks)
    for name in AREAS:
        area, original = getattr(kept, name), getattr(read, name)
        assert list(area.ids) == original.ids
        assert shapely.to_wkb(list(area.polygons)).tolist() == shapely.to_wkb(list(original.polygons)).tolist()
        np.testing.assert_array_equal(area.polygons.bounds, original.polygons.bounds)


def test_areas_are_searched_as_by_a_tree():
    area = load_map(map_path(reference.MAPS_ROOT, "us-ma-boston")).lane_area
    polygons = area.polygons.at(np.arange(len(area.ids)))
    tree = shapely.STRtree(polygons)
    for polygon in polygons:
        center = np.array(polygon.centroid.coords[0])
        for radius in (1.0, 50.0):
            window = shapely.box(*(center - radius), *(center + radius))
            assert area.within_window(center, radius) == sorted(tree.query(window, predicate="intersects"))
        for point in (polygon.centroid, shapely.Point(polygon.exterior.coords[0])):
            assert area.holding(point) == sorted(tree.query(point, predicate="within"))
            assert area.nearest(point) == np.argsort(shapely.distance(polygons, point))[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-64],
        lambda content: content[:200] + b"\1" + content[201:],
        lambda content: content[:-100] + b"\1" + content[-99:],
    ],
)
def test_a_damaged_file_is_written_again(tmp_path, damage):
    read = load_map(map_path(reference.MAPS_ROOT, "us-ma-boston"))
    path = tmp_path / "a.map"
    keep_map(path, lambda: read)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    keep_map(path, lambda: read)
    assert path.read_bytes() == whole


def test_one_of_many_reads_the_map(tmp_path):
    read, times = load_map(map_path(reference.MAPS_ROOT, "us-ma-boston")), []
    threads = [
        threading.Thread(target=keep_map, args=(tmp_path / "a.map", lambda: times.append(1) or read)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 1


def test_scenes_of_a_large_map_are_those_of_the_small_one(tmp_path):
    """The copies of the map beside it change nothing, nor does the file that it is kept in."""
    shutil.copytree(reference.MAPS_ROOT, tmp_path / "maps")
    for location in LOCATIONS:
        enlarge(map_path(tmp_path / "maps", location), lanes=300)
        assert len(read_geopackage(map_path(tmp_path / "maps", location)).lane_area.ids) >= 300
    report = build_caches(reference.DATA_ROOT, tmp_path / "maps", "test", tmp_path / "out", tokens=TOKENS, workers=2)
    assert sorted(report.built) == TOKENS
    assert len(list((tmp_path / "out" / KEPT_MAPS).glob("*.map"))) == 2
    for path in (tmp_path / "out/test").glob("*/*.scene"):
        save_scene(tmp_path / "expected.scene", reference.scenes()[path.stem], load_fingerprint(path))
        assert path.read_bytes() == (tmp_path / "expected.scene").read_bytes()
