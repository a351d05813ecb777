"""Shared prompts in layers that attend within a window: exact in rollouts and in the loss, and bounded in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtdrive.planner.models import Planner, load_planner
from mtdrive.rollout import experts, shared_prefix
from mtdrive.rollout.encoding import Prompt
from mtdrive.rollout.engine import Engine, engine_of
from mtdrive.rollout.flex_segments import FlexSegments
from mtdrive.rollout.prefix_cache import PrefixCache
from mtdrive.rollout.row_attention import Rows, SlidingWindow
from mtdrive.rollout.sampling import sampling_params
from mtdrive.rollout.training_segments import TrainingSegments
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.log_probs import Continuation, add_scoring, inputs_of, plain_inputs, shared_prefix_inputs
from support.planners import step_flash_config, windowed_planner
from support.rollouts import plain_log_probs
from support.training import load

WINDOWS = [2, 80, 150, 1000]  # shorter than a block, than a prompt, than prompt and episode, longer than all


def planner_with(kind: str, window: int) -> Planner:
    if kind == "qwen":
        return windowed_planner(window)
    return load_planner(step_flash_config(step_flash={"sliding_window": window}))


def long_prompts(planner: Planner) -> list[Prompt]:
    """Of different lengths, more than 100 tokens each."""
    return [
        replace(
            prompt := task.prompt,
            ids=np.append(prompt.ids, np.arange(50, 110 + 3 * row)),
            token_types=np.append(prompt.token_types, np.zeros(60 + 3 * row, dtype=np.int64)),
        )
        for row, task in enumerate(load(planner).values())
    ]


@pytest.mark.parametrize(
    ("length", "ahead", "window"), [(5, 0, 3), (5, 2, 3), (200, 0, 70), (200, 69, 70), (200, 9, 90)]
)
def test_blocks_of_a_window_are_a_band_of_the_whole(length, ahead, window):
    """Grouped heads, and rows with fewer tokens in front than others; gradients of all that goes in."""
    torch.manual_seed(0)
    shapes = [(3, 4, length, 8), (3, 2, ahead + length, 8), (3, 2, ahead + length, 8)]
    query, key, value = inputs = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    front = torch.arange(ahead) >= torch.tensor([0, ahead // 2, ahead])[:, None]
    distance = torch.arange(ahead, ahead + length)[:, None] - torch.arange(ahead + length)
    visible = (distance >= 0) & (distance < window) & torch.nn.functional.pad(front, (0, length), value=True)[:, None]
    scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.3
    expected = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1) @ value.repeat_interleave(2, 1)
    found = SlidingWindow(length, front, window).attend(*inputs, 0.3)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    weights = torch.randn_like(expected)
    for mine, whole in zip(*(torch.autograd.grad(out, inputs, weights) for out in (found, expected)), strict=True):
        torch.testing.assert_close(mine, whole, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["qwen", "step_flash"])
def test_the_loss_has_the_log_probs_and_gradients_of_the_plain_pass(kind, window):
    planner, rng = planner_with(kind, window), np.random.default_rng(0)
    model, prompts = planner.model.train(), long_prompts(planner)
    add_scoring(model, sampling_params(model, planner.processor.tokenizer, 0.7))
    continuations = [
        Continuation(scene, rng.integers(50, 300, length), rng.random(length) < 0.6)
        for scene, length in [(0, 3), (0, 130), (0, 17), (1, 29), (2, 8), (2, 8)]
    ]
    assert inputs_of(model) is shared_prefix_inputs
    results = []
    for build, attention in ((plain_inputs, "sdpa"), (shared_prefix_inputs, "shared_prefix")):
        model.set_attn_implementation({"text_config": attention})
        model.zero_grad()
        log_probs, _ = model(**build(model, prompts, continuations))
        (log_probs * torch.linspace(-1, 1, len(log_probs))).sum().backward()
        results.append((log_probs, {name: p.grad for name, p in model.named_parameters()}))
    (plain, plain_grads), (shared, shared_grads) = results
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-5)
    for name, grad in plain_grads.items():
        assert (shared_grads[name] - grad).norm() <= 1e-5 * grad.norm(), name


@pytest.mark.parametrize("window", WINDOWS)
def test_flex_attention_sees_the_same_tokens(window):
    """FlexAttention has no gradients on a CPU."""
    planner, rng = planner_with("step_flash", window), np.random.default_rng(0)
    prompts = long_prompts(planner)
    add_scoring(planner.model, sampling_params(planner.model, planner.processor.tokenizer))
    shared_prefix.enable(planner.model)
    episodes = [(0, 3), (0, 130), (1, 29), (2, 8), (2, 8)]
    continuations = [Continuation(scene, rng.integers(50, 300, n), np.ones(n, dtype=bool)) for scene, n in episodes]
    with torch.no_grad():
        inputs = shared_prefix_inputs(planner.model, prompts, continuations)
        usual, _ = planner.model(**inputs)
        lengths = [len(prompt.ids) - 1 for prompt in prompts], [1 + n for _, n in episodes]
        by_flex, _ = planner.model(**inputs | {"segments": FlexSegments(*lengths, [scene for scene, _ in episodes])})
    torch.testing.assert_close(by_flex, usual, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 7, 80])
def test_flex_attention_has_the_gradients_of_the_usual_pass(window):
    shape = ([100, 60], [130, 3, 29], [0, 0, 1], "cuda")
    tokens, results = sum(shape[0]) + sum(shape[1]), []
    torch.manual_seed(0)
    inputs = [torch.randn(heads, tokens, 32, device="cuda", requires_grad=True) for heads in (4, 2, 2)]
    for segments in (TrainingSegments(*shape), FlexSegments(*shape)):
        out = segments.attend(0, *inputs, 0.2, window)
        results.append([out, *torch.autograd.grad(out, inputs, torch.ones_like(out).cumsum(0))])
    for usual, by_flex in zip(*results, strict=True):
        assert (by_flex - usual).norm() <= 1e-3 * usual.norm()  # TF32


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["qwen", "step_flash"])
def test_rollouts_have_the_log_probs_of_a_plain_pass(kind, window):
    """Ragged answers and feedback, episodes that leave, prompts of different lengths, over four turns."""
    planner, rng = planner_with(kind, window), np.random.default_rng(0)
    prompts = long_prompts(planner)
    params = replace(sampling_params(planner.model, planner.processor.tokenizer, 0.8), stop=tuple(range(400, 480)))
    assert engine_of(planner).func is Engine
    session = Engine(planner.model, params, 12).open(prompts, 2, torch.Generator().manual_seed(0))
    episodes, deltas = list(range(6)), [np.zeros(0, dtype=np.int64)] * 6
    said, checked = [np.zeros(0, dtype=np.int64) for _ in range(6)], [[] for _ in range(6)]
    for turn in range(4):
        answers = dict(session.generate(episodes, deltas))
        for episode, delta in zip(episodes, deltas, strict=True):
            start = len(said[episode]) + len(delta)
            said[episode] = np.concatenate([said[episode], delta, answers[episode].ids])
            checked[episode].append((slice(start, len(said[episode])), answers[episode].log_probs))
        episodes = [[0, 1, 2, 4, 5], [1, 2, 4], [2, 4]][min(turn, 2)]
        deltas = [rng.integers(50, 300, rng.integers(1, 30)) for _ in episodes]
    for episode, parts in enumerate(checked):
        expected = plain_log_probs(planner, params, prompts[episode // 2], said[episode])
        for part, log_probs in parts:
            torch.testing.assert_close(torch.from_numpy(log_probs), expected[part], atol=2e-5, rtol=1e-5)


def test_windowed_layers_hold_no_more_than_the_window_and_a_turn():
    """Over many turns, while layers with full attention grow."""
    cache, window, turn = PrefixCache([100, 60], torch.tensor([100, 60]), 2), 16, 10
    for layer, reach in enumerate((None, window)):
        cache.add(layer, torch.randn(2, 160, 4), torch.randn(2, 160, 4), reach)
    rows = torch.arange(4)
    for turns in range(1, 9):
        cache.keep(rows, turn)
        assert cache.layers[0].key.shape[2] >= turns * turn
        assert cache.layers[1].key.shape[2] <= window - 1 + turn
        cache.lengths += torch.tensor([turn, turn - 1, 3, 1])
        cache.longest += turn
    assert cache.layers[1].prompt_key.shape == (2, 2, window - 1, 4)
    assert cache.layers[0].prompt_key.shape == (2, 2, 100, 4)


def test_experts_get_all_tokens_of_a_packed_pass_at_once():
    planner = planner_with("step_flash", 7)
    sizes = []
    for layer in planner.model.model.language_model.layers[1:]:
        layer.mlp.experts.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    prompts = long_prompts(planner)
    params = replace(sampling_params(planner.model, planner.processor.tokenizer), stop=(10**6,))
    session = Engine(planner.model, params, 2).open(prompts, 4, torch.Generator().manual_seed(0))
    list(session.generate(range(12), [np.zeros(0, np.int64)] * 12))
    assert sizes == [n for n in (sum(len(p.ids) - 1 for p in prompts), 12, 12) for _ in range(7)]


def test_experts_on_few_tokens_give_the_same_numbers_and_gradients():
    layer = planner_with("step_flash", 7).model.model.language_model.layers[-1].mlp
    torch.manual_seed(0)
    hidden, weights = torch.randn(50, 32), torch.randn(50, 32)
    results = []
    for patch in (lambda module: None, experts.enable):
        patch(layer)
        inputs = hidden.clone().requires_grad_()
        gates = layer.gate(inputs)[1]
        chosen = torch.stack([torch.arange(50) % 3 // 2, torch.arange(50) % 5 + 2], 1)  # expert 7 gets none
        out = layer.experts(inputs, chosen, gates)
        results.append([out, *torch.autograd.grad(out, [inputs, *layer.experts.parameters()], weights)])
    for usual, together in zip(*results, strict=True):
        torch.testing.assert_close(together, usual, atol=1e-6, rtol=1e-5)


def test_a_window_that_only_a_mask_knows_is_refused():
    planner = planner_with("qwen", 7)
    planner.model.model.language_model.layers[1].self_attn.sliding_window = None
    params = sampling_params(planner.model, planner.processor.tokenizer)
    with pytest.raises(MTDriveError, match=r"Layer 1 .* sliding_window=None; use shared_prefix=false"):
        Engine(planner.model, params, 2).open([load(planner)["scene0"].prompt], 1)


def test_the_ends_of_rows_are_right_aligned():
    tails, held = Rows([5, 2]).tails(3)
    assert tails[0].tolist() == [2, 3, 4]
    assert tails[1, 1:].tolist() == [5, 6]
    assert held.tolist() == [[True] * 3, [False, True, True]]
