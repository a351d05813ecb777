"""The balance of experts: on made-up loads, in passes of a model, and over steps of both trainers."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from mtdrive.planner.models import Planner, load_planner
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.expert_balance import ExpertBalance, ExpertLoads, bias_update, group_loss, load_metrics
from mtdrive.training.sft_trainer import finetune
from support import fine_tuning
from support.planners import step_flash_config, tiny_config
from support.training import SETTINGS, any_text, load, make_trainer, steps_of

EXPERTS, CHOSEN, SPARSE, GROUPS = 8, 2, 3, 4
RATE = ExpertBalance().balance_rate


def made(**changes) -> Planner:
    return load_planner(
        step_flash_config(step_flash={"layers": SPARSE + 1, "experts": EXPERTS, "draft_heads": 0}, **changes)
    )


def biases(planner) -> torch.Tensor:
    layers = planner.model.model.language_model.layers[1:]
    return torch.stack([layer.mlp.gate.e_score_correction_bias for layer in layers]).clone()


def test_below_the_mean_load_the_bias_rises_and_above_it_falls():
    loads = torch.tensor([[10.0, 0.0, 2.0], [4.0, 4.0, 4.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[-0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(bias_update(loads, 0.5), expected)


@pytest.mark.parametrize(("rate", "balanced"), [(0.01, True), (0.0, False)])
def test_a_router_that_prefers_some_experts_is_balanced_by_nothing_else(rate, balanced):
    random = torch.Generator().manual_seed(0)
    bias, preference = torch.zeros(1, EXPERTS), torch.linspace(-1.5, 1.5, EXPERTS)
    for _ in range(200):
        scores = torch.sigmoid(preference + torch.randn(256, EXPERTS, generator=random))
        chosen = (scores + bias).topk(CHOSEN).indices
        loads = torch.bincount(chosen.flatten(), minlength=EXPERTS)[None].double()
        bias += bias_update(loads, rate)
    share = load_metrics(loads, 1.0, [0], GROUPS)
    assert (share["experts/largest_share"] < 1.5 / EXPERTS) == balanced
    assert (share["experts/smallest_share"] > 0.5 / EXPERTS) == balanced
    assert (share["experts/largest_group_share"] < 1.5 / GROUPS) == balanced


def test_what_the_log_says_of_made_up_loads():
    loads = torch.tensor([[6.0, 0.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    metrics = load_metrics(loads, 0.75, [1, 5])
    assert metrics["experts/layer_1/share_0"] == 0.75
    assert metrics["experts/layer_5/share_3"] == 0.25
    assert len(metrics) == 2 * 4 + 4
    assert (metrics["experts/largest_share"], metrics["experts/smallest_share"]) == (0.75, 0.0)
    assert (metrics["experts/dead"], metrics["experts/confidence"]) == (2.0, 0.75)
    grouped = load_metrics(loads, 0.75, [1, 5], 2)
    assert [grouped[f"experts/layer_1/group_share_{group}"] for group in range(2)] == [0.75, 0.25]
    assert grouped["experts/largest_group_share"] == 0.75
    assert len(grouped) == len(metrics) + 2 * 2 + 1


def test_routing_confidence_is_the_share_of_the_scores_that_is_on_the_experts_chosen():
    planner = made()
    loads = ExpertLoads(planner.model)
    (first, *_), (_, *others) = loads.routers, loads.routers
    with torch.no_grad():
        first.weight.zero_()
        first.weight[:CHOSEN, 0] = torch.tensor([2.0, 1.0])
        hidden = torch.zeros(5, len(first.weight[0]))
        hidden[:, 0] = 1.0
        scores = torch.sigmoid(torch.tensor([2.0, 1.0, *[0.0] * (EXPERTS - CHOSEN)]))
        for router in (first.train(), *others):
            router(hidden)
    loads.balance(lambda step: step)
    totals = loads.metrics()
    assert totals["experts/layer_1/share_0"] == 0.5
    assert totals["experts/confidence"] == pytest.approx(float(scores[:CHOSEN].sum() / scores.sum()))


def naive_group_loss(scores, chosen, groups: int) -> float:
    """The paper's sums, one by one."""
    (tokens, experts), loss = scores.shape, 0.0
    for group in range(groups):
        members = range(group * experts // groups, (group + 1) * experts // groups)
        choices = sum(int(expert in members) for row in chosen.tolist() for expert in row) / chosen.numel()
        mass = sum(float(scores[t, e] / scores[t].sum()) for t in range(tokens) for e in members) / tokens
        loss += groups * choices * mass
    return loss


def test_the_loss_of_groups_and_its_gradient():
    random = torch.Generator().manual_seed(0)
    scores = torch.rand(5, EXPERTS, generator=random, dtype=torch.float64, requires_grad=True)
    chosen = scores.topk(CHOSEN).indices
    loss = group_loss(scores, chosen, GROUPS)
    assert float(loss) == pytest.approx(naive_group_loss(scores, chosen, GROUPS))
    assert torch.autograd.gradcheck(lambda scores: group_loss(scores, chosen, GROUPS), scores)
    equal = torch.ones(EXPERTS, EXPERTS)
    assert float(group_loss(equal, torch.arange(EXPERTS)[:, None], GROUPS)) == pytest.approx(1.0)
    first = torch.zeros(3, EXPERTS).index_fill_(1, torch.tensor([0, 1]), 1.0)
    assert float(group_loss(first, first.topk(CHOSEN).indices, GROUPS)) == pytest.approx(GROUPS)


def test_a_router_that_prefers_one_group_is_balanced_by_the_loss_alone():
    random = torch.Generator().manual_seed(0)
    preference = torch.zeros(EXPERTS).index_fill_(0, torch.tensor([0, 1]), 1.5).requires_grad_()
    optimizer = torch.optim.SGD([preference], lr=1.0)

    def share() -> float:
        scores = torch.sigmoid(preference + torch.randn(512, EXPERTS, generator=random))
        chosen = scores.topk(CHOSEN).indices
        optimizer.zero_grad()
        group_loss(scores, chosen, GROUPS).backward()
        optimizer.step()
        return float((chosen < 2).double().mean())

    assert share() > 1.7 / GROUPS
    for _ in range(200):
        last = share()
    assert last < 1.2 / GROUPS


def test_experts_divide_into_groups():
    with pytest.raises(MTDriveError, match=r"experts\.groups=3 must divide the planner's 8 experts"):
        ExpertLoads(made().model, ExpertBalance(groups=3))


def test_tokens_of_training_count_and_padding_and_answers_do_not():
    planner = made()
    prompt = load(planner)["scene0"].prompt
    loads = ExpertLoads(planner.model)
    assert loads.layers == [1, 2, 3]
    ids = torch.from_numpy(prompt.ids)[None]
    padded = torch.nn.functional.pad(ids, (0, 7))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 7))

    def loads_of(ids, mask):
        planner.model(input_ids=ids, attention_mask=mask, pixel_values=prompt.images["pixel_values"])
        return loads.step.clone()

    assert not loads_of(ids, torch.ones_like(ids)).any()  # in eval mode
    planner.model.train()
    first = loads_of(ids, torch.ones_like(ids))
    assert first[:, :-1].sum(1).tolist() == [CHOSEN * ids.shape[1]] * SPARSE
    assert torch.allclose(loads_of(padded, mask) - first, first, atol=1e-3)


def test_the_step_is_balanced_by_the_loads_of_all_processes():
    planner = made()
    loads = ExpertLoads(planner.model, ExpertBalance(balance_rate=0.25))
    ours, theirs = torch.zeros(2, SPARSE, EXPERTS + 1, dtype=torch.float64)
    ours[:, 0], theirs[:, 1] = 3.0, 100.0  # alone, ours would lower the first expert
    loads.step += ours
    loads.balance(lambda step: step + theirs)
    expected = torch.full((SPARSE, EXPERTS), 0.25)
    expected[:, 1] = -0.25
    assert torch.equal(biases(planner), expected)
    assert loads.metrics()["experts/layer_1/share_1"] == 100 / 103
    assert loads.metrics() == {}


def test_a_rate_of_0_leaves_the_biases_alone_and_still_counts():
    planner = made()
    loads = ExpertLoads(planner.model, ExpertBalance(balance_rate=0.0))
    loads.step[:, 0] += 1.0
    loads.balance(lambda step: step)
    assert not biases(planner).any()
    assert loads.metrics()["experts/layer_1/share_0"] == 1.0


def test_biases_of_a_planner_in_bfloat16_keep_small_updates():
    planner = made(dtype="bfloat16")
    loads = ExpertLoads(planner.model)
    for _ in range(100):
        loads.step[:, 0] += 1.0
        loads.balance(lambda step: step)
    torch.testing.assert_close(biases(planner)[:, 1], torch.full((SPARSE,), 100 * RATE))


def test_supervised_steps_move_the_biases_and_log_the_loads(tmp_path):
    planner = made()
    samples = Dataset.from_list([fine_tuning.sample(planner, index, 1) for index in range(4)])
    arguments = fine_tuning.arguments(tmp_path, max_steps=3, logging_steps=1, per_device_train_batch_size=2)
    trainer = finetune(planner, samples, None, fine_tuning.read, arguments)
    moved = biases(planner) / RATE
    assert moved.any()
    torch.testing.assert_close(moved, moved.round())
    assert moved.abs().max() <= 3
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 3
    for line in lines:
        shares = [value for name, value in line.items() if name.startswith("experts/layer_2/share_")]
        assert len(shares) == EXPERTS
        assert sum(shares) == pytest.approx(1.0)
        assert 0.0 < line["experts/confidence"] < 1.0


def test_steps_of_reinforcement_learning_too(tmp_path):
    planner = replace(made(), parse_answer=any_text, max_new_tokens=8)
    trainer = make_trainer(planner, tmp_path, 2)
    trainer.train()
    assert biases(planner).any()
    assert all("experts/dead" in line for line in steps_of(trainer))


def test_reinforcement_learning_balances_groups_if_told_to(tmp_path):
    def train(out: str, experts: ExpertBalance) -> tuple[torch.Tensor, dict]:
        planner = replace(made(), parse_answer=any_text, max_new_tokens=8)
        trainer = make_trainer(planner, tmp_path / out, 1, settings=replace(SETTINGS, experts=experts))
        trainer.train()
        return planner.model.model.language_model.layers[2].mlp.gate.weight, steps_of(trainer)[0]

    first, line = train("off", ExpertBalance())
    again, _ = train("weight 0", ExpertBalance(groups=GROUPS, group_weight=0.0))
    other, grouped = train("on", ExpertBalance(groups=GROUPS, group_weight=1.0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert "experts/largest_group_share" in grouped.keys() - line.keys()


def test_other_planners_and_frozen_routers_are_left_alone(tmp_path):
    dense = load_planner(tiny_config())
    adapted = made(lora={"r": 2, "target_modules": ["q_proj"]})
    assert not ExpertLoads(dense.model).routers
    assert not ExpertLoads(adapted.model.get_base_model()).routers
    trainer = make_trainer(replace(dense, parse_answer=any_text, max_new_tokens=8), tmp_path, 1)
    trainer.train()
    assert not any(name.startswith("experts/") for name in steps_of(trainer)[0])


def test_a_resumed_run_has_the_same_biases(tmp_path):
    def train(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        planner = made()
        samples = Dataset.from_list([fine_tuning.sample(planner, index, 1) for index in range(4)])
        changes = {"max_steps": steps, "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 2}
        finetune(planner, samples, None, fine_tuning.read, fine_tuning.arguments(tmp_path / out, **changes))
        return biases(planner), planner.model.lm_head.weight

    out = "whole"
    whole = train(4)
    out = "resumed"
    train(2)
    assert all(torch.equal(*pair) for pair in zip(whole, train(4), strict=True))
