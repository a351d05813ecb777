"""`mtdrive sft`: supervised fine-tuning of a planner on a recorded dataset."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from trl import SFTConfig

from mtdrive.datasets.reader import load_image, load_samples
from mtdrive.planner.models import load_planner
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.locks import only_run_in
from mtdrive.terminal import terminal
from mtdrive.training.sft import finetune


def run(config: DictConfig) -> None:
    """Train and save a planner; see configs/sft.yaml."""
    with only_run_in(Path(config.out)):
        train(config)


def train(config: DictConfig) -> None:
    """Load, train and save."""
    train_root, out = Path(config.dataset), Path(config.out)
    train, val = load_samples(train_root), None
    image_roots = dict.fromkeys(train["image"], train_root)
    if config.val_dataset is not None:
        val_root = Path(config.val_dataset)
        val = load_samples(val_root)
        shared = set(train["token"]) & set(val["token"])
        if shared:
            raise MTDriveError(f"{val_root} shares scene {min(shared)} with {train_root}; validate on other scenes.")
        val = val.select(range(min(config.eval_samples, len(val))))
        image_roots |= dict.fromkeys(val["image"], val_root)
    planner = load_planner(config.planner)
    arguments = SFTConfig(
        output_dir=str(out),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=4 * config.batch_size,
        train_sampling_strategy="group_by_length",  # conversations of one to four turns: least padding
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        logging_steps=config.logging_steps,
        eval_strategy="no" if val is None else "steps",
        eval_steps=config.eval_steps,
        save_steps=config.save_steps,
        save_total_limit=2,
        seed=config.seed,
        use_cpu=planner.model.device.type == "cpu",
        bf16=False,
        activation_checkpointing=config.activation_checkpointing,
        report_to=[],
    )
    trainer = finetune(planner, train, val, lambda name: load_image(image_roots[name], name), arguments)
    planner.save(out)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    terminal().print(f"{trainer.state.global_step} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}; planner in {out}")
