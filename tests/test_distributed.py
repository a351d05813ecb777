"""Gradients do not depend on how a step is spread: over passes, over processes (DDP), over shards (FSDP2)."""

import socket

import pytest
import torch
import torch.multiprocessing
from distributed_step import PROCESSES, step, worker


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
