"""Models whose attention cannot share prompts: who they are, and that they are sampled and trained exactly."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GenerationConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
)

from mtdrive.planner.models import Planner, load_planner
from mtdrive.rollout import shared_prefix
from mtdrive.rollout.engine import Engine, engine_of
from mtdrive.rollout.padded_engine import PaddedEngine
from mtdrive.rollout.sampling import sampling_params
from mtdrive.training.log_probs import inputs_of, plain_inputs
from support.planners import tiny_config, windowed_planner
from support.rollouts import plain_log_probs
from support.training import any_text, load, make_trainer, steps_of, weights

WINDOW = 16  # far shorter than a prompt


@pytest.fixture
def planner() -> Planner:
    return replace(windowed_planner(WINDOW), max_new_tokens=8)


def test_the_log_probs_of_a_windowed_model_are_those_of_a_plain_forward_pass(planner):
    """Ragged answers and feedback, an episode that leaves, prompts of different lengths, over three turns."""
    rng, tasks = np.random.default_rng(0), list(load(planner).values())
    params = replace(sampling_params(planner.model, planner.processor.tokenizer, 0.8), stop=tuple(range(400, 480)))
    planner.model.generation_config = GenerationConfig(repetition_penalty=1.5, do_sample=True, top_k=5)
    session = PaddedEngine(planner.model, params, 12).open(
        [task.prompt for task in tasks], 2, torch.Generator().manual_seed(0)
    )
    assert planner.model.generation_config.repetition_penalty == 1.5
    episodes = list(range(2 * len(tasks)))
    said = [np.zeros(0, dtype=np.int64) for _ in episodes]
    checked = {episode: [] for episode in episodes}
    deltas, full = said, load_planner(tiny_config())
    for _ in range(3):
        answers = dict(session.generate(episodes, deltas))
        for episode, delta in zip(episodes, deltas, strict=True):
            answer = answers[episode]
            start = len(said[episode]) + len(delta)
            said[episode] = np.concatenate([said[episode], delta, answer.ids])
            checked[episode].append((slice(start, start + len(answer.ids)), answer.log_probs))
        episodes = [0, 1, 2, 4] if len(episodes) > 4 else [1, 2, 4]
        deltas = [rng.integers(50, 300, rng.integers(1, 9)) for _ in episodes]
    lengths = {part.stop - part.start for parts in checked.values() for part, _ in parts}
    assert len(lengths) > 3
    for episode, parts in checked.items():
        prompt = tasks[episode // 2].prompt
        expected = plain_log_probs(planner, params, prompt, said[episode])
        assert (
            expected - plain_log_probs(full, params, prompt, said[episode])
        ).abs().max() > 1e-3  # the window is real
        for part, log_probs in parts:
            torch.testing.assert_close(torch.from_numpy(log_probs), expected[part], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_engines_draw_the_same_answers(attention):
    planner = load_planner(tiny_config())
    prompts = [task.prompt for task in load(planner).values()]
    params = sampling_params(planner.model, planner.processor.tokenizer)
    answers = []
    for engine in (PaddedEngine, Engine):  # which switches to its own attention
        planner.model.set_attn_implementation(attention)
        session = engine(planner.model, params, 6).open(prompts, 2, torch.Generator().manual_seed(0))
        answers.append(dict(session.generate(range(6), [np.zeros(0, np.int64)] * 6)))
    for episode in range(6):
        padded, shared = (answer[episode] for answer in answers)
        np.testing.assert_array_equal(shared.ids, padded.ids)
        np.testing.assert_allclose(shared.log_probs, padded.log_probs, atol=1e-5)


def test_a_model_that_cannot_share_prompts_is_trained_by_the_plain_pass_and_the_log_says_so(planner, tmp_path, caplog):
    planner = replace(planner, parse_answer=any_text)
    planner.model.config.get_text_config().attn_logit_softcapping = 50.0
    before = weights(planner)
    with caplog.at_level(logging.WARNING, "mtdrive"):
        trainer = make_trainer(planner, tmp_path, 2)
        trainer.train()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("mtdrive")]
    assert len(said) == 2
    assert all("Qwen2_5_VLForConditionalGeneration" in line and "caps its attention scores" in line for line in said)
    assert inputs_of(planner.model) is plain_inputs
    assert engine_of(planner) is PaddedEngine
    assert any(not torch.equal(before[name], value) for name, value in weights(planner).items())
    assert steps_of(trainer)[0]["clip_ratio/region_mean"] == 0.0  # old and new log-probabilities agree


@pytest.mark.parametrize(
    ("model_class", "config", "text", "reason"),
    [
        (InternVLForConditionalGeneration, InternVLConfig, {"model_type": "qwen2"}, None),
        (InternVLForConditionalGeneration, InternVLConfig, {"model_type": "mistral", "sliding_window": 64}, None),
        (Qwen3_5ForConditionalGeneration, Qwen3_5Config, {"num_hidden_layers": 4}, "linear_attention"),
        (PaliGemmaForConditionalGeneration, PaliGemmaConfig, {"model_type": "gemma"}, "what follows them"),
        (Gemma3ForConditionalGeneration, Gemma3Config, {"model_type": "gemma3_text"}, "what follows them"),
    ],
)
def test_which_models_can_share_prompts(model_class, config, text, reason):
    with torch.device("meta"):
        found = shared_prefix.unsupported_reason(model_class(config(text_config=text)))
    assert found is None if reason is None else reason in found
