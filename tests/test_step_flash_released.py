"""The released Step 3.7 Flash: its images as crops, and a folder of its layout with few weights through the verbs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoProcessor

from mtdrive.cli import main
from mtdrive.planner.card import read_card
from mtdrive.planner.models import Planner, load_planner
from mtdrive.planner.step_flash_crops import CropGrid, StepFlashCropProcessor
from mtdrive.planner.step_flash_processor import StepFlashProcessor
from mtdrive.planner.tokens import encode, expand_image, feedback_delta_ids, model_images
from mtdrive.rollout.encoding import Prompt
from mtdrive.rollout.padded_engine import PaddedEngine
from mtdrive.rollout.sampling import sampling_params
from mtdrive.settings import planner_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.log_probs import Continuation, add_scoring, plain_inputs
from support import fine_tuning
from support.step_flash_released import LAYERS, MTP, write_released
from support.training import load

SIZES = {"view": 728, "crop": 504, "largest": 3024}
LIGHT = {"dtype": "float32", "device": "cpu", "max_new_tokens": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_released(tmp_path_factory.mktemp("released") / "Step-3.7-Flash")


@pytest.fixture(scope="module")
def planner(folder) -> Planner:
    return load_planner(planner_settings("step_flash", model=str(folder), **LIGHT))


def pattern(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 of stripes at three scales."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(7 * x + 3 * y) % 256, x * y // 97 % 256, (x + 2 * y) % 256], -1).astype(np.uint8)


# As transformers' own processor plans, found by running its planning for these sizes.
@pytest.mark.parametrize(
    ("size", "window", "resized", "columns"),
    [
        ((1920, 1080), 504, (2016, 1008), 4),  # a front camera of NAVSIM
        ((640, 480), 0, (640, 480), 0),  # fits the whole view
        ((700, 400), 400, (800, 400), 2),  # fits, but is elongated
        ((729, 700), 504, (1008, 504 * 2), 2),
        ((600, 740), 504, (504, 1008), 1),  # 96 px left over are too few for another column, 236 are not
        ((900, 100), 100, (900, 100), 9),  # very elongated
        ((5000, 4000), 504, (3024, 2520), 6),  # shrunk to 3024 x 2419 first
        ((20, 300), 0, (300, 300), 0),  # so thin that it is padded to a square
    ],
)
def test_where_an_image_is_cropped(size, window, resized, columns):
    grid = CropGrid.of(*size, **SIZES)
    assert (grid.window, grid.columns) == (window, columns)
    assert grid.resized == resized


# Means of what transformers' own processor makes of the same image, with torchvision's resizing done by torch.
@pytest.mark.parametrize(
    ("size", "crops", "of_whole", "of_crops"),
    [((1920, 1080), 8, 0.1776254, 0.1776176), ((900, 100), 9, 0.0644206, 0.0644059), ((300, 20), 0, -1.5931051, None)],
)
def test_pixels_are_those_of_transformers_own_processor(size, crops, of_whole, of_crops):
    inputs = StepFlashCropProcessor()(pattern(*size), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 728, 728)
    assert inputs["pixel_values_local"].shape == (crops, 3, 504, 504)
    assert inputs["num_local_patches"].tolist() == [crops]
    assert float(inputs["pixel_values"].mean()) == pytest.approx(of_whole, abs=5e-4)
    if crops:
        assert float(inputs["pixel_values_local"].mean()) == pytest.approx(of_crops, abs=5e-4)


def test_crops_are_cut_row_by_row_and_have_the_values_of_the_image():
    processor = StepFlashCropProcessor()
    image = np.zeros((1008, 2016, 3), dtype=np.uint8)
    for row in range(2):
        for column in range(4):
            image[504 * row : 504 * (row + 1), 504 * column : 504 * (column + 1)] = 10 * (4 * row + column)
    inputs = processor(image, return_tensors="pt")
    for crop in range(8):
        for channel in range(3):
            expected = (10 * crop / 255 - processor.image_mean[channel]) / processor.image_std[channel]
            values = inputs["pixel_values_local"][crop, channel]
            torch.testing.assert_close(values, torch.full((504, 504), expected))


def test_a_navsim_image_is_836_tokens_in_the_release():
    processor = StepFlashCropProcessor()
    text = processor.image_text(processor(pattern(1920, 1080), return_tensors="pt"), 0)
    row = f"<patch_start>{81 * '<im_patch>'}<patch_end>" * 4
    assert text == f"{row}<patch_newline>{row}<im_start>{169 * '<im_patch>'}<im_end>"
    assert text.count("<") == 836


def test_the_released_layout_loads_whole_without_its_code(folder, planner):
    config = planner.model.config.text_config
    assert config.layer_types == ["full_attention", *["sliding_attention"] * 3, "full_attention"]
    assert config.mlp_layer_types == ["dense", *["sparse"] * 4]
    assert {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()} == {
        "full_attention": 5e6,
        "sliding_attention": 1e4,
    }
    layers = planner.model.model.language_model.layers
    assert [layer.self_attn.num_heads for layer in layers] == [4, 6, 6, 6, 4]
    assert [layer.mlp.routed_scaling_factor for layer in layers[1:]] == [3.0] * 4
    assert [layer.mlp.experts.limit for layer in layers[1:]] == [*[float("inf")] * 3, 7.0]
    stored = load_file(folder / "model.safetensors")
    ahead = {name for name in stored if any(f".layers.{layer}." in name for layer in range(LAYERS, LAYERS + MTP))}
    heads = planner.draft_heads.saved_weights()
    assert len(ahead) == len(heads) == 16 * MTP
    for name, weight in heads.items():
        assert torch.equal(weight, stored[name.replace("language_model.", "")].float())
    kept = sum(tensor.numel() for name, tensor in stored.items() if name not in ahead)
    router_biases = 4 * 8  # which are buffers
    assert kept == planner.model.num_parameters() + router_biases
    assert torch.equal(planner.model.lm_head.weight, stored["lm_head.weight"].float())


def test_weights_that_are_neither_the_models_nor_mtp_are_refused(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    for name in folder.iterdir():
        (tmp_path / name.name).write_bytes(name.read_bytes())
    save_file(
        weights | {f"model.layers.{LAYERS + MTP}.extra.weight": torch.zeros(3)},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(MTDriveError, match=r"layers\.8\.extra"):
        load_planner(planner_settings("step_flash", model=str(tmp_path), **LIGHT))


def test_without_a_configuration_of_images_they_are_as_in_the_release(folder, tmp_path):
    for name in folder.glob("*token*"):
        (tmp_path / name.name).write_bytes(name.read_bytes())
    processor = StepFlashProcessor.from_pretrained(tmp_path)
    assert processor.image_processor.to_dict() == StepFlashCropProcessor().to_dict()


def test_saved_and_loaded_it_is_the_same(planner, tmp_path):
    planner.save(tmp_path)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), StepFlashProcessor)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), StepFlashCropProcessor)
    loaded = load_planner(planner_settings(str(tmp_path)))
    assert loaded.processor.image_processor.to_dict() == planner.processor.image_processor.to_dict()
    assert all(torch.equal(loaded.model.state_dict()[key], value) for key, value in planner.model.state_dict().items())
    first, second = (load(each)["scene0"].prompt for each in (planner, loaded))
    assert np.array_equal(first.ids, second.ids)
    assert all(torch.equal(first.images[name], second.images[name]) for name in first.images)


def test_answers_come_at_once_in_the_tokens_of_the_release(planner):
    sample = fine_tuning.sample(planner, 0, 1)
    ids, mask = encode(planner.processor, sample["messages"])
    text = planner.processor.tokenizer.decode(ids)
    assert text.startswith("<bos><|im_start|>")
    assert text.count("<im_patch>") == 1
    answer = [token for token, on in zip(ids, mask, strict=True) if on]
    assert planner.processor.tokenizer.decode(answer) == sample["messages"][-1]["content"][0]["text"] + "<|im_end|>"
    task = load(planner)["scene0"]
    assert planner.processor.tokenizer.decode(task.prompt.ids).endswith("<|im_start|>assistant\n")
    delta = planner.processor.tokenizer.decode(feedback_delta_ids(planner.processor, "Off road."))
    assert delta == "\n<|im_start|>user\nOff road.<|im_end|>\n<|im_start|>assistant\n"


def prompt_with(planner: Planner, size: tuple[int, int]) -> Prompt:
    """A prompt with an image of this size in place of the scene's."""
    processor = planner.processor
    inputs = dict(processor.image_processor(pattern(*size), return_tensors="pt"))
    ids, _ = encode(processor, fine_tuning.sample(planner, 0, 1)["messages"])
    (ids,) = expand_image(processor, ids, inputs)
    [types] = processor.create_mm_token_type_ids([ids])
    prompt = load(planner)["scene0"].prompt
    return replace(prompt, ids=np.array(ids), token_types=np.array(types), images=model_images(processor, inputs))


def test_the_image_and_each_of_its_crops_reach_the_logits(planner):
    prompt = prompt_with(planner, (150, 100))
    crops = len(prompt.images["pixel_values_local"])
    assert crops == int(prompt.images["num_local_patches"]) == 6
    assert "crop_columns" not in prompt.images
    assert prompt.token_types.sum() == 6 * 1 + 4

    def logits(images) -> torch.Tensor:
        with torch.no_grad():
            return planner.model(input_ids=torch.from_numpy(prompt.ids)[None], **images).logits[0, -1]

    seen = logits(prompt.images)
    for name, index in [("pixel_values", 0), *[("pixel_values_local", crop) for crop in range(crops)]]:
        changed = {key: value.clone() for key, value in prompt.images.items()}
        changed[name][index] = 0.0
        assert not torch.equal(seen, logits(changed)), (name, index)


@pytest.mark.parametrize("sizes", [[(150, 100), (100, 90), (110, 60)], [(100, 90), (90, 100)]], ids=["some", "none"])
def test_scenes_with_many_crops_and_none_share_a_batch(planner, sizes):
    """Each row has the log-probabilities and the answers that it has alone."""
    prompts = [prompt_with(planner, size) for size in sizes]
    assert 0 in [int(prompt.images["num_local_patches"]) for prompt in prompts]
    params = replace(sampling_params(planner.model, planner.processor.tokenizer), temperature=1e-3)
    model = load_planner(planner_settings("step_flash", model=planner.model.name_or_path, **LIGHT)).model
    add_scoring(model, params)
    said = [Continuation(row, np.arange(40, 45), np.ones(5, bool)) for row in range(len(prompts))]
    together, _ = model(**plain_inputs(model, prompts, said))
    alone = [model(**plain_inputs(model, [prompt], [replace(said[0], scene=0)]))[0] for prompt in prompts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    together.sum().backward()
    answers = (
        PaddedEngine(model, params, 3).open(prompts, 1).generate([*range(len(prompts))], [said[0].ids] * len(prompts))
    )
    for (row, answer), prompt in zip(answers, prompts, strict=True):
        ((_, single),) = PaddedEngine(model, params, 3).open([prompt], 1).generate([0], [said[0].ids])
        assert np.array_equal(answer.ids, single.ids), row


def test_the_verbs_train_and_evaluate_it(world, folder, tmp_path):
    """Two steps of SFT with groups of experts, an evaluation over two turns, and a step of reinforcement learning."""
    keys = [*world.overrides(), *(f"planner.{key}={value}" for key, value in LIGHT.items())]
    record = ["record", *world.overrides(), "recipe=synthetic", "prompt=full", "workers=1", f"out={tmp_path}/data"]
    assert main([*record, "split=train"]) == 0
    sft = ["sft", *keys, f"dataset={tmp_path}/data", f"out={tmp_path}/sft", "max_steps=2", "batch_size=2"]
    assert main([*sft, "planner=step_flash", f"planner.model={folder}", "logging_steps=1", "experts.groups=4"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "sft" / "log.jsonl").read_text().splitlines()]
    assert "experts/largest_group_share" in next(line for line in lines if "loss" in line)
    trained = [*keys, f"planner={tmp_path}/sft", "turns=2"]
    assert main(["evaluate", *trained, "split=test", "resamples=10", "baselines=[]", f"out={tmp_path}/eval"]) == 0
    rl = ["rl", *trained, "split=train", "max_steps=1", "scenes_per_step=2", "group_size=2", "max_parse_errors=1.0"]
    assert main([*rl, f"out={tmp_path}/rl"]) == 0
    assert [stage.verb for stage in read_card(tmp_path / "rl").stages] == ["sft", "rl"]
