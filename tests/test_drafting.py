"""Drafting: the answers, their distribution and their log-probabilities are those without it, for every drafter."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mtdrive.planner.models import Planner, load_planner
from mtdrive.rollout.answers import Answers
from mtdrive.rollout.drafting import DRAFTERS, verification
from mtdrive.rollout.drafting.previous import PreviousProposer
from mtdrive.rollout.drafting.proposal import Draft, nothing
from mtdrive.rollout.drafting.template import AnswerForm, padded
from mtdrive.rollout.engine import Engine, engine_of
from mtdrive.rollout.sampling import SamplingParams, sampling_params
from mtdrive.simulation.errors import MTDriveError
from support.planners import step_flash_config, tiny_config
from support.released import released_config, write_released
from support.rollouts import plain_log_probs
from support.training import load

DRAWS = 200_000
LENGTH = 3  # tokens of an answer of the toy model, at most
CHAIN = torch.tensor([[0.3, 1.2, -0.5, 9.0, 0.1], [1.0, -1.0, 0.4, 9.0, 0.6], [0.0, 0.5, 2.0, 9.0, -1.0]])
TOY = SamplingParams(stop=(4,), suppressed=(3,), temperature=0.7)


def toy_answers(draft_of, sampling: SamplingParams = TOY) -> dict[tuple[int, ...], int]:
    """How often a toy model says what, if `draft_of` (generator, newest tokens) proposes; a token decides the next."""
    generator = torch.Generator().manual_seed(0)
    answers = Answers(DRAWS, LENGTH, sampling.stop, torch.device("cpu"))
    newest = torch.zeros(DRAWS, dtype=torch.int64)
    while answers.open.any():
        draft = draft_of(generator, newest)
        follow = torch.cat([newest[:, None], draft.tokens], 1)
        answers.extend(verification.verify(sampling, CHAIN[follow.clamp(max=2)], draft, generator))
        newest = answers.newest
    ended = torch.arange(LENGTH) >= answers.lengths[:, None]
    said, counts = answers.tokens.masked_fill(ended, -1).unique(dim=0, return_counts=True)
    return {tuple(t for t in answer if t >= 0): n for answer, n in zip(said.tolist(), counts.tolist(), strict=True)}


def certain(generator, newest) -> Draft:
    """Two tokens for some rows, one or none for others."""
    return Draft(torch.stack([(newest + 1) % 3, newest % 3], 1), torch.arange(len(newest)) % 3)


def by_chance(generator, newest) -> Draft:
    """Drawn from a distribution of its own, which is far from the model's."""
    chances = torch.tensor([0.1, 0.6, 0.2, 0.0, 0.1]).repeat(len(newest), 2, 1)
    tokens = torch.multinomial(chances.flatten(0, 1), 1, generator=generator).reshape(len(newest), 2)
    return Draft(tokens, torch.arange(len(newest)) % 3, chances)


def p_value(counts: dict[tuple[int, ...], int]) -> float:
    """Of a chi-square test against the exact probabilities of all answers."""
    log_probs, expected = TOY.log_probs(CHAIN).double(), {}
    for answer in product((0, 1, 2, 4), repeat=LENGTH):
        said = answer[: answer.index(4) + 1] if 4 in answer else answer
        before = (0, *said[:-1])
        expected[said] = float(torch.stack([log_probs[b, t] for b, t in zip(before, said, strict=True)]).sum().exp())
    assert set(counts) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1.0)
    exact = np.array(list(expected.values()))
    return chisquare([counts.get(answer, 0) for answer in expected], DRAWS * exact / exact.sum()).pvalue


@pytest.mark.parametrize("draft_of", [lambda _, newest: nothing(newest), certain, by_chance])
def test_answers_are_distributed_as_without_drafting(draft_of):
    assert p_value(toy_answers(draft_of)) > 1e-3


@pytest.mark.parametrize("draft_of", [certain, by_chance])
def test_a_wrong_rule_for_what_follows_a_refused_token_is_found(draft_of, monkeypatch):
    monkeypatch.setattr(verification, "_remaining", lambda log_probs, draft, counts: log_probs.double().exp())
    assert p_value(toy_answers(draft_of)) < 1e-9


def test_a_wrong_rule_of_acceptance_is_found(monkeypatch):
    def as_if_certain(generator, newest):
        draft = by_chance(generator, newest)
        return replace(draft, probabilities=torch.ones_like(draft.probabilities))

    assert p_value(toy_answers(as_if_certain)) < 1e-9


def test_greedy_answers_are_the_likeliest_tokens():
    (answer,) = toy_answers(certain, replace(TOY, greedy=True))
    assert answer == (1, 0, 1)


@pytest.fixture(scope="module")
def planners() -> dict[str, Planner]:
    return {"tiny": load_planner(tiny_config()), "step_flash": load_planner(step_flash_config())}


class Prophet:
    """Knows what will be said, and errs in every third of its proposals."""

    most = 5

    def __init__(self, future: dict[int, list[list[int]]]):
        self.future, self.turn, self.asked = future, -1, 0

    def read_prompts(self, prompts, positions, hidden):
        assert hidden.shape[0] == positions.shape[1] == sum(len(ids) - 1 for ids in prompts)

    def begin(self, episodes):
        self.episodes, self.turn = episodes, self.turn + 1

    def propose(self, progress):
        proposals = []
        for episode, length in zip(self.episodes, progress.answers.lengths.tolist(), strict=True):
            self.asked += 1
            tokens = self.future[episode][self.turn][length : length + self.asked % (self.most + 1)]
            proposals.append([*tokens[:2], 60, *tokens[3:]] if self.asked % 3 == 0 else tokens)
        return padded(proposals, self.most, progress.answers.tokens.device)

    def end(self, answers):
        pass


def drive(planner, prompts, params, propose, group=2, limit=20) -> tuple[dict[int, list], Engine]:
    """Three turns of all episodes; ragged feedback, and fewer episodes in each turn."""
    rng, said = np.random.default_rng(0), {episode: [] for episode in range(group * len(prompts))}
    engine = Engine(planner.model, params, limit, propose)
    session = engine.open(prompts, group, torch.Generator().manual_seed(0))
    episodes, deltas = list(said), [np.zeros(0, dtype=np.int64)] * len(said)
    for _ in range(3):
        for episode, answer in session.generate(episodes, deltas):
            said[episode].append((deltas[episodes.index(episode)], answer))
        episodes = episodes[1:]
        deltas = [rng.integers(50, 300, rng.integers(1, 30)) for _ in episodes]
    return said, engine


def drafters(planner, prompts, params) -> dict:
    """All that work with the planner, and one that is often right."""
    plain, _ = drive(planner, prompts, params, None)
    future = {episode: [answer.ids.tolist() for _, answer in turns] for episode, turns in plain.items()}
    usable = [name for name in DRAFTERS if name != "mtp" or planner.draft_heads is not None]
    found = {name: DRAFTERS[name](planner) for name in usable}
    return {**found, "prophet": lambda cache, sampling, generator: Prophet(future)}


@pytest.mark.parametrize("kind", ["tiny", "step_flash"])
def test_greedy_answers_are_the_same_with_every_drafter(planners, kind):
    planner = planners[kind]
    prompts = [task.prompt for task in load(planner).values()]
    params = sampling_params(planner.model, planner.processor.tokenizer, greedy=True)
    params = replace(params, stop=tuple(range(400, 480)))
    plain, engine = drive(planner, prompts, params, None)
    assert engine.passes == engine.written
    for name, propose in drafters(planner, prompts, params).items():
        drafted, engine = drive(planner, prompts, params, propose)
        for episode, turns in plain.items():
            for (_, expected), (_, found) in zip(turns, drafted[episode], strict=True):
                np.testing.assert_array_equal(found.ids, expected.ids, err_msg=name)
                np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-5, rtol=1e-5)
        assert engine.written == sum(len(answer.ids) for turns in plain.values() for _, answer in turns)
        assert name != "prophet" or engine.written > 1.5 * engine.passes


@pytest.mark.parametrize("kind", ["tiny", "step_flash"])
def test_log_probs_are_those_of_a_plain_pass_with_every_drafter(planners, kind):
    planner = planners[kind]
    prompts = [task.prompt for task in load(planner).values()]
    params = sampling_params(planner.model, planner.processor.tokenizer, 0.8)
    params = replace(params, stop=tuple(range(400, 480)))
    for propose in drafters(planner, prompts, params).values():
        said, _ = drive(planner, prompts, params, propose)
        for episode, turns in said.items():
            ids = np.concatenate([part for delta, answer in turns for part in (delta, answer.ids)])
            expected = plain_log_probs(planner, params, prompts[episode // 2], ids)
            end = 0
            for delta, answer in turns:
                assert len(answer.ids) <= 20
                start, end = end + len(delta), end + len(delta) + len(answer.ids)
                torch.testing.assert_close(
                    torch.from_numpy(answer.log_probs), expected[start:end], atol=2e-5, rtol=1e-5
                )


def released(tmp_path) -> Planner:
    return load_planner(released_config("mtdrive_sft", write_released(tmp_path)))


@pytest.mark.parametrize("kind", ["tiny", "released"])
def test_the_form_of_an_answer_foretells_what_is_no_digit(planners, kind, tmp_path):
    """Whole numbers in one token, or a token for each digit: a proposed token is right for most plans."""
    planner = planners["tiny"] if kind == "tiny" else released(tmp_path)
    form, tokenizer = AnswerForm(planner), planner.processor.tokenizer
    poses = np.stack([np.linspace(2.37, 41.9, 8), np.linspace(0.1, 3.4, 8), np.linspace(0.01, 0.3, 8)], 1)
    ids = [*tokenizer.encode(planner.format_answer(poses), add_special_tokens=False), tokenizer.eos_token_id]
    place, index, passes, right = (), 0, 0, []
    while index < len(ids):
        proposed = form.likely[place]
        fits = [a == b for a, b in zip(proposed, ids[index:], strict=False)]
        kept = [*fits, False].index(False)
        right.append((kept, len(fits)))
        passes += 1
        for token in ids[index : index + kept + 1]:
            place = form.after(place, token)
        index += kept + 1
    kept, proposed = np.sum(right, 0)
    assert kept > 0.5 * proposed
    assert passes < (0.9 if kind == "tiny" else 0.7) * len(ids)


def test_a_revision_is_read_on_from_the_same_place_though_numbers_differ_in_length(tmp_path):
    planner = released(tmp_path)
    tokenizer = planner.processor.tokenizer
    first, second = (tokenizer.encode(f"(+{x}, +2.00, +0.0), (") for x in ("9.5", "10.5"))
    proposer = PreviousProposer(planner)
    proposer.begin([7])
    proposer.end([np.array(first)])
    proposer.begin([7])
    comma = next(i for i, token in enumerate(second) if "," in tokenizer.decode([token]))
    answers = Answers(1, len(second), (), torch.device("cpu"))
    answers.tokens[0], answers.lengths[0] = torch.tensor(second), comma + 1
    progress = type("Progress", (), {"answers": answers})
    assert proposer.propose(progress).tokens[0].tolist() == second[comma + 1 : comma + 1 + proposer.most]


def test_what_a_planner_cannot_draft_with_is_refused(planners):
    with pytest.raises(MTDriveError, match="draft=mtp needs a planner with draft heads"):
        engine_of(planners["tiny"], "mtp")
    planner = load_planner(tiny_config())
    planner.model.config.get_text_config().attn_logit_softcapping = 50.0
    with pytest.raises(MTDriveError, match="draft=template needs a model that can share prompts, but this one caps"):
        engine_of(planner, "template")
