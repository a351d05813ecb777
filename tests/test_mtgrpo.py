"""mtGRPO: exact log-probabilities and gradients, what counts as an action, learning, failures, resuming."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from mtdrive import cli
from mtdrive.planner.answer import parse_answer
from mtdrive.planner.models import load_planner
from mtdrive.rollout import shared_prefix
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.multi_turn import Task
from mtdrive.rollout.sampling import sampling_params
from mtdrive.rollout.training_segments import TrainingSegments
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.advantages import ESTIMATORS, AdvantageConfig, estimator
from mtdrive.training.checkpoints import checkpoints, latest_checkpoint, train_from_latest
from mtdrive.training.log_probs import Continuation, add_scoring, plain_inputs, shared_prefix_inputs
from mtdrive.training.metrics import episode_metrics, merged
from mtdrive.training.mtgrpo_trainer import group_advantages, scene_order
from mtdrive.training.policy_batch import continuation
from mtdrive.training.progress_bar import TokenBudget
from support.pictures import image
from support.planners import tiny_config
from support.scenes import straight_scene
from support.training import SCENES, SETTINGS, any_text, assess_letters, load, make_trainer, steps_of, weights


def small_planner(**changes):
    """A tiny planner of short answers, each of which counts as a plan."""
    return replace(load_planner(tiny_config(**changes)), max_new_tokens=8, parse_answer=any_text)


@pytest.fixture
def planner():
    return small_planner()


@pytest.mark.parametrize(
    ("attention", "recompute"), [("sdpa", False), ("sdpa", True), ("eager", False), (shared_prefix.ATTENTION, False)]
)
def test_shared_prompts_give_the_log_probs_and_gradients_of_the_plain_pass(planner, attention, recompute):
    rng = np.random.default_rng(0)
    model, prompts = planner.model.train(), [task.prompt for task in load(planner).values()]
    params = sampling_params(model, planner.processor.tokenizer, 0.7)
    add_scoring(model, params)
    if recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    continuations = [
        Continuation(scene, rng.integers(50, 300, length), rng.random(length) < 0.6)
        for scene, length in [(0, 3), (0, 40), (0, 17), (1, 29), (2, 8), (2, 8)]
    ]
    results = []
    for build, used in ((plain_inputs, attention), (shared_prefix_inputs, shared_prefix.ATTENTION)):
        model.set_attn_implementation({"text_config": used})
        model.zero_grad()
        log_probs, entropies = model(**build(model, prompts, continuations))
        assert len(log_probs) == sum(c.action_mask.sum() for c in continuations)
        (log_probs * torch.linspace(-1, 1, len(log_probs))).sum().backward()
        results.append((log_probs, entropies, {name: p.grad for name, p in model.named_parameters()}))
    (plain, plain_entropy, plain_grads), (shared, shared_entropy, shared_grads) = results
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shared_entropy, plain_entropy, atol=1e-5, rtol=1e-5)
    for name, grad in plain_grads.items():
        assert grad.abs().sum() > 0, name
        assert (shared_grads[name] - grad).norm() <= 1e-5 * grad.norm(), name


@pytest.mark.parametrize("build", [plain_inputs, shared_prefix_inputs])
def test_images_swapped_between_scenes_swap_their_log_probs(planner, build):
    """Of the same tokens after the same text."""
    model = planner.model
    prompts = [Task.from_scene(planner, straight_scene(), image(seed)).prompt for seed in (0, 1)]
    swapped = [replace(prompt, images=other.images) for prompt, other in zip(prompts, prompts[::-1], strict=True)]
    shared_prefix.enable(model)
    add_scoring(model, sampling_params(model, planner.processor.tokenizer))
    same = [Continuation(scene, np.arange(60, 90), np.ones(30, dtype=bool)) for scene in (0, 1)]
    with torch.no_grad():
        before, after = (model(**build(model, given, same))[0].view(2, -1) for given in (prompts, swapped))
        alone = torch.stack([model(**build(model, [prompt], same[:1]))[0] for prompt in prompts])
    torch.testing.assert_close(before, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after, before.flip(0), atol=1e-5, rtol=1e-5)
    assert (after - before).abs().max() > 1e-3


def test_prompt_and_own_tokens_attended_apart_and_joined_agree():
    """Grouped heads, prompts and episodes of different lengths; gradients of everything that goes in."""
    torch.manual_seed(0)
    prompts, episodes, scenes = [5, 9, 7], [3, 4, 6, 2, 5, 5], [0, 0, 0, 1, 2, 2]
    shapes = [(4, sum(episodes), 8), *[(2, sum(episodes), 8)] * 2, *[(3, 2, max(prompts), 8)] * 2]
    inputs = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    weights = torch.randn(sum(episodes), 4, 8, dtype=torch.double)
    results = []
    for way in ("apart", "joined"):
        segments = TrainingSegments(prompts, episodes, scenes)
        out = getattr(segments, way)(*inputs, 0.3)
        results.append([out, *torch.autograd.grad(out, inputs, weights)])
    for apart, joined in zip(*results, strict=True):
        torch.testing.assert_close(apart, joined, atol=1e-12, rtol=1e-12)


def episode(rewards: list[float], answers: list[list[int]], deltas: list[list[int]]) -> Episode:
    turns = tuple(
        Turn(np.array(delta), np.array(answer), np.full(len(answer), -1.0, np.float32), "", TurnStatus.OK, reward, "")
        for reward, answer, delta in zip(rewards, answers, deltas, strict=True)
    )
    return Episode("scene0", "", turns, EpisodeStatus.TRUNCATED)


def test_only_what_the_planner_wrote_is_an_action():
    c = continuation(4, episode([0.0, 1.0], [[11, 12], [15]], [[1, 2, 3], [13, 14]]))
    assert c.scene == 4
    np.testing.assert_array_equal(c.ids, [11, 12, 13, 14, 15])
    np.testing.assert_array_equal(c.action_mask, [True, True, False, False, True])


def test_the_loss_is_the_policy_gradient_of_turn_advantages(planner, tmp_path):
    """Of one step: the mean over all written tokens of -advantage * log-probability, by the plain pass."""
    trainer = make_trainer(planner, tmp_path, 1, per_device_train_batch_size=12)
    planner.model.train()
    [batch] = trainer.rollout([{"prompt": token} for token in SCENES for _ in range(4)])
    kept, tokens = batch.continuations, batch.tokens
    assert len(tokens.sampled) == sum(c.action_mask.sum() for c in kept)
    np.testing.assert_array_equal(torch.bincount(tokens.episode), [c.action_mask.sum() for c in kept])

    planner.model.zero_grad()
    trainer.compute_loss(planner.model, batch).backward()
    ours = {name: p.grad.clone() for name, p in planner.model.named_parameters()}
    planner.model.zero_grad()
    log_probs, _ = planner.model(**plain_inputs(planner.model, batch.prompts, kept))
    torch.testing.assert_close(log_probs.detach(), tokens.sampled, atol=1e-5, rtol=1e-5)
    (-(tokens.advantages * log_probs).sum() / batch.denominator).backward()
    for name, p in planner.model.named_parameters():
        assert (ours[name] - p.grad).norm() <= 1e-4 * p.grad.norm() + 1e-9, name


def watched(trainer) -> dict[str, float]:
    """What the trainer has to log."""
    trainer.log({})
    return trainer.state.log_history[-1]


@pytest.mark.parametrize("filtered", [False, True])
def test_groups_without_advantage_stay_in_the_denominator_unless_filtered(planner, tmp_path, filtered):
    def flat_but_for_one(scene, poses):
        results = assess_letters(scene, poses)
        return results if scene.token == "scene1" else [replace(r, score=0.0, clean=False) for r in results]

    settings = replace(SETTINGS, filter_groups=filtered)
    size = {"num_generations": 6, "per_device_train_batch_size": 18}  # six times 0.05 is not 0.3
    trainer = make_trainer(planner, tmp_path, 1, settings=settings, assess=flat_but_for_one, **size)
    planner.model.train()
    [batch] = trainer.rollout([{"prompt": token} for token in SCENES for _ in range(6)])
    assert len(batch.prompts) == 1
    assert len(batch.continuations) == 6
    assert (batch.denominator == len(batch.tokens.sampled)) == filtered
    assert (batch.denominator > 2 * len(batch.tokens.sampled)) != filtered
    assert watched(trainer)["groups_without_gradient"] == pytest.approx(2 / 3)


def test_scenes_with_the_same_text_are_two_groups(planner, tmp_path):
    """Plans of one are worth 10 more: nothing of that may show, since its plans are compared with one another alone."""

    def dearer(scene, poses):
        more = 10.0 * (scene.token == "scene1")
        return [replace(result, score=result.score + more) for result in assess_letters(scene, poses)]

    settings = replace(SETTINGS, advantage=AdvantageConfig(scale=False))
    tasks = {
        token: Task.from_scene(planner, straight_scene(token=token), image(seed))
        for seed, token in enumerate(SCENES[:2])
    }
    np.testing.assert_array_equal(tasks["scene0"].prompt.ids, tasks["scene1"].prompt.ids)
    trainer = make_trainer(planner, tmp_path, 1, settings=settings, assess=dearer, tasks=tasks)
    planner.model.train()
    [batch] = trainer.rollout([{"prompt": token} for token in tasks for _ in range(4)])
    first, second = (prompt.images["pixel_values"] for prompt in batch.prompts)
    assert not torch.equal(first, second)
    for scene in (0, 1):
        rows = [row for row, c in enumerate(batch.continuations) if c.scene == scene]
        starts = [int((batch.tokens.episode == row).nonzero()[0, 0]) for row in rows]
        of_first_turn = batch.tokens.advantages[starts]
        assert 0.0 < of_first_turn.abs().max() < 1.0
        assert of_first_turn.sum() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_it_learns(planner, tmp_path, name):
    settings = replace(SETTINGS, estimator=estimator(name))
    trainer = make_trainer(planner, tmp_path, 20, settings=settings, learning_rate=1e-2, num_generations=8)
    trainer.train()
    rewards = [[step["reward/turn_1"], step["reward/turn_2"]] for step in steps_of(trainer)]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.1
    assert max(step["clip_ratio/region_mean"] for step in steps_of(trainer)) == 0.0  # one update: old and new agree


def test_accumulated_passes_add_up_to_one(planner, tmp_path):
    updated = []
    for passes in (1, 2):
        again = small_planner()
        make_trainer(
            again,
            tmp_path / str(passes),
            2,
            per_device_train_batch_size=8 // passes,
            gradient_accumulation_steps=passes,
            learning_rate=1e-2,
            optim="sgd",
        ).train()
        updated.append(weights(again))
    moved = max((updated[0][name] - value).abs().max() for name, value in weights(planner).items())
    assert moved > 1e-4
    for name, value in updated[0].items():
        torch.testing.assert_close(updated[1][name], value, atol=1e-3 * moved, rtol=0)


def test_divergence_from_the_reference_is_held_down(planner, tmp_path):
    planner.save(tmp_path / "start")
    divergence = []
    for beta in (1e-6, 30.0):
        trainer = make_trainer(small_planner(model=str(tmp_path / "start")), tmp_path / str(beta), 4, beta=beta)
        trainer.train()
        divergence.append([step["kl"] for step in steps_of(trainer)])
    assert divergence[0][0] == pytest.approx(0.0, abs=1e-6)
    assert divergence[0][-1] > 2 * divergence[1][-1] > 0


class StopAfter(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("adapted", [False, True])
def test_a_run_that_was_cut_off_goes_on_exactly(planner, tmp_path, adapted):
    """Of all weights, or of an adapter held to what it was in the beginning."""
    saving = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "beta": 0.1 * adapted}
    planner.save(tmp_path / "start")
    if adapted:
        planner.save(tmp_path / "whole")
        config = {"model": str(tmp_path / "whole"), "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]}}
        load_planner(tiny_config(**config)).save(tmp_path / "start")

    def start():
        return small_planner(model=str(tmp_path / "start"))

    straight, cut, resumed = start(), start(), start()
    make_trainer(straight, tmp_path / "straight", 5, **saving).train()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(cut, tmp_path / "cut", 5, callbacks=[StopAfter(3)], **saving).train()
    shutil.copytree(tmp_path / "cut/checkpoint-2", tmp_path / "cut/checkpoint-4")
    (tmp_path / "cut/checkpoint-4/trainer_state.json").write_text('{"cut')
    checkpoint = latest_checkpoint(tmp_path / "cut")
    assert checkpoint.name == "checkpoint-2"
    make_trainer(resumed, tmp_path / "cut", 5, **saving).train(resume_from_checkpoint=str(checkpoint))
    for name, value in weights(straight).items():
        torch.testing.assert_close(weights(resumed)[name], value, atol=0, rtol=0)
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if "seconds" not in key and "time" not in key}
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
            if "turns" in json.loads(line)
        ]
        for name in ("straight", "cut")
    ]
    assert logs[0] == logs[1]
    assert [entry["step"] for entry in logs[0]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("end", ["max_steps", "tokens"])
def test_a_run_at_its_end_takes_no_further_step(planner, tmp_path, end):
    """Two updates on the same episodes, so that the trainer's own epoch would not be over."""

    def run(start):
        budget, steps = ([TokenBudget(1)], 8) if end == "tokens" else ([], 4)
        saving = {"save_strategy": "steps", "save_steps": 2, "num_iterations": 2}
        trainer = make_trainer(start, tmp_path, steps, callbacks=budget, **saving)
        train_from_latest(trainer)
        return trainer

    first = run(planner)
    again = small_planner(model=str(checkpoints(tmp_path)[0]))
    before = weights(again)
    second = run(again)
    last = 4 if end == "max_steps" else 1
    assert first.state.global_step == second.state.global_step == last
    assert checkpoints(tmp_path)[0].name == f"checkpoint-{last}"
    assert all(torch.equal(value, weights(again)[name]) for name, value in before.items())
    ends = [trainer.state.log_history[-1]["train_loss"] for trainer in (first, second)]
    assert ends[0] == ends[1]


def test_a_trained_adapter_is_saved_so_that_it_loads(planner, tmp_path):
    planner.save(tmp_path / "start")
    lora = {"r": 2, "target_modules": ["q_proj"]}
    adapted = load_planner(tiny_config(model=str(tmp_path / "start"), lora=lora))
    make_trainer(adapted, tmp_path / "out", 1).save_planner(adapted.card)
    assert load_planner(tiny_config(model=str(tmp_path / "out")))


def test_a_failing_scorer_costs_its_group_and_too_many_end_the_run(planner, tmp_path):
    def broken(scene, poses):
        if scene.token == "scene1":
            raise ZeroDivisionError
        return assess_letters(scene, poses)

    trainer = make_trainer(planner, tmp_path, 1, assess=broken, per_device_train_batch_size=12)
    planner.model.train()
    [batch] = trainer.rollout([{"prompt": token} for token in SCENES for _ in range(4)])
    assert len(batch.prompts) == 2
    assert watched(trainer)["scorer_errors"] == pytest.approx(1 / 3)
    with pytest.raises(MTDriveError, match="scorings failed"):
        make_trainer(planner, tmp_path, 10, assess=broken).train()


def test_a_planner_whose_answers_do_not_parse_ends_the_run(planner, tmp_path):
    planner = replace(planner, parse_answer=parse_answer)
    settings = replace(SETTINGS, max_parse_errors=0.25)
    with pytest.raises(MTDriveError, match="supervised fine-tuning"):
        make_trainer(planner, tmp_path, 10, settings=settings).train()


def test_a_group_with_a_scorer_failure_gives_no_advantage():
    sound = [episode([0.1, 0.9], [[1], [2]], [[3], [4]]), episode([0.5], [[1]], [[3]])]
    failed = replace(sound[0], status=EpisodeStatus.ERROR)
    raw = replace(SETTINGS, advantage=AdvantageConfig(scale=False))
    np.testing.assert_allclose(group_advantages(sound, 2, raw), [[-0.2, 0.2], [0.2, 0.0]])
    assert not group_advantages([failed, sound[1]], 2, raw).any()


def test_metrics_say_what_is_in_force():
    first = episode([0.4, 0.0], [[1], [2, 2]], [[3], [4]])
    turns = (
        replace(first.turns[0], score=0.4, scores={"comfort": 1.0}, poses=np.arange(1, 9)[:, None] * [2.0, 0, 0]),
        replace(first.turns[1], status=TurnStatus.PARSE_ERROR),
    )
    second = episode([0.9], [[1]], [[3]])
    clean = replace(second.turns[0], score=0.9, scores={"comfort": 0.0}, clean=True, poses=np.zeros((8, 3)))
    group = [replace(first, turns=turns), replace(second, turns=(clean,), status=EpisodeStatus.COMPLETED)]
    sums = episode_metrics([group], np.array([[[1.0, 0.0], [0.0, 0.0]]]), 2)
    means = {name: total / count for name, (total, count) in merged([sums, sums]).items()}
    expected = {
        "pdms/turn_1": 0.65,
        "pdms/turn_2": 0.65,
        "comfort/turn_2": 0.5,
        "parse_errors/turn_1": 0.0,
        "parse_errors/turn_2": 1.0,
        "turns": 1.5,
        "clean": 0.5,
        "standing": 0.5,
        "reversing": 0.0,
        "reward_std": 0.45,
        "groups_without_gradient": 0.0,
        "episodes_without_gradient": 0.5,
        "sampling_entropy": 1.0,
        "scorer_errors": 0.0,
    }
    assert {name: means[name] for name in expected} == pytest.approx(expected)


def test_the_order_of_scenes_is_fixed_and_grows_at_its_end():
    order = scene_order(SCENES, 7, 3)
    assert sorted(order[:3]) == sorted(order[3:6]) == SCENES
    assert scene_order(SCENES, 20, 3)[:7] == order


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split=navtest", "evaluation alone"),
        ("split=test_small", "evaluation alone"),
        ("planner.model=tiny", "mtdrive sft first"),
        ("estimator=ppo", "one of grpo"),
        ("group_size=1", "at least 2"),
        ("temperature=0", "above 0"),
        ("feedback=oracle", "one of privileged"),
        ("scenes_per_pass=3", "multiple of"),
    ],
)
def test_the_verb_refuses(tmp_path, capsys, override, message):
    keys = [f"out={tmp_path / 'out'}", "openscene_data_root=x", "planner.model=tiny2", override]
    assert cli.main(["rl", *keys]) == 2
    assert message in capsys.readouterr().err


def test_rollouts_and_loss_compute_in_half_precision_where_it_is_asked_for(planner, tmp_path):
    trainer = make_trainer(planner, tmp_path, 1, bf16=True)
    trainer.train()
    exact = make_trainer(small_planner(), tmp_path, 1)
    exact.train()
    entropies = [steps_of(made)[0]["entropy"] for made in (trainer, exact)]
    assert entropies[0] != entropies[1]
    assert entropies[0] == pytest.approx(entropies[1], rel=0.02)


def test_a_run_that_logs_nothing_ends_well(planner, tmp_path):
    trainer = make_trainer(planner, tmp_path, 1, logging_strategy="no")
    trainer.train()
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])
