"""`mtdrive sft`: supervised fine-tuning of a planner on a recorded dataset."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from trl import SFTConfig

from mtdrive.datasets.reader import load_image, load_samples, read_manifest
from mtdrive.planner.models import load_planner
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.splits import check_held_out
from mtdrive.training.sft import finetune


def run(config: DictConfig) -> None:
    """Train and save a planner; see configs/sft.yaml."""
    train_root, out = Path(config.dataset), Path(config.out)
    train, val = load_samples(train_root), None
    cache_root, data_root = Path(config.navsim_exp_root) / "scene_cache", config.openscene_data_root
    split = read_manifest(train_root)["split"]
    check_held_out(cache_root, split, None if data_root is None else Path(data_root), train["token"])
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
    Console().print(f"{trainer.state.global_step} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}; planner in {out}")
