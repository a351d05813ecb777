"""The camera model and the synthetic renderer: what is drawn is where the calibration says."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.simulation.camera import NEAR, PinholeCamera, clip_polygon
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.logs import front_camera
from mtdrive.simulation.scene import Camera, ObjectType
from mtdrive.simulation.synthetic.rendering import render_front_camera
from mtdrive.simulation.synthetic.rendering.order import painters_order
from mtdrive.simulation.synthetic.rendering.scene import (
    Atmosphere,
    Box,
    LightState,
    Marking,
    Material,
    RenderScene,
    Surface,
    TrafficLight,
)

NUPLAN_DISTORTION = np.array([-0.356123, 0.172545, -0.00213, 0.000464, -0.05231])
INTRINSIC = np.array([[1545.0, 0.0, 960.0], [0.0, 1545.0, 560.0], [0.0, 0.0, 1.0]])
LOOKING_AHEAD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def camera_at(x=1.6, y=0.0, z=1.5, rotation=LOOKING_AHEAD, distortion=None):
    to_ego = np.eye(4)
    to_ego[:3, :3], to_ego[:3, 3] = rotation, (x, y, z)
    distortion = np.zeros(5) if distortion is None else distortion
    return PinholeCamera(INTRINSIC, to_ego, distortion, 1920, 1080)


CAMERA = camera_at().resized(640, 360)
ROAD = Surface(Material.ROAD, np.array([[-5.0, -4.0], [90.0, -4.0], [90.0, 4.0], [-5.0, 4.0]]))
CAR = Box(ObjectType.VEHICLE, 18.0, 2.0, 0.0, 4.7, 1.9, 1.6, (200, 30, 30))


def drawn_region(with_things: RenderScene, without: RenderScene) -> np.ndarray:
    """left, top, right, bottom of the pixels that differ clearly."""
    difference = render_front_camera(with_things, CAMERA).astype(int) - render_front_camera(without, CAMERA)
    rows, columns = np.nonzero(np.abs(difference).max(axis=-1) > 12)
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()])


def box_corners(box: Box) -> np.ndarray:
    c, s = np.cos(box.heading), np.sin(box.heading)
    corners = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (0, 1)])
    corners = corners * [box.length, box.width, box.height]
    return corners @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [box.x, box.y, 0]


@given(st.tuples(st.floats(3, 80), st.floats(-1, 1), st.floats(-0.5, 4)), st.floats(-0.3, 0.3), st.floats(-0.1, 0.1))
def test_projection_equals_opencv(point, yaw, pitch):
    turn = cv2.Rodrigues(np.array([0, 0, yaw]))[0] @ cv2.Rodrigues(np.array([0, pitch, 0]))[0]
    camera = camera_at(rotation=turn @ LOOKING_AHEAD, distortion=NUPLAN_DISTORTION)
    points = np.array([[point[0], point[1] * point[0] * 0.4, point[2]]])
    pixels, depth = camera.project(points)
    expected, _ = cv2.projectPoints(
        points, cv2.Rodrigues(camera.from_ego[:3, :3])[0], camera.from_ego[:3, 3], camera.intrinsic, NUPLAN_DISTORTION
    )
    assert depth[0] > NEAR
    if np.hypot(*(camera.to_camera(points)[0, :2] / depth[0])) < 0.9:  # before the lens polynomial turns back
        np.testing.assert_allclose(pixels, expected[:, 0], atol=1e-6)


@given(st.floats(0, 1919), st.floats(570, 1079), st.booleans())
def test_ground_points_invert_the_projection(u, v, distorted):
    camera = camera_at(distortion=NUPLAN_DISTORTION if distorted else None)
    ground = camera.ground_points(np.array([[u, v]]))
    pixels, _ = camera.project(np.column_stack([ground, [0.0]]))
    np.testing.assert_allclose(pixels, [[u, v]], atol=0.02)
    assert np.isnan(camera.ground_points(np.array([[u, 500.0]]))).all()


def test_lens_polynomial_does_not_fold_the_side_into_the_picture():
    camera = camera_at(distortion=NUPLAN_DISTORTION)
    pixels, _ = camera.project(np.column_stack([np.full(50, 3.0), np.linspace(-60, -0.5, 50), np.zeros(50)]))
    assert (np.diff(pixels[:, 0]) < 0).all()


def test_points_behind_have_no_pixel_and_cut_shapes_stay_in_front():
    pixels, depth = CAMERA.project(np.array([[-3.0, 0.0, 0.0], [10.0, 1.0, 0.0]]))
    assert np.isnan(pixels[0]).all()
    assert depth[0] < 0
    assert pixels[1, 0] < CAMERA.intrinsic[0, 2]  # the ego's left is the picture's left
    line = np.array([[-9.0, 0.0, 0.0], [-5.0, 0.0, 0.0], [20.0, 0.0, 0.0], [-9.0, 1.0, 0.0]])
    (piece,) = CAMERA.project_polyline(line)
    assert len(piece) == 3
    assert np.isfinite(piece).all()
    assert len(CAMERA.project_polygon(np.array([[-9.0, 0, 0], [-5.0, 0, 0], [-5.0, 3, 0]]))) == 0
    around = CAMERA.project_polygon(np.array([[-5.0, -2, 0], [30.0, -2, 0], [30.0, 2, 0], [-5.0, 2, 0]]))
    far_edge = CAMERA.project(np.array([[30.0, -2.0, 0.0]]))[0][0]
    assert np.linalg.norm(around - far_edge, axis=1).min() < 1e-9
    assert around[:, 1].max() > CAMERA.height  # it reaches below the picture's lower edge


@given(st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=3, max_size=8))
def test_cut_polygons_lie_within_every_plane(points):
    cut = clip_polygon(np.array(points), CAMERA.planes)
    assert ((cut @ CAMERA.planes[:, :3].T + CAMERA.planes[:, 3]) > -1e-9 * (1 + np.abs(CAMERA.planes).max() * 50)).all()
    whole = np.array(points) @ CAMERA.planes[:, :3].T + CAMERA.planes[:, 3] >= 0
    if whole.all():
        np.testing.assert_allclose(cut, points)
    assert (len(cut) == 0) or not (~whole).all(axis=0).any()


def test_calibration_of_a_log_fits_its_full_image_and_a_reduced_one():
    frame = {
        "lidar2ego": camera_at(1.5, 0.0, 1.6, rotation=np.eye(3)).to_ego,
        "cams": {
            "CAM_F0": {
                "data_path": "log/CAM_F0/a.jpg",
                "sensor2lidar_rotation": LOOKING_AHEAD,
                "sensor2lidar_translation": np.array([0.1, 0.0, -0.1]),
                "cam_intrinsic": INTRINSIC,
                "distortion": NUPLAN_DISTORTION,
            }
        },
    }
    full, small = (PinholeCamera.from_scene(front_camera(frame), *size) for size in ((1920, 1080), (96, 54)))
    np.testing.assert_allclose(full.position, [1.6, 0.0, 1.5])
    points = np.array([[12.0, 3.0, 0.0], [30.0, -4.0, 1.0]])
    expected = camera_at(distortion=NUPLAN_DISTORTION).project(points)[0]
    np.testing.assert_allclose(full.project(points)[0], expected, atol=1e-9)
    np.testing.assert_allclose(small.project(points)[0], (expected + 0.5) / 20 - 0.5, atol=1e-9)


CALIBRATIONS = {  # size and principal point of the image that was calibrated
    "NAVSIM's": (1920, 1080, 960.0, 560.0),
    "a small world's": (640, 360, 320.0, 560.0 / 3),
    "cropped, off the middle": (1600, 600, 830.0, 90.0),
}


@pytest.mark.parametrize("calibration", CALIBRATIONS.values(), ids=CALIBRATIONS)
@pytest.mark.parametrize("factor", [1.0, 0.75, 2 / 3, 0.5, 0.05, 1.5])
def test_plans_lie_right_on_copies_of_any_size(calibration, factor):
    """A point keeps its place in the picture, of whichever size the copy on disk is."""
    width, height, cx, cy = calibration
    intrinsic = np.array([[1000.0, 0.0, cx], [0.0, 1000.0, cy], [0.0, 0.0, 1.0]])
    stored = round(width * factor), round(height * factor)
    camera = PinholeCamera.from_scene(Camera("a.jpg", intrinsic, CAMERA.to_ego, np.zeros(5)), *stored)
    points = np.array([[16.6, -3.0, 0.0], [31.6, 4.0, 1.0]])
    expected = PinholeCamera(intrinsic, CAMERA.to_ego, np.zeros(5), width, height).project(points)[0]
    away = np.abs((camera.project(points)[0] + 0.5) / stored - (expected + 0.5) / (width, height))
    known = factor == 1.0 or width == 1920  # of other cameras the size is inferred, and less exactly
    assert away.max() < (1e-9 if known else 0.03)


def test_a_squashed_copy_of_navsims_image_is_recognised():
    front = Camera("a.jpg", INTRINSIC.copy(), CAMERA.to_ego, np.zeros(5))
    squashed = PinholeCamera.from_scene(front, 448, 448)
    np.testing.assert_allclose(squashed.intrinsic, camera_at().resized(448, 448).intrinsic)
    front.intrinsic[:2, 2] = 0.0
    with pytest.raises(MTDriveError, match="principal point"):
        PinholeCamera.from_scene(front, 448, 448)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("to_ego", np.diag([1.0, 2.0, 1.0, 1.0]), "rotation"),
        ("intrinsic", np.eye(3) * np.nan, "intrinsic"),
        ("intrinsic", np.diag([-1.0, 1.0, 1.0]), "focal"),
        ("distortion", np.zeros(4), "distortion"),
    ],
)
def test_a_calibration_that_is_none_is_refused(field, value, word):
    with pytest.raises(MTDriveError, match=word):
        replace(CAMERA, **{field: value})


@pytest.mark.parametrize("lateral", [-2.5, 0.0, 1.8])
def test_marking_is_painted_where_it_projects(lateral):
    xy = np.column_stack([np.linspace(0, 80, 41), np.full(41, lateral)])
    image = render_front_camera(RenderScene(surfaces=(ROAD,), markings=(Marking(xy, width=0.3),)), CAMERA)
    for x in (10.0, 14.0, 20.0, 30.0):
        ((u, v),) = CAMERA.project(np.array([[x, lateral, 0.0]]))[0]
        row = image[round(v)].astype(float).mean(axis=-1)
        paint = np.nonzero(row > 160)[0]
        assert abs(paint.mean() - u) < 1.0
        assert row[round(u) - 60 : round(u) - 40].mean() < 120


def test_dashes_have_the_given_rhythm():
    line = Marking(np.array([[6.0, 0.0], [40.0, 0.0]]), width=0.3, dash=(3.0, 6.0))
    image = render_front_camera(RenderScene(surfaces=(ROAD,), markings=(line,)), CAMERA)
    places = np.array([[x, 0.0, 0.0] for x in (6.5, 8.5, 9.5, 14.5, 15.5, 17.5, 18.5)])
    pixels = np.rint(CAMERA.project(places)[0]).astype(int)
    painted = image[pixels[:, 1], pixels[:, 0]].mean(axis=-1) > 160
    assert painted.tolist() == [True, True, False, False, True, True, False]


@pytest.mark.parametrize("kind", [kind for kind in ObjectType if kind != ObjectType.EGO])
def test_objects_fill_their_projected_box(kind):
    size = {
        ObjectType.VEHICLE: (4.7, 1.9, 1.6),
        ObjectType.PEDESTRIAN: (0.7, 0.6, 1.75),
        ObjectType.BICYCLE: (1.8, 0.6, 1.75),
        ObjectType.TRAFFIC_CONE: (0.5, 0.5, 0.9),
        ObjectType.BARRIER: (2.0, 0.6, 1.0),
        ObjectType.CZONE_SIGN: (0.9, 0.9, 1.4),
        ObjectType.GENERIC_OBJECT: (1.4, 1.1, 1.2),
    }[kind]
    box = Box(kind, 12.0, 2.0, 0.4, *size, (220, 60, 200))
    bare = RenderScene(surfaces=(ROAD,), atmosphere=Atmosphere(overcast=1.0))  # casts no shadow beside the object
    left, top, right, bottom = drawn_region(replace(bare, boxes=(box,)), bare)
    pixels = CAMERA.project(box_corners(box))[0]
    (x0, y0), (x1, y1) = pixels.min(axis=0), pixels.max(axis=0)
    assert abs(top - y0) < 8
    assert abs(bottom - y1) < 8
    assert abs(left - x0) < 25
    assert abs(right - x1) < 25


def test_vehicle_paint_is_at_its_projected_place():
    image = render_front_camera(RenderScene(surfaces=(ROAD,), boxes=(CAR,)), CAMERA)
    rear_door = np.array([[CAR.x - CAR.length / 2, CAR.y, 0.5 * CAR.height]])
    ((u, v),) = np.rint(CAMERA.project(rear_door)[0]).astype(int)
    red, green, blue = image[v, u].astype(int)
    assert red > 2 * max(green, blue)
    right_half = image[:, 320:].astype(int)
    assert not ((right_half[..., 0] > 2 * right_half[..., 1]) & (right_half[..., 0] > 100)).any()


def test_what_is_behind_or_the_ego_is_not_drawn():
    bare = RenderScene(surfaces=(ROAD,))
    unseen = replace(bare, boxes=(replace(CAR, x=-20.0), replace(CAR, kind=ObjectType.EGO)))
    expected = render_front_camera(bare, CAMERA)
    drawn = render_front_camera(replace(unseen, boxes=unseen.boxes[:1]), CAMERA)
    np.testing.assert_array_equal(drawn, expected)
    ego = render_front_camera(unseen, CAMERA)[: CAMERA.height // 2]
    np.testing.assert_array_equal(ego, expected[: CAMERA.height // 2])


def count_colour(image: np.ndarray, channel: int) -> int:
    image = image.astype(int)
    others = [c for c in range(3) if c != channel]
    return int(np.count_nonzero(image[..., channel] > 1.6 * image[..., others].max(axis=-1) + 20))


def test_a_van_hides_who_stands_behind_it_but_not_who_stands_beside_it():
    van = Box(ObjectType.VEHICLE, 15.0, -3.0, 0.0, 5.8, 2.1, 2.5, (235, 235, 235))
    walker = Box(ObjectType.PEDESTRIAN, 15.0, -1.7, 1.57, 0.6, 0.6, 1.75, (30, 40, 240))
    beside = [
        count_colour(render_front_camera(RenderScene(boxes=boxes), CAMERA), 2)
        for boxes in ((van, walker), (walker, van))
    ]
    alone = count_colour(render_front_camera(RenderScene(boxes=(walker,)), CAMERA), 2)
    assert min(beside) > 0.9 * alone > 50
    hidden = replace(walker, x=18.6, y=-3.6)
    for boxes in ((van, hidden), (hidden, van)):
        assert count_colour(render_front_camera(RenderScene(boxes=boxes), CAMERA), 2) == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(5, 60), st.floats(-20, 20), st.floats(-3, 3)), min_size=2, max_size=12))
def test_painters_order_is_a_permutation_that_puts_the_nearer_of_two_small_things_last(places):
    footprints = np.array([(*place, 0.1, 0.1) for place in places])
    order = painters_order(footprints, np.zeros(2))
    assert sorted(order) == list(range(len(places)))
    pair = painters_order(np.array([[30.0, 0.0, 0.2, 4.0, 2.0], [12.0, 0.3, 0.0, 4.0, 2.0]]), np.zeros(2))
    assert pair.tolist() == [0, 1]


@pytest.mark.parametrize(("state", "channel"), [(LightState.RED, 0), (LightState.GREEN, 1)])
def test_lamp_of_the_traffic_light_shows_its_state_to_the_traffic_it_stops(state, channel):
    towards = RenderScene(surfaces=(ROAD,), traffic_lights=(TrafficLight(20.0, -3.0, 0.0, state),))
    away = RenderScene(surfaces=(ROAD,), traffic_lights=(TrafficLight(20.0, -3.0, np.pi, state),))
    region = np.s_[: int(CAMERA.intrinsic[1, 2]) - 20, 320:]
    glow = [count_colour(render_front_camera(view, CAMERA)[region][..., :], channel) for view in (towards, away)]
    assert glow[0] > 40
    assert glow[1] == 0


def test_brake_lights_are_seen_from_behind_only_and_where_the_rear_is():
    def image(heading, braking):
        car = replace(CAR, heading=heading, braking=braking, colour=(90, 95, 100))
        return render_front_camera(RenderScene(surfaces=(ROAD,), boxes=(car,)), CAMERA)

    assert count_colour(image(0.0, True), 0) > 1.5 * count_colour(image(0.0, False), 0) > 0
    assert count_colour(image(np.pi, True), 0) == 0
    for heading in (-0.6, 0.6):
        lamps = box_corners(replace(CAR, heading=heading, width=0.93 * CAR.width, height=0.75))[[1, 3]]
        red = np.nonzero(np.abs(image(heading, True).astype(int) - [255, 30, 20]).max(axis=-1) < 60)[1]
        np.testing.assert_allclose([red.max(), red.min()], CAMERA.project(lamps)[0][:, 0], atol=2)


def test_a_tilted_camera_draws_and_lens_distortion_is_refused():
    roll = cv2.Rodrigues(np.array([0.15, 0.1, 0.0]))[0]
    tilted = camera_at(rotation=roll @ LOOKING_AHEAD).resized(320, 180)
    image = render_front_camera(RenderScene(surfaces=(ROAD,), boxes=(CAR,)), tilted)
    ((u, v),) = np.rint(tilted.project(np.array([[40.0, 0.0, 0.0]]))[0]).astype(int)
    asphalt = image[v + 3, u].astype(int)
    assert asphalt.max() - asphalt.min() < 15
    with pytest.raises(MTDriveError, match="distortion"):
        render_front_camera(RenderScene(), replace(CAMERA, distortion=NUPLAN_DISTORTION))
