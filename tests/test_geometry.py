"""Frames, boxes and packed polygons."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.simulation.geometry.frames import (
    box_corners,
    points_to_global,
    poses_to_global,
    poses_to_local,
    quaternion_yaw,
    translate_forward,
)
from mtdrive.simulation.geometry.polygons import pack, polygons_to_local, unpack
from mtdrive.simulation.pdm_closed.idm import polygon_distance

coordinate = st.floats(-1e3, 1e3)
angle = st.floats(-10.0, 10.0)
pose = st.tuples(coordinate, coordinate, angle).map(np.array)


@given(pose, pose)
def test_local_and_global_frames_are_inverse(inner, origin):
    back = poses_to_local(poses_to_global(inner, origin), origin)
    assert np.allclose(back[:2], inner[:2], atol=1e-8)
    assert np.isclose(np.cos(back[2] - inner[2]), 1.0)
    assert -np.pi <= back[2] <= np.pi


def test_a_point_ahead_of_a_north_facing_ego():
    assert np.allclose(points_to_global(np.array([2.0, 1.0]), np.array([10.0, 20.0, np.pi / 2])), [9.0, 22.0])


@given(st.floats(-3.1, 3.1))
def test_quaternion_of_a_level_vehicle_gives_its_heading(heading):
    assert np.isclose(quaternion_yaw(2.0 * np.array([np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2)])), heading)


def test_quaternion_yaw_has_the_sign_of_pyquaternion():
    # pyquaternion 0.9.9 gives this for Quaternion(0.9, 0.1, 0.2, 0.3).yaw_pitch_roll[0]; the usual yaw is 0.699
    assert np.isclose(quaternion_yaw(np.array([0.9, 0.1, 0.2, 0.3])), 0.6270706625890183)


def test_corners_start_front_left_and_go_round_by_the_rear():
    corners = box_corners(np.array([1.0, 1.0, np.pi / 2]), np.array([4.0, 2.0]))
    assert np.allclose(corners, [[0, 3], [0, -1], [2, -1], [2, 3]])
    assert np.allclose(translate_forward(np.array([0.0, 0.0, np.pi]), 2.0), [-2.0, 0.0, np.pi])


@given(st.lists(st.tuples(coordinate, coordinate, st.floats(1.0, 50.0), st.booleans()), max_size=6), pose)
def test_packed_polygons_keep_shape_and_holes_in_any_frame(specification, origin):
    polygons = np.array([_square(x, y, size, hole) for x, y, size, hole in specification], dtype=object)
    packed = pack(polygons)
    assert shapely.equals_exact(unpack(packed), polygons).all()
    moved = polygons_to_local(packed, origin)
    assert np.allclose(points_to_global(moved.xy, origin), packed.xy, atol=1e-8)
    assert np.allclose(moved.bounds, shapely.bounds(unpack(moved)).reshape(-1, 4))


def _square(x: float, y: float, size: float, hole: bool) -> shapely.Polygon:
    square = shapely.box(x, y, x + size, y + size)
    return square - shapely.box(x + size / 4, y + size / 4, x + size / 2, y + size / 2) if hole else square


@settings(deadline=None)  # the first call compiles
@given(pose, st.tuples(st.floats(-20, 20), st.floats(-20, 20), angle).map(np.array), st.integers(3, 9))
def test_polygon_distance_is_that_of_shapely(origin, offset, corners):
    box = shapely.Polygon(box_corners(origin, np.array([5.0, 2.0])))
    turns = np.linspace(0, 2 * np.pi, corners, endpoint=False) + offset[2]
    radius = np.where(np.arange(corners) % 2, 8.0, 3.0)[:, None]  # a star: not convex
    star = shapely.Polygon(origin[:2] + offset[:2] + radius * np.column_stack([np.cos(turns), np.sin(turns)]))
    rings = [np.array(polygon.exterior.coords) for polygon in (box, star)]
    assert np.isclose(polygon_distance(*rings), box.distance(star), atol=1e-9)
    assert np.isclose(polygon_distance(*rings[::-1]), box.distance(star), atol=1e-9)
