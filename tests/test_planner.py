"""The planner: prompts, token ids over several turns, the tiny model, its processor, and loading."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoProcessor
from trl.data_utils import prepare_multimodal_messages

from mtdrive.planner.models import load_planner
from mtdrive.planner.processor import PlannerProcessor, load_processor
from mtdrive.planner.prompt import PROMPTS, SceneView, messages, user_text
from mtdrive.planner.tokens import encode, expand_image, feedback_delta_ids
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import DrivingCommand
from support.planners import tiny_config
from support.scenes import straight_scene

FEEDBACK = "Collision at +02.30 with vehicle at +18.20, -00.40. Travel -04.50 by +04.00. PDMS +00.00."
PLANS = np.random.default_rng(0).uniform(-3.0, 3.0, (2, 8, 3))


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (360, 640, 3), dtype=np.uint8)


def view() -> SceneView:
    history = np.array([[-12.0, 0.1, 0.02], [-8.0, 0.0, 0.01], [-4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    return SceneView("token", "hash", history, np.array([8.0, 0.0]), np.array([-0.5, 0.1]), DrivingCommand.LEFT)


@pytest.fixture(scope="module")
def planner():
    return load_planner(tiny_config())


def conversation(planner, turns: int = 2) -> list[dict]:
    """Messages of `turns` answers, the last one without feedback."""
    answers = [planner.format_answer(plan) for plan in PLANS[:turns]]
    exchanges = [(answer, FEEDBACK) for answer in answers[:-1]]
    return [
        *planner.messages(view(), exchanges),
        {"role": "assistant", "content": [{"type": "text", "text": answers[-1]}]},
    ]


def test_the_view_of_a_scene_and_its_prompt():
    scene = straight_scene()
    text = user_text(SceneView.from_scene(scene, "hash"), PROMPTS["compact"])
    assert f"velocity {scene.velocity[0]:+06.2f}, {scene.velocity[1]:+06.2f} " in text


@pytest.mark.parametrize("style", PROMPTS.values(), ids=PROMPTS)
def test_a_conversation_holds_one_image_and_numbers_of_the_style(style):
    talk = messages(view(), [(style.format_answer(PLANS[0]), FEEDBACK)], style)
    images = [part for message in talk for part in message["content"] if part["type"] == "image"]
    assert len(images) == 1
    assert [message["role"] for message in talk if message["role"] != "system"] == ["user", "assistant", "user"]
    assert talk[-1]["content"][0]["text"] == FEEDBACK
    prompt = next(message for message in talk if message["role"] == "user")["content"][1]["text"]
    assert f"({style.format_number(-8.0)}, " in prompt
    assert style.parse_answer(style.format_answer(PLANS[0])).error is None


def test_the_tiny_tokenizer_spends_two_tokens_on_a_number_and_knows_every_text(planner):
    tokenizer = planner.processor.tokenizer
    for plan in (np.zeros((8, 3)), PLANS[0]):
        answer = planner.format_answer(plan)
        ids = tokenizer.encode(answer)
        assert len(ids) == 2 * 24 + 2 <= planner.max_new_tokens - 1
        assert tokenizer.decode(ids) == answer
    assert len(tokenizer.encode(FEEDBACK)) <= 24
    for text in (FEEDBACK, "Ünïcode ∑ +1234.567 <tag>\n\t\x00", user_text(view(), PROMPTS["full"])):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_saved_and_loaded_the_tiny_planner_is_the_same(planner, tmp_path):
    planner.save(tmp_path)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), PlannerProcessor)
    loaded = load_planner(tiny_config(model=str(tmp_path)))
    with torch.no_grad():
        logits = [each.model(**inputs(each, conversation(each), image())).logits for each in (planner, loaded)]
    assert torch.equal(*logits)


def test_weights_follow_the_seed():
    first, again, other = (load_planner(tiny_config(seed=seed)).model.lm_head.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def inputs(planner, talk, image) -> dict[str, torch.Tensor]:
    return planner.processor.apply_chat_template(
        prepare_multimodal_messages(talk, [image]),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"return_mm_token_type_ids": True},
    )


def test_the_model_sees_the_image(planner):
    with torch.no_grad():
        logits = [planner.model(**inputs(planner, conversation(planner), image(seed))).logits for seed in (0, 1)]
    assert (logits[0] - logits[1])[:, -60:].abs().max() > 1e-3


def test_encoding_in_two_steps_equals_the_processor(planner):
    image_inputs = planner.processor.image_processor(image(), return_tensors="pt")
    ids, mask = encode(planner.processor, conversation(planner))
    ids, mask = expand_image(planner.processor, ids, image_inputs, mask)
    expected = inputs(planner, conversation(planner), image())
    assert ids == expected["input_ids"][0].tolist()
    assert ids.count(planner.processor.image_token_id) == 45
    target = [token for token, on in zip(ids, mask, strict=True) if on]
    assert planner.processor.tokenizer.decode(target) == planner.format_answer(PLANS[1]) + "<|im_end|>"


def test_feedback_continues_a_conversation_as_the_template_would(planner):
    tokenizer = planner.processor.tokenizer
    whole, _ = encode(planner.processor, conversation(planner))
    prompt = tokenizer.apply_chat_template(planner.messages(view()), add_generation_prompt=True, return_dict=False)
    answers = [tokenizer.encode(planner.format_answer(plan)) for plan in PLANS]
    end = [tokenizer.eos_token_id]
    closed = prompt + answers[0] + end + feedback_delta_ids(planner.processor, FEEDBACK) + answers[1] + end
    cut_off = prompt + answers[0] + feedback_delta_ids(planner.processor, FEEDBACK, closed=False) + answers[1] + end
    assert closed == cut_off == whole[: len(closed)]
    assert tokenizer.decode(whole[len(closed) :]) == "\n"


def test_a_directory_with_only_a_tokenizer_is_refused(planner, tmp_path):
    planner.save(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(MTDriveError, match="image"):
        load_processor(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/nowhere"}, "/nowhere"),
        ({"device": "tpu9"}, "tpu9"),
        ({"dtype": "int8"}, "int8"),
        ({"prompt": "verbose"}, "verbose"),
        ({"tiny": {"layers": 0}}, "planner.tiny.layers=0"),
        ({"tiny": {"heads": 2.0}}, r"planner.tiny.heads=2\.0"),
        ({"tiny": {"hidden_size": 30}}, "hidden_size=30 must be a multiple of 2 times planner.tiny.heads=4"),
        ({"lora": {"rank": 4}}, "rank"),
        ({"lora": {"r": 4, "target_modules": ["nothing"]}}, "nothing"),
        ({"lora": 3}, "planner.lora=3"),
    ],
)
def test_bad_planner_settings_are_one_sentence(changes, message):
    with pytest.raises(MTDriveError, match=message):
        load_planner(tiny_config(**changes))


def test_lora_trains_adapters_only_and_reloads(planner, tmp_path):
    planner.save(tmp_path / "base")
    config = tiny_config(model=str(tmp_path / "base"), lora={"r": 4, "target_modules": ["q_proj", "v_proj"]})
    adapted = load_planner(config)
    trainable = [name for name, weight in adapted.model.named_parameters() if weight.requires_grad]
    assert trainable
    assert all("lora" in name for name in trainable)
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora" in name:
                weight.fill_(0.1)
    adapted.save(tmp_path / "adapter")
    loaded = load_planner(tiny_config(model=str(tmp_path / "adapter")))
    batch = inputs(planner, conversation(planner), image())
    with torch.no_grad():
        first, second, base = (each.model(**batch).logits for each in (adapted, loaded, planner))
    assert torch.equal(first, second)
    assert not torch.equal(first, base)


def test_a_directory_in_the_released_layout_loads_without_torchvision(planner, tmp_path):
    planner.save(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    released = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 3136,
        "max_pixels": 50176,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(released))
    processor = load_processor(str(tmp_path))
    assert isinstance(processor, PlannerProcessor)
    pixels = processor.image_processor(image(), return_tensors="pt")
    assert pixels["pixel_values"].shape[1] == 3 * 2 * 14 * 14
    assert pixels["image_grid_thw"].prod() * 14 * 14 <= 50176
