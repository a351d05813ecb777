"""Gradients and losses do not depend on how a step is spread: over passes, processes (DDP) or shards (FSDP2)."""

import socket

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file

from mtdrive.planner.models import load_planner
from mtdrive.training.checkpoints import latest_checkpoint
from mtdrive.training.expert_balance import ExpertBalance
from support.distributed_step import GROUPS, PROCESSES, sft_step, step, worker
from support.planners import tiny_config


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One process, one pass, every prompt computed for every episode."""
    return step(tmp_path_factory.mktemp("plain"), shared=False)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(worker, (out, free_port()), nprocs=PROCESSES)
    return out


def check(result: dict, plain: dict) -> None:
    assert result.keys() == plain.keys()
    for name, expected in plain.items():
        assert expected.norm() > 0, name
        assert (result[name] - expected).norm() <= 1e-5 * expected.norm(), name


@pytest.mark.parametrize("recompute", [False, True], ids=["", "activation_checkpointing"])
@pytest.mark.parametrize("passes", [1, 2])
def test_one_process_shared_prompts(plain, tmp_path, passes, recompute):
    check(step(tmp_path, passes=passes, recompute=recompute), plain)


@pytest.mark.parametrize("name", ["ddp", "ddp-recompute", "fsdp", "fsdp-recompute"])
def test_two_processes_shared_prompts(plain, two_processes, name):
    for rank in range(PROCESSES):
        check(torch.load(two_processes / f"{name}-{rank}.pt"), plain)


@pytest.fixture(scope="module")
def plain_sft(tmp_path_factory):
    return sft_step(tmp_path_factory.mktemp("plain_sft"))


@pytest.mark.parametrize("passes", [2, 4])
def test_fine_tuning_in_several_passes(plain_sft, tmp_path, passes):
    check(sft_step(tmp_path, passes=passes), plain_sft)


@pytest.mark.parametrize("name", ["sft-1", "sft-2", "sft-fsdp"])
def test_fine_tuning_in_two_processes(plain_sft, two_processes, name):
    expected = {key: value for key, value in plain_sft.items() if name != "sft-fsdp" or key != "eval_loss"}
    for rank in range(PROCESSES):
        check(torch.load(two_processes / f"{name}-{rank}.pt"), expected)
    assert load_planner(tiny_config(model=str(two_processes / name)))


@pytest.fixture(scope="module")
def with_groups(tmp_path_factory):
    """One process, with the passes that two processes make."""
    return sft_step(tmp_path_factory.mktemp("with_groups"), passes=PROCESSES, experts=GROUPS)


@pytest.mark.parametrize("name", ["experts", "experts-fsdp"])
def test_experts_are_balanced_over_two_processes(with_groups, two_processes, name):
    """Loads of all processes move the biases, and groups of experts are balanced within every pass."""
    for rank in range(PROCESSES):
        check(torch.load(two_processes / f"{name}-{rank}.pt"), with_groups)


def test_recomputed_activations_balance_groups_of_experts_alike(with_groups, tmp_path):
    check(sft_step(tmp_path, passes=PROCESSES, recompute=True, experts=GROUPS), with_groups)


def test_only_routers_and_what_lies_below_them_feel_the_balance_of_groups(with_groups, tmp_path):
    without = sft_step(tmp_path, passes=PROCESSES, experts=ExpertBalance())
    changed = {name for name, gradient in without.items() if not torch.equal(gradient, with_groups[name])}
    assert sum(name.endswith("mlp.gate.weight") for name in changed) == 7
    assert not changed & {"model.language_model.norm.weight", "loss", "tokens"}


def test_draft_heads_learn_the_same_in_several_passes_and_in_two_processes(two_processes, tmp_path):
    plain = sft_step(tmp_path / "plain", drafts=True)
    assert len(plain) == 48 + 3
    check(sft_step(tmp_path / "passes", passes=4, recompute=True, drafts=True), plain)
    for rank in range(PROCESSES):
        check(torch.load(two_processes / f"drafts-{rank}.pt"), plain)
    whole, split = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "plain", two_processes / "drafts")
    )
    assert whole.keys() == split.keys()


@pytest.mark.parametrize("name", ["ddp", "fsdp", "sft-1", "sft-fsdp"])
def test_a_checkpoint_of_two_processes_is_complete_with_the_files_of_both(two_processes, name):
    checkpoint = latest_checkpoint(two_processes / name)
    assert checkpoint.name == "checkpoint-1"
    (checkpoint / "rng_state_1.pth").unlink()
    assert latest_checkpoint(two_processes / name) is None
