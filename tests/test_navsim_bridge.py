"""The agent for navsim's scripts. navsim is not installed here: stand-ins for its classes have the fields read.

`tools/bridge_parity.py` runs the agent in the official scripts; docs/navsim.md says when it last did and what came out.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from setuptools import find_namespace_packages

from mtdrive.navsim_bridge.inputs import as_rgb, sight_of
from mtdrive.navsim_bridge.planning import Bridge, BridgeSettings
from mtdrive.navsim_bridge.present import present_scene
from mtdrive.planner.prompt import PROMPTS, SceneView, user_text
from mtdrive.simulation.baselines import constant_velocity_plan
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.images import decode_image
from mtdrive.simulation.scene_cache.store import SceneStore
from support.navsim_objects import agent_input, navsim_scene
from support.planners import tiny_config
from support.reference import DATA_ROOT

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def windows(world) -> dict:
    """Frames of the world's test scenes by token."""
    found = {}
    for name in logs.log_names(world.data_root, "test"):
        found |= logs.scene_windows(logs.read_log(logs.log_path(world.data_root, "test", name)))
    return found


@pytest.fixture(scope="module")
def store(world) -> SceneStore:
    return SceneStore(world.exp_root / "scene_cache", "test")


def test_the_official_loaders_image_is_ours_byte_for_byte(world):
    paths = [*(world.data_root / "sensor_blobs" / "test").rglob("*.jpg"), *(DATA_ROOT / "sensor_blobs").rglob("*.jpg")]
    assert len(paths) > 8
    for path in paths:
        np.testing.assert_array_equal(as_rgb(np.array(Image.open(path))), decode_image(path))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_grey_and_transparent_pictures_are_as_our_reader_gives_them(mode, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels[..., 0] if mode == "L" else pixels[..., : len(mode)], mode)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(as_rgb(np.array(Image.open(tmp_path / "a.png"))), decode_image(tmp_path / "a.png"))


def test_other_arrays_are_refused():
    for image in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(MTDriveError, match="neither grey nor RGB"):
            as_rgb(image)


def test_the_prompt_is_that_of_the_compiled_scene(world, windows, store):
    for token, frames in windows.items():
        sight = sight_of(agent_input(world.data_root, frames))
        assert sight.image is not None
        compiled = SceneView.from_scene(store.load(token), sight.view.image_hash)
        for style in PROMPTS.values():
            assert user_text(sight.view, style) == user_text(compiled, style)


def test_another_history_or_no_image_is_named(world, windows):
    given = agent_input(world.data_root, next(iter(windows.values())))
    given.cameras[-1].cam_f0.image = None
    assert sight_of(given).image is None
    given.ego_statuses = given.ego_statuses[1:]
    with pytest.raises(MTDriveError, match="4 frames up to t0, not 3"):
        sight_of(given)


def bridge(world, records: Path, **changes) -> Bridge:
    settings = BridgeSettings(tiny_config(), 1, "pdms_v1", None, world.maps_root, records)
    return Bridge(replace(settings, **changes))


def test_an_unreadable_answer_is_replaced_counted_and_recorded(world, windows, store, tmp_path, caplog):
    made = bridge(world, tmp_path / "records")
    for token, frames in windows.items():
        plan = made.plan(agent_input(world.data_root, frames))
        assert plan.fallback == "missing_prefix"  # the planner has learned nothing
        np.testing.assert_allclose(plan.poses, constant_velocity_plan(store.load(token)))
    assert (made.made, made.replaced) == (len(windows), {"missing_prefix": len(windows)})
    assert f"of {len(windows)} scenes: missing_prefix {len(windows)}" in caplog.text
    lines = [json.loads(line) for line in made.record.read_text().splitlines()]
    assert [line["fallback"] for line in lines] == ["missing_prefix"] * len(windows)
    np.testing.assert_array_equal(lines[-1]["poses"], plan.poses)
    assert len({line["image"] for line in lines}) == len(windows)


def test_a_scene_known_at_t0_gives_the_perceived_feedback_of_the_compiled_one(world, windows, store):
    for token, frames in windows.items():
        compiled, present = store.load(token), present_scene(navsim_scene(frames), world.maps_root)
        plans = np.stack([constant_velocity_plan(compiled), np.zeros((8, 3)), compiled.human_poses[:8]])
        for metric in compiled.observations:
            expected, ours = (assess(s, plans, metric=metric, source="perceived") for s in (compiled, present))
            for one, other in zip(expected, ours, strict=True):
                assert other.feedback == one.feedback
                assert other.clean == one.clean


def test_what_comes_after_t0_is_not_read(world, windows):
    frames = next(iter(windows.values()))
    scene = navsim_scene(frames)
    scene.frames = [*scene.frames[:4], *[None] * 10]
    assert present_scene(scene, world.maps_root).observations


def test_several_turns_need_the_scene_and_do_without_where_it_does_not_compile(world, windows, tmp_path, caplog):
    frames = next(iter(windows.values()))
    made = bridge(world, tmp_path, turns=2)
    assert made.plan(agent_input(world.data_root, frames), navsim_scene(frames)).fallback == "missing_prefix"
    assert made.without_feedback == 0
    scene = navsim_scene(frames)
    scene.scene_metadata.map_name = "atlantis"
    made.plan(agent_input(world.data_root, frames), scene)
    assert (made.made, made.without_feedback) == (2, 1)
    assert "No feedback on a scene" in caplog.text


class AgentOfV1:
    """Takes what navsim v1.1's `AbstractAgent` takes."""

    def __init__(self, requires_scene: bool = False) -> None:
        self.requires_scene = requires_scene


class AgentOfV2:
    """Takes what navsim v2.2's `AbstractAgent` takes."""

    def __init__(self, trajectory_sampling: object, requires_scene: bool = False) -> None:
        assert trajectory_sampling.time_horizon == 4
        self.requires_scene = requires_scene


@pytest.fixture(params=[AgentOfV1, AgentOfV2])
def agent_class(request, monkeypatch):
    """`MTDriveAgent` on stand-ins for the modules of navsim and nuPlan that it imports."""

    def install(name: str, **content: object) -> None:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            package = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, package, sys.modules.get(package, ModuleType(package)))
        vars(sys.modules[name]).update(content)

    sampling = SimpleNamespace
    sensors = SimpleNamespace(build_no_sensors=lambda: SimpleNamespace(cam_f0=False, cam_l0=False))
    trajectory = lambda poses, sampling: SimpleNamespace(poses=poses, trajectory_sampling=sampling)  # noqa: E731
    install("navsim.agents.abstract_agent", AbstractAgent=request.param)
    types = {"AgentInput": object, "Scene": object, "SensorConfig": sensors, "Trajectory": trajectory}
    install("navsim.common.dataclasses", **types)
    install("nuplan.planning.simulation.trajectory.trajectory_sampling", TrajectorySampling=sampling)
    monkeypatch.delitem(sys.modules, "mtdrive.navsim_bridge.agent", raising=False)
    from mtdrive.navsim_bridge.agent import MTDriveAgent

    yield MTDriveAgent
    sys.modules.pop("mtdrive.navsim_bridge.agent", None)


def test_the_agent_fits_both_versions(agent_class, world, windows, tmp_path):
    keys = {"metric": "pdms_v1", "feedback_steps": None, "maps_root": str(world.maps_root), "records": str(tmp_path)}
    agent = agent_class(planner="tiny", planner_keys={"seed": 3}, turns=1, **keys)
    assert not agent.requires_scene
    assert agent_class(planner="tiny", planner_keys=None, turns=2, **keys).requires_scene
    sensors = agent.get_sensor_config()
    assert (sensors.cam_f0, sensors.cam_l0) == ([3], False)
    agent.initialize()
    trajectory = agent.compute_trajectory(agent_input(world.data_root, next(iter(windows.values()))))
    assert trajectory.poses.shape == (8, 3)
    assert (trajectory.trajectory_sampling.time_horizon, trajectory.trajectory_sampling.interval_length) == (4, 0.5)


def test_hydra_finds_the_agent_by_its_name(tmp_path):
    """In a program whose own configuration does not know of us, as navsim's scripts."""
    (tmp_path / "main.yaml").write_text("defaults: [agent: none, _self_]\noutput_dir: out\n")
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "none.yaml").write_text("a: 1\n")
    code = (
        f"import hydra\nwith hydra.initialize_config_dir({str(tmp_path)!r}, version_base=None):\n"
        "    agent = hydra.compose('main', ['agent=mtdrive_agent', 'agent.planner=outputs/sft', "
        "'agent.planner_keys={device: cuda}']).agent\n"
        "print(agent._target_, agent.planner, agent.planner_keys.device, agent.records)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "mtdrive.navsim_bridge.agent.MTDriveAgent",
        "outputs/sft",
        "cuda",
        "out/mtdrive_agent",
    ]


def test_what_hydra_needs_is_installed():
    packages = find_namespace_packages(str(ROOT), include=["mtdrive", "mtdrive.*", "hydra_plugins.*"])
    assert {"hydra_plugins.mtdrive_navsim", "mtdrive.navsim_bridge.config"} <= set(packages)
    setup = (ROOT / "setup.py").read_text()
    assert '"hydra_plugins.*"' in setup
    assert '"mtdrive.navsim_bridge": ["**/*.yaml"]' in setup
    assert (ROOT / "mtdrive/navsim_bridge/config/agent/mtdrive_agent.yaml").is_file()
