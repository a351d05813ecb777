"""Steps that cannot be right end the run before a weight changes."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import load_planner
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.checkpoints import checkpoints
from mtdrive.training.sft_trainer import PlannerCollator, PlannerSFTTrainer, finetune, tokenise
from support.fine_tuning import arguments, read, sample
from support.planners import tiny_config
from support.training import any_text, assess_letters, make_trainer


@pytest.fixture
def planner():
    return load_planner(tiny_config())


@pytest.fixture
def samples(planner):
    return Dataset.from_list([sample(planner, index, 1) for index in range(8)])


def without_gradient(planner):
    for parameter in planner.model.parameters():
        parameter.register_hook(torch.zeros_like)
    return planner


def test_a_frozen_planner_is_refused(planner, samples, tmp_path):
    planner.model.requires_grad_(False)
    with pytest.raises(MTDriveError, match="No parameter of the planner is trainable"):
        finetune(planner, samples, None, read, arguments(tmp_path, max_steps=1))


def test_a_step_without_a_target_is_refused(planner, samples, tmp_path):
    rows = tokenise(samples, planner.processor).map(lambda row: {"labels": [-100] * row["length"]})
    settings = arguments(tmp_path, max_steps=1, remove_unused_columns=False, max_length=None)
    settings.dataset_kwargs = {"skip_prepare_dataset": True}
    with ImageInputs(planner.processor, read, tmp_path) as images:
        trainer = PlannerSFTTrainer(
            planner, PlannerCollator(planner.processor, images), args=settings, train_dataset=rows
        )
        with pytest.raises(MTDriveError, match="Step 1 has no target tokens"):
            trainer.train()


def test_a_first_step_without_a_gradient_ends_fine_tuning(planner, samples, tmp_path):
    with pytest.raises(MTDriveError, match="Step 1 has targets but a gradient of 0"):
        finetune(without_gradient(planner), samples, None, read, arguments(tmp_path, max_steps=1))


def test_a_loss_that_is_not_finite_ends_the_run_before_the_update(planner, samples, tmp_path):
    """Step 1 throws the weights so far that step 2 overflows."""
    saving = {"save_strategy": "steps", "save_steps": 1}
    with pytest.raises(MTDriveError, match=r"Step 2 has a loss of (nan|inf)"):
        finetune(planner, samples, None, read, arguments(tmp_path, max_steps=3, learning_rate=1e30, **saving))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1"]
    assert all(torch.isfinite(parameter).all() for parameter in planner.model.parameters())


def test_weights_that_are_not_finite_are_not_saved(planner, samples, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1}
    with pytest.raises(MTDriveError, match="Step 1 left weights that are not finite"):
        finetune(planner, samples, None, read, arguments(tmp_path, max_steps=3, learning_rate=1e39, **saving))
    assert not checkpoints(tmp_path)


def test_reinforcement_learning_may_begin_with_equal_rewards_but_not_without_a_gradient(planner, tmp_path):
    planner = replace(planner, max_new_tokens=8, parse_answer=any_text)

    def equal(scene, poses):
        return [replace(one, score=1.0) for one in assess_letters(scene, poses)]

    without_gradient(planner)
    make_trainer(planner, tmp_path, 2, assess=equal).train()
    with pytest.raises(MTDriveError, match="Step 1 has targets but a gradient of 0"):
        make_trainer(planner, tmp_path, 2).train()
