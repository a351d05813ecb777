"""The synthetic world: deterministic, in NAVSIM's format, drivable, and surprising where it says so."""

import json
import pickle
import sqlite3
from dataclasses import replace

import numpy as np
import pyproj
import pytest
import shapely
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.commands import synth
from mtdrive.settings import load_settings
from mtdrive.simulation.baselines import human_plan
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.logs import ego_dynamics, ego_poses, read_log
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import score
from mtdrive.simulation.synthetic.agents import NOW, TIMES, travelled
from mtdrive.simulation.synthetic.collisions import boxes_touch
from mtdrive.simulation.synthetic.curves import Curve, band, connect
from mtdrive.simulation.synthetic.driver import boxes, footprint
from mtdrive.simulation.synthetic.families import FAMILIES
from mtdrive.simulation.synthetic.map_files import LAYERS, pack_geometry
from mtdrive.simulation.synthetic.placement import LOCATIONS, Placement
from mtdrive.simulation.synthetic.recording import Surprise, record
from mtdrive.simulation.synthetic.roads import crossroads, side_road
from mtdrive.simulation.synthetic.scenes import SPLITS, WorldConfig, build_scene, choose_family
from mtdrive.simulation.synthetic.world import write_world
from mtdrive.simulation.vehicle import LENGTH, REAR_AXLE_TO_CENTER, WIDTH

MIX = {name: (1.0, 0.5 if name != "plain" else 0.0) for name in FAMILIES}
SCENES = {"train": 2, "test": 24}


@pytest.fixture(scope="module")
def config() -> WorldConfig:
    return WorldConfig(seed=5, scenes=SCENES, families=MIX, images=False)


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    """A world of 26 scenes over all families, without images, written by two processes."""
    root = tmp_path_factory.mktemp("synthetic") / "world"
    return root, write_world(config, root, workers=2)


def tree(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- determinism and refusals ---------------------------------------------------------------------------------------


def test_the_world_does_not_depend_on_the_number_of_processes_or_of_scenes(made, config, tmp_path):
    root, records = made
    fewer = replace(config, scenes={"train": 2, "test": 3})
    again = write_world(fewer, tmp_path / "again", workers=1)
    assert [scene.token for scene in again] == [scene.token for scene in records[:5]]
    whole = tree(root)
    for path, content in tree(tmp_path / "again" / "navsim_logs").items():
        assert whole["navsim_logs" / path] == content
    first_test_scene = choose_and_build(replace(config, seed=6))
    assert not np.array_equal(first_test_scene.plan.poses, choose_and_build(config).plan.poses)


def choose_and_build(config):
    return build_scene(config, SPLITS.index("test"), 0)[0]


def test_an_existing_world_is_kept_and_anything_else_refused(made, config, tmp_path):
    root, records = made
    before = tree(root)
    assert [scene.token for scene in write_world(config, root, workers=1)] == [scene.token for scene in records]
    assert tree(root) == before
    with pytest.raises(MTDriveError, match="another configuration"):
        write_world(replace(config, seed=9), root, workers=1)
    with pytest.raises(MTDriveError, match="no synthetic world"):
        write_world(config, tmp_path, workers=1)
    with pytest.raises(MTDriveError, match="'flying'"):
        write_world(replace(config, families={"flying": (1.0, 0.0)}), tmp_path / "new", workers=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("override", ["scenes_test=-1", "families.plain.hidden=2", "image_size=[0,3]"])
def test_the_command_refuses_bad_values(override, tmp_path):
    with pytest.raises(MTDriveError):
        synth.run(load_settings("synth", [f"out={tmp_path / 'w'}", override]))


def test_families_and_hidden_dangers_keep_their_shares(config):
    chosen = [choose_family(config, 0, number) for number in range(2200)]
    for name, (_, hidden) in MIX.items():
        flags = [flag for family, flag in chosen if family == name]
        assert len(flags) == pytest.approx(200, abs=12)
        assert np.mean(flags) == pytest.approx(hidden, abs=0.06)


# --- what is on disk ------------------------------------------------------------------------------------------------


def test_maps_are_geopackages_with_all_layers_in_degrees(made):
    root, _ = made
    versions = json.loads((root / "maps/nuplan-maps-v1.0.json").read_text())
    for location in LOCATIONS:
        assert versions[location.name] == {"version": location.version, "layers": {}}
        database = sqlite3.connect(root / "maps" / location.name / location.version / "map.gpkg")
        assert database.execute("PRAGMA application_id").fetchone()[0] == int.from_bytes(b"GPKG", "big")
        listed = {row[0] for row in database.execute("SELECT table_name FROM gpkg_contents")}
        assert listed == {*LAYERS, "meta"}
        meta = dict(database.execute("SELECT key, value FROM meta"))
        assert meta["projectedCoordSystem"] == f"epsg:{location.epsg}"
        (blob,) = database.execute("SELECT geom FROM lanes_polygons").fetchone()
        polygon = shapely.from_wkb(blob[40:])
        to_utm = pyproj.Transformer.from_crs(4326, location.epsg, always_xy=True)
        x, y = to_utm.transform(*polygon.exterior.coords[0])
        assert polygon.is_valid
        assert np.hypot(x - location.origin[0], y - location.origin[1]) < 5_000
        database.close()


def test_a_geometry_blob_is_header_envelope_and_wkb():
    ring = np.array([[1.0, 2.0], [4.0, 2.0], [4.0, 6.0], [1.0, 2.0]])
    blob = pack_geometry("POLYGON", ring)
    assert blob[:8] == b"GP\x00\x03\xe6\x10\x00\x00"
    assert np.frombuffer(blob[8:40]).tolist() == [1.0, 4.0, 2.0, 6.0]
    assert shapely.from_wkb(blob[40:]).equals(shapely.Polygon(ring))


def test_logs_share_nothing_between_splits_and_hold_one_scene_each(made):
    root, records = made
    tokens = [set() for _ in SPLITS]
    for scene in records:
        frames = read_log(root / "navsim_logs" / scene.split / f"{scene.log_name}.pkl")
        assert len(frames) == 14
        assert frames[3]["token"] == scene.token
        assert set(frames[3]["cams"]) == {f"CAM_{name}" for name in ("F0", "L0", "L1", "L2", "R0", "R1", "R2", "B0")}
        tokens[SPLITS.index(scene.split)] |= {frame["token"] for frame in frames}
    assert not tokens[0] & tokens[2]
    assert len(tokens[2]) == 14 * SCENES["test"]


def test_adjacent_frames_are_two_scenes_of_the_same_drive(made, config, tmp_path):
    root, records = made
    two = write_world(replace(config, scenes={"test": 8}, adjacent_frames=True), tmp_path / "two", workers=1)
    alone = [scene for scene in records if scene.split == "test"][:8]
    assert [scene.token for scene in two[::2]] == [scene.token for scene in alone]
    assert [scene.follows for scene in two[1::2]] == [scene.token for scene in two[::2]]
    scene_filter = tmp_path / "two/train_test_split/scene_filter/synthetic_test.yaml"
    chosen = yaml.load(scene_filter.read_text(), yaml.BaseLoader)
    assert chosen["tokens"] == [scene.token for scene in two]
    assert chosen["log_names"] == [scene.log_name for scene in alone]
    for before, scene in zip(two[::2], two[1::2], strict=True):
        frames = read_log(tmp_path / "two/navsim_logs/test" / f"{scene.log_name}.pkl")
        plain = read_log(root / "navsim_logs/test" / f"{scene.log_name}.pkl")
        assert [frame["token"] for frame in frames[3:5]] == [before.token, scene.token]
        assert pickle.dumps(frames[:13]) == pickle.dumps(plain[:13])
        poses, speed = ego_poses(frames), ego_dynamics(frames)[0][:, 0]
        assert np.hypot(*(poses[-1] - poses[-2])[:2]) == pytest.approx(0.5 * speed[-1])
        last, appended = (dict(zip(f["anns"]["track_tokens"], f["anns"]["gt_names"], strict=True)) for f in frames[-2:])
        assert last == appended


def test_no_two_sites_of_a_map_share_a_place():
    places = [Placement.of(LOCATIONS[0], s, k, len(SPLITS), 0.0) for s in range(3) for k in range(100)]
    xy = np.array([(place.x, place.y) for place in places])
    apart = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(xy))
    assert apart.min() > 300
    assert len({place.first_fid for place in places}) == len(places)


def test_labels_and_poses_of_a_log_tell_the_same_story(made):
    """Speeds are the change of positions, in the ego's frame; left-hand traffic keeps left."""
    root, records = made
    for scene in records:
        frames = pickle.loads((root / "navsim_logs" / scene.split / f"{scene.log_name}.pkl").read_bytes())
        before, now, after = frames[3], frames[4], frames[5]
        moved = (after["ego2global_translation"] - before["ego2global_translation"])[:2]
        assert np.hypot(*moved) == pytest.approx(now["ego_dynamic_state"][0], abs=0.5)
        if np.hypot(*moved) > 1:
            w, _, _, z = now["ego2global_rotation"]
            assert np.cos(2 * np.arctan2(z, w) - np.arctan2(moved[1], moved[0])) > 0.97
        here = dict(zip(now["anns"]["track_tokens"], np.arange(len(now["anns"]["track_tokens"]))))
        for token, box in zip(after["anns"]["track_tokens"], after["anns"]["gt_boxes"], strict=True):
            if token in here:
                start, end = (_place(f, b) for f, b in ((now, now["anns"]["gt_boxes"][here[token]]), (after, box)))
                speed = np.hypot(*now["anns"]["gt_velocity_3d"][here[token], :2])
                assert np.hypot(*(end - start)) == pytest.approx(0.5 * speed, abs=1.2)


def _place(frame, box):
    w, _, _, z = frame["ego2global_rotation"]
    yaw = 2 * np.arctan2(z, w)
    rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return frame["ego2global_translation"][:2] + rotation @ box[:2]


def test_singapore_is_the_mirror_image():
    right, left = (Placement.of(location, 0, 0, 3, 0.4) for location in (LOCATIONS[0], LOCATIONS[3]))
    pose = np.array([10.0, -3.0, 0.2])
    a, b = right.poses(pose), left.poses(pose)
    cos, sin = np.cos(0.4), np.sin(0.4)
    for placed, place, side in ((a, right, -3.0), (b, left, 3.0)):
        local = np.array([[cos, sin], [-sin, cos]]) @ (placed[:2] - (place.x, place.y))
        assert local == pytest.approx([10.0, side])
    assert a[2] == pytest.approx(0.6)
    assert b[2] == pytest.approx(0.2)


# --- what happens ---------------------------------------------------------------------------------------------------


def test_the_human_drives_well_and_hidden_dangers_show_in_the_scores(made, tmp_path):
    root, records = made
    build_caches(root, root / "maps", "test", tmp_path, workers=2)
    store = SceneStore(tmp_path, "test")
    assert sorted(store.tokens) == sorted(scene.token for scene in records if scene.split == "test")
    scenes = [store.load(token) for token in store.tokens]
    human = [score(scene, human_plan(scene)[None, :8]).score[0] for scene in scenes]
    assert np.mean(human) >= 0.95
    assert min(human) >= 0.7
    reference = {
        scene.token: score(scene, scene.references["pdms_v1"].states[None, 1:, :3], 0.1).score[0] for scene in scenes
    }
    hidden = {scene.token: scene.hidden_danger for scene in records}
    surprised = [value for token, value in reference.items() if hidden[token]]
    calm = [value for token, value in reference.items() if not hidden[token]]
    assert len(surprised) >= 0.35 * len(scenes)
    assert np.mean(calm) > 0.9 > 0.6 > np.mean(surprised)


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_touches_the_recorded_ego_and_it_stays_on_the_road(family, config):
    alone = replace(config, families={family: MIX[family]})
    for number in range(4):
        drive, _ = build_scene(alone, 1, number)
        poses, halves, present = boxes(drive.agents)
        centres = drive.plan.poses.copy()
        centres[:, :2] += REAR_AXLE_TO_CENTER * np.column_stack([np.cos(centres[:, 2]), np.sin(centres[:, 2])])
        half = np.array([LENGTH, WIDTH]) / 2
        for agent in range(len(poses)):
            for step in np.flatnonzero(present[agent]):
                assert not boxes_touch(centres[step], half, poses[agent, step], halves[agent])
        assert shapely.contains_xy(drive.situation.site.drivable, footprint(drive.plan.poses).reshape(-1, 2)).all()
        _, hidden = choose_family(alone, 1, number)
        assert (drive.surprise is not Surprise.NONE) == hidden


def test_an_impossible_situation_is_no_drive(config):
    rng = np.random.default_rng(0)
    situation = FAMILIES["lead_braking"](rng, False)
    lead = situation.agents[0]
    poses = lead.poses.copy()
    poses[:] = situation.site.path(situation.route).at(situation.start + 8.0)  # stands just before the bumper
    assert record(replace(situation, agents=[replace(lead, poses=poses)], swerves=()), rng) is None


# --- geometry -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-3.1, 3.1),
    st.floats(15, 40),
    st.floats(8, 30),
    st.one_of(st.floats(0.6, 2.2), st.floats(-2.2, -0.6), st.just(0.0)),
)
def test_connections_meet_both_poses_without_a_kink(heading, before, after, bend):
    corner = before * np.array([np.cos(heading), np.sin(heading)])
    end = corner + after * np.array([np.cos(heading + bend), np.sin(heading + bend)])
    curve = connect((0.0, 0.0, heading), (*end, heading + bend))
    assert curve.xy[0] == pytest.approx([0, 0], abs=1e-9)
    assert curve.xy[-1] == pytest.approx(end, abs=1e-9)
    steps = np.diff(curve.xy, axis=0)
    directions = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    assert abs(directions[0] - heading) < 0.05 or abs(abs(directions[0] - heading) - 2 * np.pi) < 0.05
    assert np.abs(np.diff(directions)).max() < 0.25


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.03, 0.03), st.floats(-8, 8), st.floats(0, 90))
def test_parallels_keep_their_distance_and_project_back(curvature, offset, s):
    curve = Curve.from_curvature([(20, 0.0), (80, curvature)], ramp=10.0)
    side = curve.parallel(offset)
    place = curve.at(s, offset)[:2]
    assert shapely.LineString(side.xy).distance(shapely.Point(place)) < 0.02
    assert curve.project(place) == pytest.approx(s, abs=0.15)
    assert curve.reversed().at(curve.length - s)[:2] == pytest.approx(curve.at(s)[:2], abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_lanes_of_a_junction_join_and_the_ego_fits_through(seed):
    rng = np.random.default_rng(seed)
    site = crossroads(rng, limit=9.0, signals=True, main=2, cross=1) if seed % 2 else side_road(rng, limit=9.0)
    for connector in site.connectors.values():
        start, end = site.lanes[connector.start].curve, site.lanes[connector.end].curve
        assert connector.curve.xy[0] == pytest.approx(start.xy[-1])
        assert connector.curve.xy[-1] == pytest.approx(end.xy[0])
        swept = shapely.Polygon(band(connector.curve, WIDTH / 2, -WIDTH / 2))
        assert swept.difference(site.drivable).area < 0.01
    for ring in [*site.groups.values(), *site.intersections.values()]:
        assert shapely.Polygon(ring).is_valid


def test_travel_is_the_integral_of_speed():
    s = travelled(5.0, 10.0, [(1.0, -4.0)])
    assert s[NOW] == 5.0
    assert s[0] == pytest.approx(5.0 - 15.0)
    stopped = 5.0 + 10.0 + 10.0**2 / 8
    assert s[TIMES > 3.6] == pytest.approx(stopped, abs=0.3)
    assert (np.diff(s) >= 0).all()
