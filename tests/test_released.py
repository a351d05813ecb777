"""The released MTDrive checkpoints: their prompt and answers, and folders of their layout through the verbs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants as hub
import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file

from mtdrive.cli import main
from mtdrive.navsim_bridge.planning import Bridge, BridgeSettings
from mtdrive.planner.answer import AnswerError, format_answer
from mtdrive.planner.card import read_card
from mtdrive.planner.models import load_planner
from mtdrive.planner.processor import PlannerProcessor
from mtdrive.planner.prompt import PROMPTS, SceneView, messages
from mtdrive.planner.recogdrive import parse_answer
from mtdrive.rollout.episode_file import read_episodes
from mtdrive.settings import planner_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.text import render_text
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.scene import DrivingCommand, Scene
from mtdrive.training.sft_trainer import finetune
from support import fine_tuning
from support.navsim_objects import agent_input
from support.planners import tiny_config
from support.released import LIGHT, SUBFOLDERS, released_config, write_released
from support.scenes import straight_scene
from support.stores import save_store

VEL_AND_ACC = PROMPTS["recogdrive_vel_and_acc"]
PLAN = np.array(
    [
        (5.31, 0.06, 0.004),
        (10.67, 0.16, 0.02),
        (16.02, 0.31, 0.03),
        (21.4, 0.5, 0.04),
        (26.79, 0.74, 0.05),
        (32.2, 1.02, 0.0551),
        (37.61, 1.33, 0.0649),
        (43.0, -0.0149, -0.07),
    ]
)
ANSWER = (
    "Here is the planning trajectory [PT, (+5.31, +0.06, 0.0), (+10.67, +0.16, +0.02), (+16.02, +0.31, +0.03), "
    "(+21.40, +0.50, +0.04), (+26.79, +0.74, +0.05), (+32.20, +1.02, +0.06), (+37.61, +1.33, +0.06), "
    "(+43.00, 0.0, -0.07)]."
)
POSE = "(+5.31, +0.06, 0.0)"
USER = """

As an autonomous driving system, predict the vehicle's trajectory based on:
1. Visual perception from front camera view
2. Historical motion context (last 4 timesteps):-t-3: (-12.00, +0.10, +0.02) -t-2: (-8.00, 0.0, 0.0) \
-t-1: (-4.00, 0.0, 0.0) -t-0: (0.0, 0.0, 0.0)
3. Active navigation command: [{command}]{more}
Output requirements:
- Predict 8 future trajectory points
- Each point format: (x:float, y:float, heading:float)
- Use [PT, ...] to encapsulate the trajectory
- Maintain numerical precision to 2 decimal places"""
COMMANDS = ("TURN LEFT", "GO STRAIGHT", "TURN RIGHT", "UNKNOWN")
MORE = "\n4. Current velocity: (+8.00, 0.0)\n5. Current acceleration: (-0.50, +0.10)"


def view(command: DrivingCommand) -> SceneView:
    history = np.array([[-12.0, 0.1, 0.02], [-8.0, 0.0, 0.01], [-4.0, 0.004, -0.01], [0.0, 0.0, 0.0]])
    return SceneView("token", "hash", history, np.array([8.0, -0.01]), np.array([-0.5, 0.1]), command)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    return write_released(tmp_path_factory.mktemp("released") / "mtdrive-models")


@pytest.fixture
def keys(world, repository, tmp_path) -> list[str]:
    """What tells a verb about the world, where to write, and to do without a GPU."""
    small = [f"planner.{key}={value}" for key, value in LIGHT.items()]
    return [*world.overrides(), *small, f"planner.model={repository}", f"out={tmp_path / 'out'}"]


@pytest.mark.parametrize(("style", "more"), [("recogdrive_base", ""), ("recogdrive_vel_and_acc", MORE)])
@pytest.mark.parametrize(("command", "name"), zip(DrivingCommand, COMMANDS, strict=True))
def test_the_prompt_is_recogdrives_to_the_letter(style, more, command, name):
    system, user = messages(view(command), [], PROMPTS[style])
    (text,) = (part["text"] for part in system["content"])
    assert text.startswith("\nYou are a vehicle trajectory prediction model for autonomous driving. Your task is to ")
    assert text.endswith("The better your predictions, the higher your score.\n")
    assert text.count("\n") == 10
    assert user["content"] == [{"type": "image"}, {"type": "text", "text": USER.format(command=name, more=more)}]


def test_later_turns_are_the_answer_and_our_feedback():
    talk = messages(view(DrivingCommand.LEFT), [(ANSWER, "Off road.")], VEL_AND_ACC)
    assert [(message["role"], message["content"][-1]["text"]) for message in talk[2:]] == [
        ("assistant", ANSWER),
        ("user", "Off road."),
    ]


def test_an_answer_is_written_and_read_as_recogdrive_does():
    assert VEL_AND_ACC.format_answer(PLAN) == ANSWER
    np.testing.assert_allclose(VEL_AND_ACC.parse_answer(ANSWER).poses, PLAN, atol=0.0151)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"The car ahead brakes. {ANSWER} Drive safely.", None),
        (ANSWER.removeprefix("Here is the planning trajectory "), None),
        (ANSWER.replace("[PT, ", "[PT"), None),
        (ANSWER.replace("+", ""), None),
        (f"First [PT, {POSE}], then {ANSWER}", None),
        (format_answer(PLAN, 2), None),
        ("", AnswerError.MISSING_PREFIX),
        ("I cannot tell.", AnswerError.MISSING_PREFIX),
        (ANSWER[:-9], AnswerError.NOT_CLOSED),
        (ANSWER.replace(f"{POSE}, ", ""), AnswerError.WRONG_COUNT),
        (ANSWER.replace("+5.31", "nan"), AnswerError.NOT_A_NUMBER),
        (ANSWER.replace("+5.31, ", ""), AnswerError.MALFORMED_POSE),
        (ANSWER.replace("+5.31", "+531.00"), AnswerError.OUT_OF_RANGE),
        ("[PT, [PT, ...]]", AnswerError.MALFORMED_POSE),
    ],
)
def test_the_first_whole_plan_counts_whatever_stands_around_it(text, error):
    parsed = parse_answer(text)
    assert parsed.error is error
    if error is None:
        np.testing.assert_allclose(parsed.poses, PLAN, atol=0.0151)


def test_a_released_folder_loads_whole(repository):
    planners = {name: load_planner(released_config(name, repository)) for name in SUBFOLDERS}
    for name, planner in planners.items():
        assert (planner.style, planner.card.base, planner.card.stages) == (VEL_AND_ACC, SUBFOLDERS[name], ())
        assert planner.parse_answer is parse_answer
        assert isinstance(planner.processor, PlannerProcessor)
        folder = repository / SUBFOLDERS[name]
        shards = sorted(folder.glob("*.safetensors"))
        assert len(shards) > 2
        stored = {key: tensor for shard in shards for key, tensor in load_file(shard).items()}
        assert sum(tensor.numel() for tensor in stored.values()) == planner.model.num_parameters()
        assert torch.equal(planner.model.lm_head.weight, stored["lm_head.weight"].float())
    assert not torch.equal(*(planner.model.lm_head.weight for planner in planners.values()))


def test_a_copy_of_the_subfolder_will_do(repository, tmp_path):
    copy = shutil.copytree(repository / "mtdrive_rl_best", tmp_path / "mine")
    assert load_planner(released_config("mtdrive_rl", copy)).card.base == "mine"
    with pytest.raises(MTDriveError, match=r"holds neither mtdrive_sft/config\.json nor config.json"):
        load_planner(released_config("mtdrive_sft", tmp_path))
    (shard,) = copy.glob("model-00002-of-*.safetensors")
    shard.unlink()
    with pytest.raises(MTDriveError, match=shard.stem):
        load_planner(released_config("mtdrive_rl", copy))


def test_the_hugging_face_name_is_the_subfolder_of_its_snapshot(repository, tmp_path, monkeypatch):
    """As after a download: the hub's cache on disk, and no network."""
    cached = tmp_path / "models--chenchaoxNV--mtdrive-models"
    shutil.copytree(repository / "mtdrive_sft", cached / "snapshots" / "0a1b" / "mtdrive_sft")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0a1b")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    loaded = load_planner(planner_settings("mtdrive_sft", **LIGHT))
    assert loaded.card.base == "chenchaoxNV/mtdrive-models/mtdrive_sft"
    assert torch.equal(
        loaded.model.lm_head.weight, load_planner(released_config("mtdrive_sft", repository)).model.lm_head.weight
    )
    with pytest.raises(MTDriveError, match=r"mtdrive-models has no mtdrive_rl_best/config\.json"):
        load_planner(planner_settings("mtdrive_rl", **LIGHT))
    shutil.rmtree(cached)
    with pytest.raises(MTDriveError, match="Cannot load planner 'chenchaoxNV/mtdrive-models/mtdrive_sft'"):
        load_planner(planner_settings("mtdrive_sft", **LIGHT))


@pytest.mark.parametrize(("name", "dtype"), [("mtdrive_sft", "float32"), ("mtdrive_rl", "bfloat16")])
def test_random_weights_are_evaluated_and_say_nothing(name, dtype, keys, tmp_path, repository):
    keys = [*keys, f"planner={name}", f"planner.dtype={dtype}", "feedback=perceived"]
    keys += ["turns=2", "resamples=10", "baselines=[]"]
    assert main(["evaluate", *keys]) == 0
    header, episodes = read_episodes(tmp_path / "out" / "episodes.jsonl")
    assert (header.planner, header.prompt_style) == (f"{repository}/{SUBFOLDERS[name]}", VEL_AND_ACC.name)
    assert len(episodes) == header.scenes == 4
    assert {turn.error for episode in episodes for turn in episode.turns} <= {*AnswerError}


def test_a_submission_and_an_agent_of_navsim_drive_it(world, keys, repository, tmp_path):
    """Random weights write no plan: what stands in for one is counted."""
    about = [f"{key}=x" for key in ("team_name", "authors", "email", "institution", "country")]
    assert main(["submit", *keys, "planner=mtdrive_sft", *about]) == 0
    submitted = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(submitted["constant_velocity"]) == 4
    settings = BridgeSettings(
        released_config("mtdrive_sft", repository), 1, "pdms_v1", None, Path(), tmp_path / "agent"
    )
    made = Bridge(settings)
    name = logs.log_names(world.data_root, "test")[0]
    windows = logs.scene_windows(logs.read_log(logs.log_path(world.data_root, "test", name)))
    made.plan(agent_input(world.data_root, next(iter(windows.values()))))
    assert (made.made, sum(made.replaced.values())) == (1, 1)


def test_reinforcement_learning_goes_on_from_it(keys, tmp_path):
    keys = [*keys, "planner=mtdrive_rl", "turns=2", "max_steps=1", "scenes_per_step=2", "group_size=2"]
    assert main(["rl", *keys, "max_parse_errors=1.0", "kl=0.1"]) == 0
    card = read_card(tmp_path / "out")
    assert (card.base, card.prompt, [stage.verb for stage in card.stages]) == (
        "mtdrive_rl_best",
        VEL_AND_ACC.name,
        ["rl"],
    )
    load_planner(planner_settings(str(tmp_path / "out")))


def test_supervised_fine_tuning_goes_on_from_it(world, keys, tmp_path, capsys):
    record = ["record", *world.overrides(), "recipe=synthetic", "workers=1"]
    sft = ["sft", *keys, "planner=mtdrive_sft", f"dataset={tmp_path}/data", "max_steps=2", "batch_size=2"]
    assert main([*record, "prompt=full", f"out={tmp_path}/full"]) == 0
    assert main([*sft, f"dataset={tmp_path}/full"]) == 2
    assert "prompt=full, and the planner's is recogdrive_vel_and_acc" in capsys.readouterr().err
    assert main([*record, f"prompt={VEL_AND_ACC.name}", f"out={tmp_path}/data"]) == 0
    assert main([*sft, "logging_steps=1"]) == 0
    assert [stage.verb for stage in read_card(tmp_path / "out").stages] == ["sft"]
    with pytest.raises(MTDriveError, match="learned prompt=recogdrive_vel_and_acc, not prompt=recogdrive_base"):
        load_planner(replace(planner_settings(str(tmp_path / "out")), prompt="recogdrive_base"))


@pytest.fixture
def one_scene(tmp_path) -> Scene:
    """The only scene of a split `test` in `tmp_path`, with its image."""
    image = tmp_path / "sensor_blobs" / "test" / "front.png"
    image.parent.mkdir(parents=True)
    Image.fromarray(fine_tuning.image(4)).save(image)
    scene = straight_scene()
    scene = replace(scene, camera=replace(scene.camera, image=image.name))
    save_store(tmp_path / "scene_cache", "test", scene)
    return scene


def test_one_that_answers_is_driven_over_several_turns(one_scene, repository, tmp_path):
    """Few weights learn two answers by heart, which are generated, read, scored and commented on like real ones."""
    planner = load_planner(released_config("mtdrive_sft", repository, max_new_tokens=260))
    slow, fast = (np.outer(np.arange(1, 9) / 2, (speed, -0.05, 0.03)) for speed in (5.1, 8.0))
    said = render_text(assess(one_scene, slow[None])[0].feedback)
    seen = SceneView.from_scene(one_scene, "")
    exchanges = [(planner.format_answer(slow), said)]
    samples = [
        {
            "messages": [*planner.messages(seen, before), fine_tuning.answer(planner.format_answer(plan))],
            "image": "4",
            "token": one_scene.token,
        }
        for before, plan in (([], slow), (exchanges, fast))
    ]
    settings = {"max_steps": 120, "per_device_train_batch_size": 2, "lr_scheduler_type": "cosine"}
    finetune(
        planner, Dataset.from_list(samples), None, fine_tuning.read, fine_tuning.arguments(tmp_path / "fit", **settings)
    )
    planner.save(tmp_path / "fitted")
    keys = [f"navsim_exp_root={tmp_path}", f"openscene_data_root={tmp_path}", f"out={tmp_path}/out", "resamples=10"]
    assert main(["evaluate", *keys, f"planner={tmp_path}/fitted", "planner.device=cpu", "turns=2", "baselines=[]"]) == 0
    _, (episode,) = read_episodes(tmp_path / "out" / "episodes.jsonl")
    first, second = episode.turns
    for turn, learned in ((first, slow), (second, fast)):
        assert turn.text == planner.format_answer(turn.poses)
        np.testing.assert_allclose(turn.poses[:, 0], learned[:, 0], atol=0.0051)
    assert first.feedback_text == said
    assert first.score < 0.95 < second.score


def test_a_subfolder_of_a_trained_planners_folder_is_one_too(tmp_path):
    load_planner(tiny_config()).save(tmp_path / "runs" / "sft")
    loaded = load_planner(planner_settings(str(tmp_path / "runs"), subfolder="sft"))
    assert loaded.card.base == "tiny, seed 0"
