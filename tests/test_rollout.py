"""Multi-turn rollouts: exact log-probabilities, what is computed how often, and what becomes of an answer."""

import pickle
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

import numpy as np
import pytest
import torch

from mtdrive.planner.models import load_planner
from mtdrive.planner.prompt import SceneView
from mtdrive.planner.tokens import encode, expand_image, feedback_delta_ids
from mtdrive.rollout.engine import Completion, Engine
from mtdrive.rollout.episode import EpisodeStatus, TurnStatus
from mtdrive.rollout.multi_turn import Task, run_episodes
from mtdrive.rollout.padded_engine import PaddedEngine
from mtdrive.rollout.sampling import SamplingParams, sampling_params
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor
from support.pictures import image
from support.planners import tiny_config
from support.rollouts import plain_log_probs
from support.scenes import straight_scene

GROUP = 3
KEEPS_SPEED = 4.0 * np.arange(1, 9)[:, None] * [1.0, 0.0, 0.0]  # 8 m/s, as `straight_scene` drives


@pytest.fixture(scope="module")
def planner():
    return load_planner(tiny_config())


@pytest.fixture(scope="module")
def tasks(planner):
    """Scenes of different speeds, whose images have different numbers of tokens."""
    sizes = [(90, 160), (120, 120), (80, 240)]
    return [
        Task.from_scene(planner, straight_scene(speed=8.0 + i, token=f"scene{i}"), image(i, size))
        for i, size in enumerate(sizes)
    ]


def test_log_probs_are_those_of_a_plain_forward_pass(planner, tasks):
    """Ragged answers and feedback, episodes that leave, prompts of different lengths; ids go in as they came out."""
    rng = np.random.default_rng(0)
    params = replace(sampling_params(planner.model, planner.processor.tokenizer, 0.8), stop=tuple(range(400, 480)))
    session = Engine(planner.model, params, 12).open(
        [task.prompt for task in tasks], GROUP, torch.Generator().manual_seed(0)
    )
    episodes = list(range(len(tasks) * GROUP))
    said = [np.zeros(0, dtype=np.int64) for _ in episodes]
    checked = {episode: [] for episode in episodes}
    deltas = said
    for _ in range(3):
        said_now = dict(session.generate(episodes, deltas))
        lengths = [len(answer.ids) for answer in said_now.values()]
        assert lengths == sorted(lengths)  # each is handed over as it ends
        for episode, delta in zip(episodes, deltas, strict=True):
            answer = said_now[episode]
            start = len(said[episode]) + len(delta)
            said[episode] = np.concatenate([said[episode], delta, answer.ids])
            checked[episode].append((slice(start, start + len(answer.ids)), answer.log_probs))
        episodes = episodes[::2] if len(episodes) > 5 else episodes[1:]
        deltas = [rng.integers(50, 300, rng.integers(1, 9)) for _ in episodes]
    assert len({part.stop - part.start for parts in checked.values() for part, _ in parts}) > 3
    for episode, parts in checked.items():
        expected = plain_log_probs(planner, params, tasks[episode // GROUP].prompt, said[episode])
        for part, log_probs in parts:
            torch.testing.assert_close(torch.from_numpy(log_probs), expected[part], atol=1e-5, rtol=1e-5)


def test_a_prompt_is_what_the_chat_template_gives(planner, tasks):
    scene = tasks[0].scene
    view = SceneView.from_scene(scene, tasks[0].image_hash)
    answer = {"role": "assistant", "content": [{"type": "text", "text": "x"}]}
    ids, mask = encode(planner.processor, [*planner.messages(view), answer])
    inputs = planner.processor.image_processor(image(0), return_tensors="pt")
    expanded, mask = expand_image(planner.processor, ids, inputs, mask)
    prompt = tasks[0].prompt
    np.testing.assert_array_equal(prompt.ids, expanded[: mask.index(1)])
    np.testing.assert_array_equal(prompt.token_types, prompt.ids == planner.processor.image_token_id)
    torch.testing.assert_close(dict(prompt.images), dict(inputs), atol=0, rtol=0)


def test_the_image_reaches_the_sampled_distribution(planner):
    scene, params = straight_scene(), sampling_params(planner.model, planner.processor.tokenizer, greedy=True)
    answers = [
        Engine(planner.model, params, 8).open([Task.from_scene(planner, scene, pixels).prompt], 1)
        for pixels in (image(0), image(0), image(1))
    ]
    same, again, other = (dict(session.generate([0], [np.zeros(0, np.int64)]))[0].log_probs for session in answers)
    np.testing.assert_array_equal(same, again)
    assert np.abs(same[0] - other[0]) > 1e-4


@dataclass(frozen=True)
class Dictated(SamplingParams):
    """Draws what it is told. script: the tokens of all rows, step by step."""

    script: Iterator[tuple[int, ...]] | None = None

    def draw(self, logits, generator):
        tokens = torch.tensor(next(self.script))
        return tokens, self.log_probs(logits).gather(-1, tokens[:, None])[:, 0]


@pytest.mark.parametrize("engine", [Engine, PaddedEngine])
def test_a_later_turn_is_that_of_the_whole_conversation_encoded_anew(planner, engine):
    """Two scenes with one text and two images; of each, one episode of two survives the first turn."""
    processor, view = planner.processor, SceneView.from_scene(straight_scene(), "")
    tasks = [Task.from_scene(planner, straight_scene(), image(seed)) for seed in (0, 1)]
    np.testing.assert_array_equal(tasks[0].prompt.ids, tasks[1].prompt.ids)
    rng = np.random.default_rng(0)
    texts = [[plan(planner, rng.uniform(-3, 3, (8, 3))) for _ in range(4)] for _ in range(2)]
    texts[0][1] = "No plan."  # ends long before the others of the batch
    told = {1: "Collision at +02.30.", 2: "Off road at +01.10 on the left by +00.40."}

    answers = [[processor.tokenizer.encode(f"{text}<|im_end|>") for text in turn] for turn in texts]
    script = chain(*(zip_longest(*rows, fillvalue=0) for rows in (answers[0], [answers[1][e] for e in told])))
    params = sampling_params(planner.model, processor.tokenizer, 0.8)
    params = Dictated(params.stop, params.suppressed, params.temperature, script=script)
    session = engine(planner.model, params, 60).open([task.prompt for task in tasks], 2)
    list(session.generate(range(4), [np.zeros(0, np.int64)] * 4))
    said = dict(session.generate(list(told), [np.array(feedback_delta_ids(processor, text)) for text in told.values()]))

    for episode, feedback in told.items():
        talk = planner.messages(view, [(texts[0][episode], feedback)])
        talk.append({"role": "assistant", "content": [{"type": "text", "text": texts[1][episode]}]})
        scene = episode // 2
        expected, swapped = (last_answer_log_probs(planner, params, talk, image(seed)) for seed in (scene, 1 - scene))
        torch.testing.assert_close(torch.from_numpy(said[episode].log_probs), expected, atol=1e-5, rtol=1e-5)
        assert (expected - swapped).abs().max() > 1e-3


def last_answer_log_probs(planner, params: SamplingParams, talk: list[dict], pixels: np.ndarray) -> torch.Tensor:
    """Of the tokens of a conversation's last message, tokenised and computed in one pass."""
    inputs = planner.processor.image_processor(pixels, return_tensors="pt")
    ids, mask = encode(planner.processor, talk)
    ids, mask = expand_image(planner.processor, ids, inputs, mask)
    types = torch.tensor(planner.processor.create_mm_token_type_ids([ids]))
    ids, mask = torch.tensor(ids), torch.tensor(mask, dtype=torch.bool)
    with torch.no_grad():
        logits = planner.model(input_ids=ids[None], mm_token_type_ids=types, **inputs).logits[0]
    return params.log_probs(logits[:-1]).gather(-1, ids[1:, None])[mask[1:], 0]


def test_image_and_prompt_are_computed_once_and_a_turn_costs_its_own_tokens(planner, tasks):
    patches, tokens = [], []
    hooks = [
        planner.model.model.visual.register_forward_pre_hook(lambda _, args: patches.append(len(args[0]))),
        planner.model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
        ),
    ]
    params = replace(sampling_params(planner.model, planner.processor.tokenizer), stop=(10**6,))
    session = Engine(planner.model, params, 5).open([task.prompt for task in tasks], GROUP)
    episodes = list(range(len(tasks) * GROUP))
    list(session.generate(episodes, [np.zeros(0, np.int64)] * len(episodes)))
    list(session.generate(episodes[1:], [np.full(7, 60)] * (len(episodes) - 1)))
    for hook in hooks:
        hook.remove()
    assert patches == [sum(len(task.prompt.images["pixel_values"]) for task in tasks)]
    assert tokens[0] == sum(len(task.prompt.ids) - 1 for task in tasks)
    assert tokens[1:] == [9, 9, 9, 9, 9, 8 * 8, 8, 8, 8, 8]  # the last token of an answer is read with its feedback


def test_sampling_draws_what_it_says_and_never_what_is_suppressed():
    params = SamplingParams(stop=(0,), suppressed=(1, 3), temperature=0.5)
    logits = torch.tensor([[0.0, 9.0, 0.5, 9.0]]).repeat(20000, 1)
    tokens, log_probs = params.draw(logits, torch.Generator().manual_seed(0))
    expected = torch.softmax(torch.tensor([0.0, 1.0]), 0)
    np.testing.assert_allclose(np.bincount(tokens, minlength=4) / 20000, [expected[0], 0, expected[1], 0], atol=0.015)
    torch.testing.assert_close(log_probs.exp(), torch.where(tokens == 0, *expected))
    assert set(replace(params, greedy=True).draw(logits, None)[0].tolist()) == {2}


def test_special_tokens_are_suppressed_but_for_the_end_of_a_turn(planner):
    tokenizer = planner.processor.tokenizer
    params = sampling_params(planner.model, tokenizer)
    assert tokenizer.decode(params.stop) == "<|im_end|>"
    assert {"<|image_pad|>", "<|im_start|>", "<|endoftext|>"} <= set(tokenizer.convert_ids_to_tokens(params.suppressed))


class Script:
    """Stands in for an engine: episode i says `answers[i][t]` in turn t. Keeps what each was told."""

    def __init__(self, planner, answers: list[list[str]]):
        self.tokenizer, self.answers, self.told = planner.processor.tokenizer, answers, []

    def open(self, prompts, group, generator):
        self.turns = [iter(answers) for answers in self.answers]
        return self

    def generate(self, episodes, deltas):
        self.told.append({e: self.tokenizer.decode(delta) for e, delta in zip(episodes, deltas, strict=True)})
        for episode in reversed(episodes):
            ids = self.tokenizer.encode(next(self.turns[episode]) + "<|im_end|>", add_special_tokens=False)
            yield episode, Completion(np.array(ids), np.zeros(len(ids), np.float32))


def plan(planner, poses=KEEPS_SPEED) -> str:
    return planner.format_answer(poses)


def test_what_becomes_of_answers(planner, tasks):
    """A clean plan ends its episode; a plan that stands still and a text without a plan are told so and go on."""
    standing = plan(planner, 0 * KEEPS_SPEED)
    script = Script(planner, [[plan(planner)], [standing, plan(planner)], ["(+01.00", "no", standing]])
    clean, revised, illegible = run_episodes(tasks[:1], planner, script, InProcessAssessor(assess), turns=3, group=3)

    assert [episode.status for episode in (clean, revised)] == [EpisodeStatus.COMPLETED] * 2
    assert illegible.status is EpisodeStatus.TRUNCATED
    assert [len(episode.turns) for episode in (clean, revised, illegible)] == [1, 2, 3]
    assert clean.turns[0].reward == clean.turns[0].score == 1.0
    np.testing.assert_allclose(clean.turns[0].poses, KEEPS_SPEED)
    assert 0.0 < revised.turns[0].reward == revised.turns[0].score < 0.6
    assert [turn.status for turn in illegible.turns] == [TurnStatus.PARSE_ERROR] * 2 + [TurnStatus.OK]
    assert [turn.reward for turn in illegible.turns[:2]] == [0.0, 0.0]
    assert illegible.turns[0].error == "missing_prefix"
    assert "Progress" in script.told[1][1]
    assert illegible.turns[0].feedback_text in script.told[1][2]
    assert set(script.told[2]) == {2}

    prompt = tasks[0].prompt.ids
    np.testing.assert_array_equal(revised.turns[0].delta_ids, prompt)
    assert planner.processor.tokenizer.decode(revised.turns[1].delta_ids) == script.told[1][1]


def test_a_failing_scorer_is_not_held_against_the_planner(planner, tasks):
    def broken(scene, poses):
        if scene.token == "scene1":
            raise ZeroDivisionError("no lane")
        return assess(scene, poses)

    script = Script(planner, [[plan(planner)] * 2] * 4)
    sound, _, *failed = run_episodes(tasks[:2], planner, script, InProcessAssessor(broken), turns=2, group=2)
    assert sound.turns[0].status is TurnStatus.OK
    for episode in failed:
        assert episode.status is EpisodeStatus.ERROR
        assert episode.turns[-1].error == "ZeroDivisionError: no lane"
        assert np.isnan(episode.turns[-1].reward)


def test_bad_input_of_the_scorer_is_raised(planner, tasks):
    def refusing(scene, poses):
        raise MTDriveError("The cache is damaged.")

    with pytest.raises(MTDriveError, match="damaged"):
        run_episodes(tasks[:1], planner, Script(planner, [[plan(planner)]]), InProcessAssessor(refusing), turns=1)


def test_a_scene_is_scored_while_answers_of_others_are_being_written(planner, tasks):
    """Submitted after the last of its answers, awaited only when the turn is over."""
    events = []

    class Telling(Script):
        def generate(self, episodes, deltas):
            for episode, completion in super().generate(episodes, deltas):
                events.append(episode)
                yield episode, completion

    class Awaited(Future):
        def result(self):
            events.append("awaited")
            return super().result()

    class Remote:
        def submit(self, scene, poses):
            events.append(scene.token)
            future = Awaited()
            future.set_result(assess(scene, poses))
            return future

    standing = plan(planner, 0 * KEEPS_SPEED)
    script = Telling(planner, [[standing, standing], [plan(planner)], [standing, standing], [standing, "no"]])
    run_episodes(tasks[:2], planner, script, Remote(), turns=2, group=2)
    first = [3, 2, "scene1", 1, 0, "scene0", "awaited", "awaited"]
    assert events[: len(first)] == first
    assert [event for event in events[len(first) :] if event != 1] == first[:3] + first[4:]


def test_an_image_is_not_sent_to_other_processes(tasks):
    with pytest.raises(TypeError, match="the image's hash"):
        pickle.dumps(tasks[0])


def test_an_answer_that_was_cut_off_is_closed_before_the_feedback(planner, tasks):
    engine = Engine(planner.model, sampling_params(planner.model, planner.processor.tokenizer), 3)
    generator = torch.Generator().manual_seed(1)
    [episode] = run_episodes(tasks[:1], planner, engine, InProcessAssessor(assess), turns=2, generator=generator)
    assert episode.turns[0].completion_ids[-1] != planner.processor.tokenizer.eos_token_id
    assert episode.turns[1].delta_ids[0] == planner.processor.tokenizer.eos_token_id
