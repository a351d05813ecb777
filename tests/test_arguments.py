"""Arguments of TRL's trainers: from our keys, passed through, or refused."""

from dataclasses import fields
from operator import attrgetter

import pytest
import torch
from transformers import get_scheduler
from trl import GRPOConfig, SFTConfig

from mtdrive import cli
from mtdrive.settings import load_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training import arguments

NEEDED = {
    "sft": ["dataset=nowhere", "out=out"],
    "rl": ["planner=some/folder", "out=out", "openscene_data_root=x"],
}


def sft(*overrides: str) -> SFTConfig:
    return arguments.sft_arguments(load_settings("sft", [*NEEDED["sft"], *overrides]), evaluates=False, on_cpu=True)


def grpo(*overrides: str) -> GRPOConfig:
    return arguments.grpo_arguments(load_settings("rl", [*NEEDED["rl"], *overrides]), passes=2, on_cpu=True)


@pytest.mark.parametrize(
    ("verb", "override", "message"),
    [
        ("rl", "trl.nonsense=1", "trl.nonsense does not exist: allowed are the arguments of trl.GRPOConfig that"),
        ("sft", "trl.beta=1", "trl.beta does not exist: allowed are the arguments of trl.SFTConfig that"),
        ("rl", "trl.beta=0.1", "trl.beta cannot be given: the key kl decides it"),
        ("sft", "trl.lr_scheduler_type=linear", "the key lr_schedule decides it"),
        ("rl", "trl.epsilon=0.1", "trl.epsilon would have no effect"),
        ("sft", "trl.packing=true", "trl.packing would have no effect"),
        ("rl", "trl.save_only_model=true", "trl.save_only_model cannot be given: mtdrive depends on its value False"),
        ("rl", "lr_schedule=step", "lr_schedule=step must be one of constant, linear, cosine"),
        ("sft", "warmup_steps=-1", "warmup_steps=-1 must be a whole number of at least 0"),
        ("sft", "report_to=[paper]", "report_to.0=paper must be one of tensorboard, trackio, wandb"),
        ("sft", "report_to=wandb", "must be a list of values, each one of tensorboard, trackio, wandb"),
        ("rl", "report_to=[wandb]", "pip install wandb"),
    ],
)
def test_what_trl_cannot_be_told_is_refused_before_anything_is_loaded(tmp_path, capsys, verb, override, message):
    assert cli.main([verb, *NEEDED[verb], f"out={tmp_path}/out", override]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_combination_that_trl_refuses_is_one_sentence():
    with pytest.raises(MTDriveError, match=r"TRL refuses the arguments of this run, with trl=.*fp16"):
        sft("trl.fp16=true", "trl.bf16=true")


def test_other_arguments_pass_through():
    assert (sft().bf16, sft().adam_beta2, sft().save_total_limit) == (False, 0.999, 2)
    changed = sft("trl.bf16=true", "trl.adam_beta2=0.9", "trl.save_total_limit=5")
    assert (changed.bf16, changed.adam_beta2, changed.save_total_limit) == (True, 0.9, 5)
    assert grpo("trl.weight_decay=0.1").weight_decay == 0.1
    assert grpo("report_to=[tensorboard]").report_to == ["tensorboard"]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.0, 0.5, 1.0, 0.8536, 0.5, 0.1464]),
    ],
)
@pytest.mark.parametrize("build", [sft, grpo])
def test_the_learning_rate_warms_up_and_goes_on_as_scheduled(build, schedule, shares):
    settings = build(f"lr_schedule={schedule}", "warmup_steps=2", "max_steps=6")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = get_scheduler(settings.lr_scheduler_type, optimizer, settings.warmup_steps, settings.max_steps)
    found = []
    for _ in shares:
        found += rates.get_last_lr()
        optimizer.step()
        rates.step()
    assert found == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize(("verb", "sources"), [("sft", arguments.SFT), ("rl", arguments.RL)])
def test_the_tables_name_arguments_and_keys_that_exist(verb, sources):
    known = {field.name for field in fields(sources.arguments)}
    assert sources.keys.keys() | sources.derived.keys() | sources.fixed.keys() | arguments.DEFAULTS.keys() <= known
    settings = load_settings(verb, NEEDED[verb])
    for key in [*sources.keys.values(), *sources.derived.values()]:
        attrgetter(key)(settings)
