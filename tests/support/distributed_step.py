"""One training step in this process or in two, on CPU (gloo); `test_distributed` compares what comes out."""

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from accelerate import DistributedType
from accelerate.state import AcceleratorState, PartialState
from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import load_planner
from mtdrive.training import mtgrpo_trainer as mtgrpo
from mtdrive.training.checkpoints import LogFile, latest_checkpoint
from mtdrive.training.draft_heads import OPTIMIZER
from mtdrive.training.expert_balance import ExpertBalance
from mtdrive.training.sft_trainer import PlannerCollator, PlannerSFTTrainer, tokenise
from support.fine_tuning import arguments, image, sample, worded
from support.planners import step_flash_config, tiny_config
from support.training import SETTINGS, any_text, make_trainer

SCENES, GROUP = 4, 4
SAMPLES, UNSEEN = 8, 5  # of supervised fine-tuning; an odd number is evaluated
PROCESSES = 2
LONGEST = "scene1"
GROUPS = ExpertBalance(groups=4, group_weight=1.0)


def step(out: Path, *, sharded: bool = False, recompute: bool = False, shared: bool = True, passes: int = 1) -> dict:
    """Gradients of one step by parameter.

    sharded: by FSDP2. recompute: activation checkpointing. shared: prompts. passes: of gradient accumulation.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    AcceleratorState._reset_state(reset_partial_state=True)
    planner = replace(load_planner(tiny_config()), max_new_tokens=8, parse_answer=any_text)
    gradients = Gradients(sharded)
    with by_scene(), fsdp_on_cpu():
        trainer = make_trainer(
            planner,
            out,
            1,
            settings=replace(SETTINGS, shared_prefix=shared),
            callbacks=[gradients],
            per_device_train_batch_size=SCENES * GROUP // (processes * passes),
            num_generations=GROUP,
            gradient_accumulation_steps=passes,
            activation_checkpointing=recompute,
            max_grad_norm=0.0,
            save_strategy="steps",
            fsdp=sharded,
            fsdp_config={"version": 2} if sharded else None,
        )
        assert trainer.is_fsdp_enabled == sharded
        trainer.train()
    return gradients.found


def sft_step(
    out: Path,
    *,
    passes: int = 1,
    sharded: bool = False,
    recompute: bool = False,
    experts: ExpertBalance | None = None,
    drafts: bool = False,
) -> dict:
    """Gradients of one step on plans and one-word answers by parameter, and the losses that are logged.

    Evaluates a plain planner unless it is sharded. Leaves a checkpoint and the planner.
    experts: of a planner that has some; then with its routers' biases after the step.
    drafts: of draft heads, in place of the planner's own.
    """
    evaluates = not (sharded or drafts) and experts is None
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    AcceleratorState._reset_state(reset_partial_state=True)
    planner = load_planner(step_flash_config() if drafts or experts is not None else tiny_config())
    rows = [sample(planner, i, 1) if i % 3 else worded(planner, i, "Yes.") for i in range(SAMPLES + UNSEEN)]
    gradients = Gradients(sharded)
    with fsdp_on_cpu(), ImageInputs(planner.processor, lambda name: image(int(name) % 8), out) as images:
        trainer = PlannerSFTTrainer(
            planner,
            PlannerCollator(planner.processor, images),
            args=arguments(
                out,
                max_steps=1,
                per_device_train_batch_size=SAMPLES // (processes * passes),
                per_device_eval_batch_size=2,
                gradient_accumulation_steps=passes,
                eval_strategy="steps" if evaluates else "no",
                eval_steps=1,
                logging_steps=1,
                max_grad_norm=0.0,
                save_strategy="steps",
                activation_checkpointing=recompute,
                fsdp=sharded,
                fsdp_config={"version": 2} if sharded else None,
                dataset_kwargs={"skip_prepare_dataset": True},
                remove_unused_columns=False,
                max_length=None,
            ),
            train_dataset=tokenise(Dataset.from_list(rows[:SAMPLES]), planner.processor),
            eval_dataset=tokenise(Dataset.from_list(rows[SAMPLES:]), planner.processor),
            callbacks=[gradients, LogFile(out)],
            experts=experts,
        )
        trainer.train()
        trainer.save_planner(planner.card)
    logged = {key: value for line in trainer.state.log_history for key, value in line.items()}
    if drafts:
        first_moments = torch.load(latest_checkpoint(out) / OPTIMIZER)["state"]  # a tenth of the gradients
        found = {f"weight {index}": moments["exp_avg"] for index, moments in first_moments.items()}
        return found | {key: torch.tensor(value) for key, value in logged.items() if key.startswith("draft/loss")}
    losses = {
        key: torch.tensor(float(logged[key])) for key in ("loss", "train_loss", "eval_loss", "tokens") if key in logged
    }
    after = {name: bias for name, bias in planner.model.named_buffers() if name.endswith("e_score_correction_bias")}
    return gradients.found | losses | after


class Gradients(TrainerCallback):
    def __init__(self, sharded: bool):
        self.sharded = sharded

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        def whole(gradient: torch.Tensor) -> torch.Tensor:
            assert isinstance(gradient, DTensor) == self.sharded
            return gradient.full_tensor() if self.sharded else gradient.clone()

        named = {name.removeprefix("module."): parameter for name, parameter in model.named_parameters()}
        self.found = {name: whole(parameter.grad) for name, parameter in named.items()}


@contextmanager
def by_scene():
    """Rollouts scene by scene, with randomness and turns that the scene alone decides: the same ones however they are
    spread, and not equally many forward passes in every process."""
    rollout = mtgrpo.run_episodes

    def run_episodes(tasks, *args, generator, turns, **kwargs):
        episodes = []
        for task in tasks:
            seeded = torch.Generator().manual_seed(sum(task.scene.token.encode()))
            taken = turns if task.scene.token == LONGEST else 1
            episodes += rollout([task], *args, generator=seeded, turns=taken, **kwargs)
        return episodes

    with patch.object(mtgrpo, "run_episodes", run_episodes):
        yield


@contextmanager
def fsdp_on_cpu():
    """Lets accelerate take its FSDP road on CPU, which it keeps to accelerators though torch can do it."""
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    with patch.object(AcceleratorState, "__init__", init):
        yield


def worker(rank: int, out: Path, port: int) -> None:
    """Every distributed way, one after the other; process 0 keeps what each gave."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    for passes in (1, 2):
        torch.save(sft_step(out / f"sft-{passes}", passes=passes), out / f"sft-{passes}-{rank}.pt")
    torch.save(sft_step(out / "experts", experts=GROUPS), out / f"experts-{rank}.pt")
    torch.save(sft_step(out / "drafts", passes=2, drafts=True), out / f"drafts-{rank}.pt")
    for sharded in (False, True):  # transformers leaves the environment of FSDP behind
        for recompute in (False, True):
            name = f"{'fsdp' if sharded else 'ddp'}{'-recompute' if recompute else ''}"
            result = step(out / name, sharded=sharded, recompute=recompute)
            torch.save(result, out / f"{name}-{rank}.pt")
    torch.save(sft_step(out / "experts-fsdp", sharded=True, experts=GROUPS), out / f"experts-fsdp-{rank}.pt")
    torch.save(sft_step(out / "sft-fsdp", sharded=True), out / f"sft-fsdp-{rank}.pt")
    torch.distributed.destroy_process_group()
