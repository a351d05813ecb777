"""The vLLM engine against a stand-in for vLLM and TRL that computes with the tiny planner. vLLM itself is not run."""

import sys
import types
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from trl import import_utils
from trl.generation import vllm_generation

from mtdrive import cli
from mtdrive.planner.models import load_planner
from mtdrive.rollout.sampling import sampling_params
from mtdrive.rollout.vllm_engine import VLLMEngine, VLLMSettings
from mtdrive.simulation.errors import MTDriveError
from support.pictures import image
from support.planners import tiny_config
from support.rollouts import plain_log_probs
from support.training import SETTINGS, any_text, load, make_trainer, steps_of


@dataclass
class SamplingParams:
    """The fields of vLLM's that are used."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    max_tokens: int
    logprobs: int
    stop_token_ids: list[int]
    logit_bias: dict[int, float]
    seed: int | None = None
    detokenize: bool = True
    output_kind: int | None = None


@dataclass
class VLLM:
    """What vLLM does with a conversation, and what was asked of it."""

    planner: object
    prompts: dict  # by image hash
    weights: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)

    def answer(self, ids: list[int], prompt, params: SamplingParams) -> tuple[list[int], list[float]]:
        model, generator = self.planner.model, torch.Generator()
        generator.manual_seed(0 if params.seed is None else params.seed)
        trained = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        said, values = [], []
        for _ in range(params.max_tokens):
            whole = torch.tensor([[*ids, *said]])
            types = torch.zeros_like(whole)
            types[0, : len(prompt.ids)] = torch.from_numpy(prompt.token_types)
            with torch.no_grad():
                logits = model(input_ids=whole, mm_token_type_ids=types, **prompt.images).logits[0, -1]
            for token, bias in params.logit_bias.items():
                logits[token] += bias
            log_probs = torch.log_softmax(logits / params.temperature, -1)
            said.append(int(torch.multinomial(log_probs.exp(), 1, generator=generator)))
            values.append(float(log_probs[said[-1]]))
            if said[-1] in params.stop_token_ids:
                break
        model.load_state_dict(trained)
        return said, values

    # vllm.LLM
    def generate(self, rows, sampling_params, use_tqdm):
        trained = self.planner.model.state_dict()
        fresh = all(torch.equal(value, trained[name]) for name, value in self.weights.items())
        self.calls.append("generate" if fresh else "generate with old weights")
        outputs = []
        for row, params in zip(rows, sampling_params, strict=True):
            [name], [picture] = row["multi_modal_uuids"]["image"], row["multi_modal_data"]["image"]
            prompt, token = self.prompts[name], self.planner.processor.image_token_id
            assert picture.size == (120 + 40 * list(self.prompts).index(name), 60)
            at, count = row["prompt_token_ids"].index(token), int(prompt.token_types.sum())
            ids = row["prompt_token_ids"][:at] + [token] * count + row["prompt_token_ids"][at + 1 :]
            said, values = self.answer(ids, prompt, params)
            steps = [{t: types.SimpleNamespace(logprob=v, rank=1)} for t, v in zip(said, values, strict=True)]
            answer = types.SimpleNamespace(token_ids=tuple(said), logprobs=steps)
            outputs.append(types.SimpleNamespace(prompt_token_ids=ids, outputs=[answer]))
        return outputs


class Client:
    """trl's VLLMClient on that."""

    logprobs_mode = "processed_logprobs"

    def __init__(self, vllm: VLLM):
        self.vllm = vllm

    def get_server_info(self):
        return {"model_config": {"logprobs_mode": self.logprobs_mode}}

    def image_features(self, images):
        self.vllm.calls.append(f"{len(images)} images")
        return [{"mm_hashes": index, "mm_placeholders": {"image": [None]}} for index, _ in enumerate(images)]

    def generate(self, prompts, features, generation_kwargs, **arguments):
        self.vllm.calls.append("generate")
        ids, values = [], []
        for conversation, feature in zip(prompts, features, strict=True):
            prompt = list(self.vllm.prompts.values())[feature["mm_hashes"]]
            [place] = feature["mm_placeholders"]["image"]
            assert conversation[place["offset"] :][: place["length"]] == [
                self.vllm.planner.processor.image_token_id
            ] * int(prompt.token_types.sum())
            seed = sum(conversation) + len(ids)
            said, log_probs = self.vllm.answer(
                conversation, prompt, SamplingParams(**arguments, **generation_kwargs, seed=seed)
            )
            ids.append(said)
            values.append([[value] for value in log_probs])
        return {"completion_ids": ids, "logprobs": values}


@pytest.fixture
def planner():
    return replace(load_planner(tiny_config()), max_new_tokens=6)


@pytest.fixture
def tasks(planner):
    return load(planner)


@pytest.fixture
def vllm(planner, tasks, monkeypatch) -> VLLM:
    made = VLLM(planner, {task.prompt.image_hash: task.prompt for task in tasks.values()})

    class VLLMGeneration:
        server_base_url = "http://server"

        def __init__(self, model, accelerator, processor, mode):
            self.model, self.llm, self.vllm_client = model, made, Client(made)
            self.sync_weights(log=False)

        def sync_weights(self, log=True):
            made.weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            made.calls += ["sync"] * log

    module = types.ModuleType("vllm")
    module.SamplingParams = SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(import_utils, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "VLLMGeneration", VLLMGeneration)
    return made


def settings(tasks, mode: str) -> VLLMSettings:
    names = [task.prompt.image_hash for task in tasks.values()]
    return VLLMSettings(lambda name: image(names.index(name), (60, 120 + 40 * names.index(name))), mode)


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_ids_are_passed_on_and_log_probs_are_those_of_the_sampling(planner, tasks, vllm, mode):
    rng = np.random.default_rng(0)
    params = replace(sampling_params(planner.model, planner.processor.tokenizer, 0.8), stop=tuple(range(400, 480)))
    engine = VLLMEngine(planner.model, None, planner.processor, params, 6, settings(tasks, mode))
    prompts = [task.prompt for task in tasks.values()]
    session = engine.open(prompts, 2, torch.Generator().manual_seed(0))
    episodes, said = list(range(6)), [np.zeros(0, np.int64)] * 6
    deltas, checked = said, []
    for _ in range(3):
        answers = dict(session.generate(episodes, deltas))
        for episode, delta in zip(episodes, deltas, strict=True):
            answer = answers[episode]
            start = len(said[episode]) + len(delta)
            said[episode] = np.concatenate([said[episode], delta, answer.ids])
            checked.append((episode, slice(start, start + len(answer.ids)), answer.log_probs))
        episodes = [0, 2, 3, 5]
        deltas = [rng.integers(50, 300, rng.integers(1, 9)) for _ in episodes]
    for episode, part, log_probs in checked:
        expected = plain_log_probs(planner, params, prompts[episode // 2], said[episode])
        torch.testing.assert_close(torch.from_numpy(log_probs), expected[part], atol=1e-5, rtol=1e-5)
    assert len({tuple(said[episode]) for episode in range(6)}) == 6
    assert vllm.calls == ["generate"] * 3 if mode == "colocate" else ["3 images", *["generate"] * 3]


def test_every_step_begins_with_the_trained_weights(planner, tasks, vllm, tmp_path):
    planner = replace(planner, parse_answer=any_text)
    trainer = make_trainer(planner, tmp_path, 3, settings=replace(SETTINGS, vllm=settings(tasks, "colocate")))
    trainer.train()
    assert vllm.calls == ["sync", "generate", "generate"] * 3
    assert len(steps_of(trainer)) == 3


def test_what_does_not_fit_is_refused(planner, tasks, vllm, monkeypatch):
    params = sampling_params(planner.model, planner.processor.tokenizer)
    engine = VLLMEngine(planner.model, None, planner.processor, params, 6, settings(tasks, "colocate"))
    first, other, _ = (task.prompt for task in tasks.values())
    vllm.prompts[first.image_hash] = other  # another number of image tokens than the planner's processor makes
    with pytest.raises(MTDriveError, match="image processor"):
        list(engine.open([first], 1).generate([0], [np.zeros(0, np.int64)]))
    monkeypatch.setattr(Client, "logprobs_mode", "raw_logprobs")
    with pytest.raises(MTDriveError, match="--logprobs-mode processed_logprobs"):
        VLLMEngine(planner.model, None, planner.processor, params, 6, settings(tasks, "server"))


@pytest.mark.parametrize(("engine", "message"), [("vllm", "needs vLLM"), ("sglang", "one of hf, vllm")])
def test_the_verb_says_what_is_missing(tmp_path, capsys, monkeypatch, engine, message):
    monkeypatch.setattr(import_utils, "is_vllm_available", lambda: False)
    keys = [f"out={tmp_path}", "openscene_data_root=x", "planner.model=tiny2", f"engine={engine}"]
    assert cli.main(["rl", *keys]) == 2
    assert message in capsys.readouterr().err
