"""`mtdrive sft`: supervised fine-tuning of a planner on a recorded dataset."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset

from mtdrive import __version__
from mtdrive.datasets.reader import load_image, load_samples, read_manifest, scene_set_of
from mtdrive.datasets.recording import digest
from mtdrive.evaluation.report.panels import read_log
from mtdrive.planner.card import Stage
from mtdrive.planner.fits import check_dataset
from mtdrive.planner.models import load_planner
from mtdrive.settings.training import SftSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import devkit_filters
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.splits import check_held_out
from mtdrive.terminal import terminal
from mtdrive.training.arguments import SFT, check_arguments, sft_arguments
from mtdrive.training.checkpoints import LOG_NAME
from mtdrive.training.expert_balance import ExpertBalance
from mtdrive.training.run import Run, is_main_process, settings_of
from mtdrive.training.sft_trainer import ReadImage, finetune

# What a run that goes on may change.
FREE = (
    *(
        "openscene_data_root",
        "nuplan_maps_root",
        "navsim_exp_root",
        "navsim_devkit_root",
        "dataset",
        "val_dataset",
        "out",
        "max_steps",
    ),
    *("batch_size", "gradient_accumulation_steps", "eval_steps", "eval_samples", "save_steps", "logging_steps"),
    *("activation_checkpointing", "report_to", "planner.device"),
)


def run(config: SftSettings) -> None:
    """Train and save a planner; see configs/sft.yaml."""
    check_arguments(config, SFT)
    samples = load(config)
    with only_run_in(Path(config.out)):
        train(config, *samples)
    if is_main_process():
        lines = [line for line in read_log(Path(config.out) / LOG_NAME) if "loss" in line]
        losses = f"loss {lines[0]['loss']:.3f} to {lines[-1]['loss']:.3f}"
        terminal().print(f"{lines[-1]['step']} steps, {losses}; planner in {config.out}")


def train(config: SftSettings, samples: Dataset, val: Dataset | None, read_image: ReadImage) -> None:
    """Train from where the run has come to, and save the planner."""
    manifest = read_manifest(Path(config.dataset))
    sizes = {"samples_per_step": samples_per_step(config), "dataset_digest": shards_digest(manifest)}
    run = Run(config.out, settings_of(config, FREE) | sizes, {"max_steps": config.max_steps})
    if not run.finished:
        planner = load_planner(config.planner)
        if not config.planner.allow_misfit:
            for root in filter(None, (config.dataset, config.val_dataset)):
                check_dataset(read_manifest(Path(root)), planner.style, root)
        run.begin()
        arguments = sft_arguments(config, val is not None, on_cpu=planner.model.device.type == "cpu")
        experts = ExpertBalance(**asdict(config.experts))
        trainer = finetune(planner, samples, val, read_image, arguments, experts)
        trainer.save_planner(planner.after(stage(config, manifest, trainer.state.global_step)).card)
        run.finish()


def stage(config: SftSettings, manifest: dict, steps: int) -> Stage:
    """What the planner has learned in a run of so many steps. manifest: of its dataset."""
    recipe = manifest["recipe"]
    return Stage(
        verb="sft",
        seed=config.seed,
        steps=steps,
        mtdrive=__version__,
        split=manifest["scene_set"]["name"],
        metric=recipe["metric"],
        metric_revision=manifest["metric_version"],
        feedback=recipe["feedback"],
        feedback_steps=recipe["feedback_steps"],
        turns=None,
        data=shards_digest(manifest),
    )


def shards_digest(manifest: dict) -> str:
    """Of all that a dataset holds."""
    return digest(sorted(manifest["shards"].values()))


def load(config: SftSettings) -> tuple[Dataset, Dataset | None, ReadImage]:
    """The samples to train on, those to evaluate on, and how their images are read.

    Raises:
        MTDriveError: a dataset that cannot be read, or a scene that is in both.
    """
    train_root = Path(config.dataset)
    train, val = load_samples(train_root), None
    cache_root, data_root = config.cache_root, config.openscene_data_root
    scenes = scene_set_of(read_manifest(train_root), train_root)
    filters = [] if config.devkit_root is None else [devkit_filters(config.devkit_root)]
    check_held_out(cache_root, scenes, None if data_root is None else Path(data_root), train["token"], filters)
    image_roots = dict.fromkeys(train["image"], train_root)
    if config.val_dataset is not None:
        val_root = Path(config.val_dataset)
        val = load_samples(val_root)
        shared = set(train["token"]) & set(val["token"])
        if shared:
            raise MTDriveError(f"{val_root} shares scene {min(shared)} with {train_root}; validate on other scenes.")
        val = val.select(range(min(config.eval_samples, len(val))))
        image_roots |= dict.fromkeys(val["image"], val_root)
    return train, val, lambda name: load_image(image_roots[name], name)


def samples_per_step(config: SftSettings) -> int:
    """Over all passes and devices."""
    return config.batch_size * config.gradient_accumulation_steps * int(os.environ.get("WORLD_SIZE", "1"))
