"""The `step_flash_tiny` planner: what the paper says of the architecture, saving, images, and the verbs on it.

Paper: Step 3.5 Flash, arXiv 2602.10604.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor
from transformers.models.step3p7.modeling_step3p7 import (
    Step3p7MLP,
    Step3p7RMSNorm,
    Step3p7SparseMoeBlock,
)

from mtdrive.cli import main
from mtdrive.planner.models import Planner, load_planner
from mtdrive.planner.step_flash_processor import StepFlashImageProcessor, StepFlashProcessor
from mtdrive.rollout.encoding import takes_token_types
from mtdrive.rollout.padded_engine import PaddedEngine
from mtdrive.rollout.sampling import sampling_params
from mtdrive.settings import planner_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.log_probs import Continuation, add_scoring, plain_inputs
from support.planners import step_flash_config, tiny_config
from support.training import load


@pytest.fixture(scope="module")
def full_size() -> Planner:
    return load_planner(planner_settings("step_flash_tiny"))


@pytest.fixture
def planner() -> Planner:
    return load_planner(step_flash_config())


def layers_of(planner) -> torch.nn.ModuleList:
    return planner.model.model.language_model.layers


def test_three_sliding_layers_to_one_with_full_attention(full_size):
    text = full_size.model.config.text_config
    assert text.layer_types == 2 * ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"]
    assert [layer.self_attn.sliding_window for layer in layers_of(full_size)] == 2 * [None, 32, 32, 32]


def test_every_layer_can_have_full_attention():
    planner = load_planner(step_flash_config(step_flash={"full_attention_every": 1}))
    assert set(planner.model.config.text_config.layer_types) == {"full_attention"}
    assert [layer.self_attn.sliding_window for layer in layers_of(planner)] == 8 * [None]


def test_the_window_is_shorter_than_half_a_prompt_and_hides_the_rest(planner):
    prompt = load(planner)["scene0"].prompt
    assert len(prompt.ids) > 2 * 32
    masks = []
    handle = layers_of(planner)[1].self_attn.register_forward_pre_hook(
        lambda _, given, named: masks.append(named["attention_mask"][0, 0]), with_kwargs=True
    )
    log_probs(planner, prompt, prompt.ids[-1:])
    handle.remove()
    last = len(prompt.ids)
    assert masks[0][last].nonzero().flatten().tolist() == list(range(last - 31, last + 1))


def test_sliding_layers_have_more_query_heads_and_every_head_a_gate(full_size):
    heads = 2 * [4, 6, 6, 6]
    assert [layer.self_attn.num_heads for layer in layers_of(full_size)] == heads
    for layer, count in zip(layers_of(full_size), heads, strict=True):
        attention = layer.self_attn
        assert attention.q_proj.weight.shape == (count * 24, 96)
        assert attention.k_proj.weight.shape == attention.v_proj.weight.shape == (2 * 24, 96)
        assert attention.g_proj.weight.shape == (count, 96)


def test_a_closed_gate_silences_its_head_alone(planner):
    attention = layers_of(planner)[0].self_attn
    hidden = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    position = planner.model.model.language_model.rotary_emb(hidden, torch.arange(5)[None], "full_attention")
    heads = []
    handle = attention.o_proj.register_forward_pre_hook(lambda _, given: heads.append(given[0].unflatten(-1, (-1, 8))))
    with torch.no_grad():
        attention(hidden, position, None)
        gates = torch.sigmoid(attention.g_proj(hidden))
        attention.g_proj.weight[1] = 0.0  # sigmoid(0): half open
        attention(hidden, position, None)
    handle.remove()
    before, after = heads
    torch.testing.assert_close(after[..., 1, :], before[..., 1, :] / gates[..., 1, None] / 2)
    assert torch.equal(after[..., [0, 2, 3], :], before[..., [0, 2, 3], :])


def test_after_the_dense_layer_each_has_a_shared_expert_beside_the_routed(full_size):
    dense, *sparse = [layer.mlp for layer in layers_of(full_size)]
    assert isinstance(dense, Step3p7MLP)
    assert dense.up_proj.weight.shape == (256, 96)
    assert len(sparse) == 7
    for block in sparse:
        assert isinstance(block, Step3p7SparseMoeBlock)
        assert block.shared_experts.up_proj.weight.shape == (64, 96)
        assert block.experts.down_proj.shape == (16, 96, 64)
    with torch.no_grad():
        hidden = torch.randn(1, 3, 96)
        shared = sparse[0].shared_experts(hidden)
        routed = sparse[0](hidden) - shared
        sparse[0].experts.down_proj[:] = 0.0
        torch.testing.assert_close(sparse[0](hidden), shared)
    assert routed.abs().max() > 1e-4


def test_the_router_chooses_by_sigmoid_and_bias_and_weighs_by_sigmoid_alone(planner):
    gate = layers_of(planner)[1].mlp.gate
    assert torch.equal(gate.e_score_correction_bias, torch.zeros(8))
    hidden = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gate.e_score_correction_bias[5] = 10.0
        logits, weights, chosen = gate(hidden)
    assert chosen.shape == (20, 2)
    assert (chosen == 5).any(1).all()
    scores = torch.sigmoid(logits).gather(1, chosen)
    torch.testing.assert_close(weights, scores / scores.sum(1, keepdim=True))
    other = chosen[chosen != 5]
    without = torch.sigmoid(logits)
    without[:, 5] = -1.0
    assert torch.equal(other, without.argmax(1))
    assert not dict(planner.model.named_parameters()).keys() & {
        name for name in planner.model.state_dict() if name.endswith("e_score_correction_bias")
    }  # saved, but not learned by gradient


def test_norms_are_centred_at_zero(planner):
    norms = [module for module in planner.model.model.language_model.modules() if isinstance(module, Step3p7RMSNorm)]
    assert len(norms) == 8 * 4 + 1  # two a layer, two of queries and keys, and the last
    assert all(not norm.weight.any() for norm in norms)
    hidden = torch.randn(3, 32)
    norm = layers_of(planner)[0].input_layernorm
    torch.testing.assert_close(norm(hidden), torch.nn.functional.rms_norm(hidden, (32,), eps=1e-5))


def test_swiglu_is_clamped_in_the_last_layers_alone(planner):
    blocks = [layer.mlp for layer in layers_of(planner)[1:]]
    assert [block.experts.limit for block in blocks] == [*[float("inf")] * 5, 7.0, 7.0]
    assert [block.shared_experts.limit for block in blocks] == [*[float("inf")] * 5, 16.0, 16.0]
    for block, product in ((blocks[0], 100.0 * 100.0), (blocks[-1], 7.0 * 7.0)):
        experts = block.experts
        with torch.no_grad():
            experts.gate_up_proj.fill_(100.0 / 32)  # both factors are 100
            experts.down_proj.fill_(1.0 / 16)  # the mean over the hidden width
            out = experts(torch.ones(1, 32), torch.tensor([[0]]), torch.ones(1, 1))
        torch.testing.assert_close(out, torch.full((1, 32), product))


def test_rope_turns_each_kind_of_layer_in_its_own_way(full_size):
    rope = full_size.model.config.text_config.rope_parameters
    assert {kind: values["rope_theta"] for kind, values in rope.items()} == {
        "full_attention": 5e6,
        "sliding_attention": 1e4,
    }
    embed = full_size.model.model.language_model.rotary_emb
    widths = {kind: embed(torch.zeros(1), torch.arange(3)[None], kind)[0].shape[-1] for kind in rope}
    assert widths == {"full_attention": 12, "sliding_attention": 24}  # of a head's 24: half of it, and all


def test_it_has_a_few_million_parameters(full_size):
    assert 2e6 < full_size.model.num_parameters() < 4e6


def log_probs(planner, prompt, ids, pixels=None) -> torch.Tensor:
    whole = torch.from_numpy(np.concatenate([prompt.ids, ids]))[None]
    pixels = prompt.images["pixel_values"] if pixels is None else pixels
    with torch.no_grad():
        logits = planner.model(input_ids=whole, pixel_values=pixels, use_cache=False).logits
    return logits[0, len(prompt.ids) - 1 : -1].log_softmax(-1)


def test_saved_and_loaded_it_is_the_same(planner, tmp_path):
    with torch.no_grad():
        layers_of(planner)[1].mlp.gate.e_score_correction_bias[3] = 0.5
    planner.save(tmp_path)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), StepFlashProcessor)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), StepFlashImageProcessor)
    loaded = load_planner(planner_settings(str(tmp_path)))
    assert loaded.card.base == "step_flash_tiny, seed 0"
    prompts = [load(each)["scene1"].prompt for each in (planner, loaded)]
    assert torch.equal(*(prompt.images["pixel_values"] for prompt in prompts))
    answers = prompts[0].ids[-9:]
    first, second = (log_probs(each, prompt, answers) for each, prompt in zip((planner, loaded), prompts, strict=True))
    assert torch.equal(first, second)
    with torch.no_grad():
        layers_of(loaded)[1].mlp.gate.e_score_correction_bias.zero_()
    assert not torch.equal(first, log_probs(loaded, prompts[1], answers))


def test_it_sees_the_image(planner):
    prompt = load(planner)["scene0"].prompt
    assert prompt.token_types.sum() == 45
    blank = torch.zeros_like(prompt.images["pixel_values"])
    seen, unseen = (log_probs(planner, prompt, prompt.ids[-9:], pixels) for pixels in (None, blank))
    assert (seen - unseen).abs().max() > 1e-3


def test_images_of_any_shape_and_mode_become_the_size_and_as_many_tokens_as_features(planner):
    processor = planner.processor
    for size, mode in (((640, 360), "RGB"), ((31, 500), "L"), ((1920, 1080), "RGBA")):
        inputs = dict(processor.image_processor(Image.new(mode, size, 128), return_tensors="pt"))
        assert inputs["pixel_values"].shape == (1, 3, 140, 252)
        with torch.no_grad():
            (features,) = planner.model.get_image_features(**inputs).pooler_output
        assert processor.replace_image_token(inputs, 0) == len(features) * "<|image_pad|>"


def test_weights_follow_the_seed():
    first, again, other = (load_planner(step_flash_config(seed=seed)).model.lm_head.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": 0}, r"planner\.step_flash\.experts=0"),
        ({"experts": 2, "experts_per_token": 3}, r"experts_per_token=3 must not be more than .*experts=2"),
        ({"heads": 3}, r"heads=3 must be a multiple of planner\.step_flash\.key_value_heads=2"),
        ({"vision_size": 30}, r"vision_size=30 must be a multiple of 4 times planner\.step_flash\.vision_heads=4"),
        ({"head_size": 30}, r"head_size=30 must be a multiple of 4\."),
        ({"initializer_range": 1.5}, r"planner\.step_flash\.initializer_range=1\.5"),
    ],
)
def test_sizes_that_make_no_model_are_one_sentence(changes, message):
    with pytest.raises(MTDriveError, match=message):
        replace(planner_settings("step_flash_tiny").step_flash, **changes)


def test_without_sizes_there_is_no_new_planner():
    with pytest.raises(MTDriveError, match="say planner=step_flash_tiny"):
        load_planner(replace(planner_settings("tiny"), model="step_flash_tiny"))


def test_a_model_is_asked_whether_it_takes_token_types(planner):
    tiny = load_planner(tiny_config()).model
    add_scoring(tiny, sampling_params(tiny, planner.processor.tokenizer))  # replaces the instance's forward call
    assert takes_token_types(tiny)
    assert not takes_token_types(planner.model)


def test_rollout_and_loss_give_a_plain_passes_log_probs(planner):
    """Prompts and answers of different lengths over two turns, in left-padded generation and right-padded training."""
    prompts = [task.prompt for task in load(planner).values()][:2]
    prompts[1] = replace(
        prompts[1],
        ids=np.append(prompts[1].ids, [40, 41, 42]),
        token_types=np.append(prompts[1].token_types, [0, 0, 0]),
    )
    params = replace(sampling_params(planner.model, planner.processor.tokenizer), stop=tuple(range(400, 480)))
    session = PaddedEngine(planner.model, params, 12).open(prompts, 1, torch.Generator().manual_seed(1))
    said, masks, sampled = ([np.zeros(0, kind)] * 2 for kind in (np.int64, bool, np.float32))
    for turn in range(2):
        deltas = [np.arange(50, 50 + turn * (3 + episode)) for episode in range(2)]
        for episode, answer in session.generate([0, 1], deltas):
            said[episode] = np.concatenate([said[episode], deltas[episode], answer.ids])
            masks[episode] = np.append(masks[episode], [False] * len(deltas[episode]) + [True] * len(answer.ids))
            sampled[episode] = np.append(sampled[episode], answer.log_probs)
    assert len(said[0]) != len(said[1])
    add_scoring(planner.model, params)
    continuations = [Continuation(row, ids, mask) for row, (ids, mask) in enumerate(zip(said, masks, strict=True))]
    scored, _ = planner.model(**plain_inputs(planner.model, prompts, continuations))
    scored.sum().backward()
    assert all(weight.grad is not None for weight in planner.model.parameters())
    torch.testing.assert_close(scored.detach(), torch.from_numpy(np.concatenate(sampled)), atol=2e-5, rtol=1e-5)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            whole = torch.from_numpy(np.concatenate([prompt.ids, said[row]]))[None]
            logits = planner.model.model(input_ids=whole, pixel_values=prompt.images["pixel_values"]).last_hidden_state
            plain = params.log_probs(planner.model.lm_head(logits[0, len(prompt.ids) - 1 : -1]))
        plain = plain.gather(1, torch.from_numpy(said[row])[:, None])[:, 0][torch.from_numpy(masks[row])]
        torch.testing.assert_close(torch.from_numpy(sampled[row]), plain, atol=2e-5, rtol=1e-5)


def test_it_must_be_fine_tuned_first(world, tmp_path, capsys):
    """What training makes of it is tried by the commands of docs/planners.md and `test_step_flash_released.py`."""
    assert main(["rl", *world.overrides(), "planner=step_flash_tiny", f"out={tmp_path}/no"]) == 2
    assert "planner=step_flash_tiny has random weights" in capsys.readouterr().err
