"""Compiled geometry against shapely, and the metrics on small hand-made scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import savgol_filter

from mtdrive.simulation.geometry.frames import box_corners
from mtdrive.simulation.geometry.polygons import pack, unpack
from mtdrive.simulation.metrics import geometry
from mtdrive.simulation.metrics.areas import find_areas
from mtdrive.simulation.metrics.collisions import CollisionKind
from mtdrive.simulation.metrics.comfort import LOWER, QUANTITIES, UPPER, comfort
from mtdrive.simulation.metrics.history_comfort import history_comfort
from mtdrive.simulation.metrics.motion import build_motion
from mtdrive.simulation.metrics.polygon_index import build_polygon_index, mark_contained
from mtdrive.simulation.metrics.surroundings import prepare_surroundings
from mtdrive.simulation.scene import DrivableMap, MapLayer, ObjectType, Scene
from mtdrive.simulation.scoring import Scores, score_states
from support.scenes import LANE_WIDTH, RoadObject, cruise, polygons, rectangle, straight_scene

coordinate = st.floats(-8.0, 8.0)
half = st.floats(0.2, 4.0)
boxes = st.tuples(coordinate, coordinate, st.floats(-4.0, 4.0), half, half)
cells = st.integers(-4, 4)


def as_polygon(box: tuple[float, ...]) -> shapely.Polygon:
    x, y, heading, length, width = box
    return shapely.Polygon(box_corners(np.array([x, y, heading]), np.array([2 * length, 2 * width])))


def unpacked(box: tuple[float, ...]) -> tuple[float, ...]:
    x, y, heading, length, width = box
    return x, y, np.cos(heading), np.sin(heading), length, width


def is_touching(one: shapely.Geometry, other: shapely.Geometry) -> bool:
    """Too close to contact for floating point to decide."""
    return one.boundary.distance(other.boundary) < 1e-9 and one.intersection(other).area < 1e-6


@settings(max_examples=300, deadline=None)
@given(boxes, boxes)
def test_boxes_overlap_as_in_shapely(one, other):
    polygons = as_polygon(one), as_polygon(other)
    assume(not is_touching(*polygons))
    assert geometry.boxes_overlap(*unpacked(one), *unpacked(other)) == polygons[0].intersects(polygons[1])


@pytest.mark.parametrize(("gap", "overlap"), [(0.0, True), (1e-9, False)])
def test_boxes_that_touch_overlap(gap: float, overlap: bool):
    assert geometry.boxes_overlap(0.0, 0.0, 1.0, 0.0, 2.0, 1.0, 3.0 + gap, 2.0, 1.0, 0.0, 1.0, 1.0) == overlap


@st.composite
def rings(draw) -> shapely.Polygon:
    """A simple polygon on whole coordinates, with a hole where it has room."""
    points = draw(st.lists(st.tuples(cells, cells), min_size=3, max_size=9, unique=True))
    angles = np.arctan2(*(np.array(points) - np.mean(points, axis=0) - 0.01).T)
    polygon = shapely.Polygon(np.array(points)[np.argsort(angles)])
    assume(polygon.is_valid and polygon.area > 1)
    hole = shapely.box(-1, -1, 1, 1)
    return polygon.difference(hole) if polygon.contains_properly(hole) else polygon


@settings(max_examples=200, deadline=None)
@given(rings())
def test_containment_as_in_shapely_boundary_outside(polygon):
    index = build_polygon_index(
        DrivableMap(pack(np.array([polygon])), np.zeros(1, np.int8), np.array(["1"]), np.array([True]))
    )
    grid = np.arange(-5.0, 5.25, 0.25)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    inside = np.empty(len(points), dtype=bool)
    mark_contained(index, 0, points, inside)
    np.testing.assert_array_equal(inside, shapely.contains_xy(polygon, points))


@st.composite
def maps(draw) -> DrivableMap:
    """Overlapping bent roads of up to 400 vertices, in any direction, lane polygons on and off the route among them."""
    roads = []
    for _ in range(draw(st.integers(1, 6))):
        points, bend, turn = draw(st.integers(2, 200)), draw(st.floats(-0.02, 0.02)), draw(st.floats(-4.0, 4.0))
        along = np.linspace(-60.0, 60.0, points)
        heading = turn + bend * along
        steps = np.diff(along, prepend=along[0])
        middle = np.cumsum(np.column_stack([steps * np.cos(heading), steps * np.sin(heading)]), axis=0)
        middle += draw(st.tuples(coordinate, coordinate)) - middle[points // 2]
        side = draw(half) * np.column_stack([-np.sin(heading), np.cos(heading)])
        roads.append(shapely.Polygon(np.concatenate([middle + side, (middle - side)[::-1]])))
    assume(all(road.is_valid for road in roads))
    layers = draw(st.lists(st.sampled_from(MapLayer), min_size=len(roads), max_size=len(roads)))
    on_route = draw(st.lists(st.booleans(), min_size=len(roads), max_size=len(roads)))
    ids = np.arange(len(roads)).astype(str)
    return DrivableMap(pack(np.array(roads)), np.array(layers, dtype=np.int8), ids, np.array(on_route))


@settings(max_examples=200, deadline=None)
@given(maps(), st.integers(0, 2**32 - 1))
def test_areas_as_in_shapely(drivable_map, seed):
    """Footprints of a random drive, asked polygon by polygon."""
    random = np.random.default_rng(seed)
    poses = np.cumsum(random.normal(size=(2, 20, 3)) * [4.0, 4.0, 0.3], axis=1)
    points = np.concatenate([box_corners(poses, np.array([5.0, 2.0])), poses[..., None, :2]], axis=2)
    roads = unpack(drivable_map.polygons)
    assume(shapely.distance(shapely.boundary(roads)[:, None], shapely.points(points.reshape(-1, 2))).min() > 1e-9)

    inside = np.array([shapely.contains_xy(road, points[..., 0], points[..., 1]) for road in roads])  # (P, N, S, 5)
    layer, corners, centre = drivable_map.layer, inside[..., :4], inside[..., 4]
    is_lane = np.isin(layer, [MapLayer.LANE, MapLayer.LANE_CONNECTOR])
    is_road = np.isin(layer, [MapLayer.ROADBLOCK, MapLayer.INTERSECTION, MapLayer.CARPARK_AREA, MapLayer.DRIVABLE_AREA])
    lanes = corners[is_lane]
    areas = find_areas(points, build_polygon_index(drivable_map))
    several = (lanes.any(axis=-1).sum(axis=0) > 1) & ~lanes.all(axis=-1).any(axis=0)
    np.testing.assert_array_equal(areas.multiple_lanes, several)
    np.testing.assert_array_equal(areas.off_road, ~corners[is_road].any(axis=0) @ [1, 2, 4, 8])
    np.testing.assert_array_equal(areas.off_route, ~centre[is_lane & drivable_map.on_route].any(axis=0))
    np.testing.assert_array_equal(areas.in_intersection, centre[layer == MapLayer.INTERSECTION].any(axis=0))


@settings(max_examples=300, deadline=None)
@given(boxes, rings())
def test_box_meets_polygon_as_in_shapely(box, polygon):
    footprint, flat = as_polygon(box), pack(np.array([polygon]))
    assume(not is_touching(footprint, polygon))
    assert geometry.box_meets_polygon(*unpacked(box), flat.xy, flat.ring_start) == footprint.intersects(polygon)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=2, max_size=9, unique=True), coordinate, coordinate)
def test_projection_as_in_shapely(vertices, x, y):
    line, point = shapely.LineString(vertices), shapely.Point(x, y)
    position, distance = geometry.project_on_line(np.array(vertices), x, y)
    assert distance == pytest.approx(line.distance(point), abs=1e-9)
    assert line.interpolate(position).distance(point) == pytest.approx(distance, abs=1e-6)
    for limit in (distance * 0.999, distance * 1.001 + 1e-9) if distance > 1e-6 else (1e-3,):
        found = geometry.nearby_segment(np.array(vertices), x, y, limit, len(vertices) // 2)
        assert (found >= 0) == (distance <= limit)


def drive(scene: Scene, metric: str = "pdms_v1", *, states: np.ndarray) -> Scores:
    """Score simulated states in a hand-made scene, against a reference that covers 32 m."""
    observation = scene.observations[metric]
    return score_states(states[None], observation, scene.drivable_map, scene.centerline, metric, 32.0)


def with_polygon(scene: Scene, layer: MapLayer, shell: np.ndarray) -> Scene:
    """The scene with one more polygon on its map."""
    old = scene.drivable_map
    shells = [old.polygons.xy[a : b - 1] for a, b in zip(old.polygons.ring_start, old.polygons.ring_start[1:])]
    return replace(
        scene,
        drivable_map=DrivableMap(
            polygons=polygons(*shells, shell),
            layer=np.append(old.layer, layer).astype(np.int8),
            ids=np.append(old.ids, "added"),
            on_route=np.append(old.on_route, False),
        ),
    )


CRUISE = cruise(32.0, 8.0)
STANDING = cruise(0.0, 0.0)
FROM_THE_SIDE = RoadObject(0.0, 8.0, -0.6, 8.0 / np.cos(0.6), length=2.0, width=1.0)  # keeps pace and closes in


@pytest.mark.parametrize(
    ("objects", "states", "value", "kind"),
    [
        ([RoadObject(20.0, speed=1.0)], CRUISE, 0.0, CollisionKind.FRONT),
        ([RoadObject(20.0)], CRUISE, 0.0, CollisionKind.STOPPED_TRACK),
        ([RoadObject(20.0, kind=ObjectType.BARRIER)], CRUISE, 0.5, CollisionKind.STOPPED_TRACK),
        ([RoadObject(20.0), RoadObject(30.0, kind=ObjectType.BARRIER)], CRUISE, 0.0, CollisionKind.STOPPED_TRACK),
        ([RoadObject(-15.0, speed=14.0)], CRUISE, 1.0, None),  # rear-ended
        ([RoadObject(15.0, heading=np.pi, speed=6.0)], STANDING, 1.0, None),  # hit while standing
        ([FROM_THE_SIDE], CRUISE, 1.0, None),  # while the ego is in its lane
    ],
)
def test_collisions(objects, states, value, kind):
    scores = drive(straight_scene(objects), states=states)
    assert scores.columns["no_at_fault_collisions"][0] == value
    assert scores.events["collision_kind"][0] == (-1 if kind is None else kind)
    assert np.isfinite(scores.events["collision_time"][0]) == (kind is not None)


def test_lateral_collision_counts_between_lanes():
    """Astride a lane marking, unless some other lane holds the whole footprint."""
    states = CRUISE.copy()
    states[:, 1] = LANE_WIDTH / 2
    scene = straight_scene([FROM_THE_SIDE])
    scores = drive(scene, states=states)
    assert scores.events["collision_kind"][0] == CollisionKind.LATERAL
    assert scores.columns["no_at_fault_collisions"][0] == 0.0
    scene = with_polygon(scene, MapLayer.LANE_CONNECTOR, rectangle(-60.0, -2.0, 160.0, 6.0))
    assert drive(scene, states=states).columns["no_at_fault_collisions"][0] == 1.0


def test_time_to_collision_counts_the_side_in_intersections():
    beside = RoadObject(0.5, 8.0, -1.2, 1.0 / np.cos(1.2), length=2.0, width=1.0)  # keeps pace with 1 m/s, closes in
    scene, states = straight_scene([beside]), cruise(4.0, 1.0)
    assert drive(scene, states=states).columns["time_to_collision_within_bound"][0] == 1.0
    scene = with_polygon(scene, MapLayer.INTERSECTION, rectangle(-60.0, -2.0, 160.0, 6.0))
    assert drive(scene, states=states).columns["time_to_collision_within_bound"][0] == 0.0


def test_ignored_and_absent_objects_never_collide():
    scene = straight_scene([RoadObject(20.0), RoadObject(25.0)])
    observation = scene.observations["pdms_v1"]
    present = observation.present.copy()
    present[:, 1] = False
    observation = replace(observation, ignored=np.array([True, False]), present=present)
    scores = drive(replace(scene, observations={"pdms_v1": observation}), states=CRUISE)
    assert scores.columns["no_at_fault_collisions"][0] == scores.columns["time_to_collision_within_bound"][0] == 1.0


@pytest.mark.parametrize(("metric", "last"), [("pdms_v1", 4.0), ("epdms_v2", 3.1)])
def test_time_to_collision_looks_a_second_ahead(metric: str, last: float):
    """At 8 m/s, bumper to bumper 7.2 m (0.9 s) at the last step touches, a little more does not."""
    ahead = 4.049 + 4.6 / 2 + 8.0 * last + 7.2
    for gap, value in ((-1e-6, 0.0), (1e-6, 1.0)):
        scores = drive(straight_scene([RoadObject(ahead + gap, speed=1e-12)]), metric, states=CRUISE)
        assert scores.columns["time_to_collision_within_bound"][0] == value
        assert scores.events["ttc_time"][0] == (pytest.approx(last) if value == 0.0 else np.inf)


def test_time_to_collision_does_not_ask_a_standing_ego():
    scene = straight_scene([RoadObject(15.0, heading=np.pi, speed=6.0)])
    assert drive(scene, states=STANDING).columns["time_to_collision_within_bound"][0] == 1.0


def test_drivable_area_names_time_and_corner():
    states = CRUISE.copy()
    states[20:, 1] = -1.0  # the right-hand side leaves the road
    scores = drive(straight_scene(), states=states)
    assert scores.columns["drivable_area_compliance"][0] == 0.0
    assert scores.events["off_road_time"][0] == pytest.approx(2.0)
    assert scores.events["off_road_corner"][0] == 2


@pytest.mark.parametrize(("speed", "value"), [(1.7, 1.0), (1.9, 0.5), (5.3, 0.5), (5.5, 0.0)])
def test_driving_direction_sums_eleven_steps(speed, value):
    states = cruise(4 * speed, speed)
    states[:, 1] = LANE_WIDTH
    assert drive(straight_scene(), states=states).columns["driving_direction_compliance"][0] == value


def test_comfort_bounds_are_strict_and_peaks_signed():
    states = cruise(32.0 - 8 * 4.05, 8.0)
    scores = drive(straight_scene(), states=states)
    assert scores.events["comfort_peak"][0, 0] == pytest.approx(-4.05)
    assert not scores.events["comfort_ok"][0, 0]
    assert scores.events["comfort_ok"][0, 1:].all()


@pytest.mark.parametrize("with_past", [False, True])
def test_comfort_quantities_are_scipys(with_past: bool):
    """v1 over the plan alone, v2.2 over past and plan, each with the windows of the official code."""
    random = np.random.default_rng(7)
    states = random.normal(size=(3, 56 if with_past else 41, 11)) * [1, 1, 0.2, 1, 1, 1, 1, 1, 1, 0.1, 0.3]
    past, plan = states[0, :-41], states[:, -41:]
    states[:, :-41] = past
    longitudinal, magnitude = states[..., 5], np.hypot(states[..., 5], states[..., 6])
    if with_past:
        longitudinal = longitudinal + 1.461 * (states[..., 9] ** 2 + states[..., 10])
    smoothing, jerk = (8, 15) if with_past else (41, 41)

    def filtered(series: np.ndarray, window: int, order: int, derivative: int = 0) -> np.ndarray:
        return savgol_filter(series, window, order, deriv=derivative, delta=0.1, axis=-1)

    headings = np.unwrap(states[..., 2])
    series = [
        filtered(longitudinal, smoothing, 2),
        filtered(states[..., 6], smoothing, 2),
        filtered(filtered(magnitude, 8, 2), jerk, 2, 1),
        filtered(filtered(longitudinal, 8, 2), jerk, 2, 1),
        filtered(headings, 5, 3, 2),
        filtered(headings, 5, 2, 1),
    ]
    scene = straight_scene()
    surroundings = prepare_surroundings(
        scene.observations["epdms_v2"], scene.drivable_map, scene.centerline, past if with_past else None
    )
    motion = build_motion(np.ascontiguousarray(plan), surroundings.polygon_index)
    events = (history_comfort if with_past else comfort)(motion, surroundings).events
    for quantity, values in enumerate(series):
        share = np.where(values > 0, values / UPPER[quantity], values / LOWER[quantity])
        peaks = np.take_along_axis(values, share.argmax(axis=1)[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(events["comfort_peak"][:, quantity], peaks, atol=1e-6, err_msg=QUANTITIES[quantity])
        np.testing.assert_array_equal(events["comfort_ok"][:, quantity], share.max(axis=1) < 1)


def test_lane_keeping_passes_over_intersections_without_reset():
    """The first 19 deviating steps and one after the intersection make 20 in a row."""
    states = cruise(32.0, 8.0)
    states[:, 1] = 0.51
    first_20 = states[19, 0] + 1.461 - 0.1
    intersections = [rectangle(first_20, -10.0, end, 10.0) for end in (states[39, 0] + 1.561, 100.0)]
    scene, kept = (with_polygon(straight_scene(), MapLayer.INTERSECTION, shell) for shell in intersections)
    assert drive(scene, "epdms_v2", states=states).events["lane_keeping_time"][0] == pytest.approx(4.0)
    assert drive(kept, "epdms_v2", states=states).columns["lane_keeping"][0] == 1.0


def test_red_light_counts_on_touch_while_red():
    scene = straight_scene()
    stop = CRUISE[10, 0] + 4.049  # the front bumper after a second
    observation = replace(
        scene.observations["epdms_v2"],
        light_ids=np.array(["7"]),
        light_polygons=polygons(rectangle(stop, -2.0, stop + 60.0, 2.0)),
        light_red=np.arange(41)[:, None] >= 12,
    )
    scores = drive(replace(scene, observations={"epdms_v2": observation}), "epdms_v2", states=CRUISE)
    assert scores.columns["traffic_light_compliance"][0] == 0.0
    assert scores.events["red_light_time"][0] == pytest.approx(1.2)
