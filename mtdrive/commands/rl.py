"""`mtdrive rl`: multi-turn reinforcement learning of a planner on the scenes of a split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from transformers import PrinterCallback, ProgressCallback

from mtdrive import __version__
from mtdrive.datasets.recording import digest
from mtdrive.evaluation.report.panels import read_log
from mtdrive.planner.card import Stage
from mtdrive.planner.fits import feedback_steps_for
from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import EMBEDDED, Planner, load_planner
from mtdrive.rollout.multi_turn import Task
from mtdrive.rollout.vllm_engine import VLLMSettings, check_installed
from mtdrive.settings.training import RlSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import open_assessor
from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.navsim_format.images import decode_image, image_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.scene_cache.image_check import without_image
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.splits import check_held_out, check_training
from mtdrive.terminal import terminal
from mtdrive.training.advantages import AdvantageConfig, estimator
from mtdrive.training.arguments import RL, check_arguments, grpo_arguments
from mtdrive.training.checkpoints import LOG_NAME, LogFile, train_from_latest
from mtdrive.training.expert_balance import ExpertBalance
from mtdrive.training.mtgrpo_trainer import MTGRPOSettings, MTGRPOTrainer, scene_order
from mtdrive.training.policy_losses import PolicyLossConfig, policy_loss
from mtdrive.training.progress_bar import Progress, TokenBudget
from mtdrive.training.rewards import PdmsReward
from mtdrive.training.run import Run, is_main_process, settings_of

KEPT_SCENES = 512
# What a run that goes on may change.
FREE = (
    *(
        "openscene_data_root",
        "nuplan_maps_root",
        "navsim_exp_root",
        "navsim_devkit_root",
        "out",
        "max_steps",
        "max_generated_tokens",
    ),
    *("scenes_per_pass", "activation_checkpointing", "save_steps", "scoring_workers", "report_to", "planner.device"),
)


def run(config: RlSettings) -> None:
    """Train and save a planner; see configs/rl.yaml."""
    scenes = config.scene_filter.scene_set
    check_training(scenes, [config.cache_root, config.data_root / "navsim_logs"])
    check_arguments(config, RL)
    if config.planner.model in EMBEDDED:
        raise MTDriveError(
            f"planner={config.planner.model} has random weights and answers nothing; run mtdrive sft first."
        )
    if config.engine == "vllm":
        check_installed()
    passes, settings = passes_per_step(config), mtgrpo_settings(config)
    store = config.open_store()
    check_held_out(config.cache_root, scenes, config.data_root, store.tokens, config.filter_folders)
    with only_run_in(Path(config.out)):
        decisive = settings_of(config, FREE) | {"scenes_digest": digest(store.tokens)}
        run = Run(
            config.out, decisive, {"max_steps": config.max_steps, "max_generated_tokens": config.max_generated_tokens}
        )
        if not run.finished:
            train(config, passes, settings, store, run)
    if is_main_process():
        steps = [line for line in read_log(Path(config.out) / LOG_NAME) if "turns" in line]
        last = f"pdms/turn_{config.turns}"
        terminal().print(
            f"{steps[-1]['step']} steps, sampled PDMS of the last turn {steps[0][last]:.3f} to {steps[-1][last]:.3f}; "
            f"planner in {config.out}"
        )


def train(config: RlSettings, passes: int, settings: MTGRPOSettings, store: SceneStore, run: Run) -> None:
    """Train from where the run has come to, in `passes` passes a step, and save the planner."""
    planner, tokens = load_planner(config.planner), config.max_generated_tokens
    steps = feedback_steps_for(planner.card, config.feedback_steps, config.planner)
    scorer = partial(assess, metric=config.metric, source=config.feedback, steps=steps)
    with (
        open_tasks(config, planner, store) as (load, pixels),
        open_assessor(scorer, store, config.scoring_workers) as assessor,
    ):
        if config.engine == "vllm":
            settings = replace(settings, vllm=VLLMSettings(pixels, **asdict(config.vllm)))
        trainer = MTGRPOTrainer(
            planner,
            grpo_arguments(config, passes, on_cpu=planner.model.device.type == "cpu"),
            settings,
            scenes_with_images(config, store),
            load,
            assessor,
            callbacks=[*([TokenBudget(tokens)] if tokens else []), LogFile(config.out), Progress()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        run.begin()
        train_from_latest(trainer)
    stage = Stage(
        verb="rl",
        seed=config.seed,
        steps=trainer.state.global_step,
        mtdrive=__version__,
        split=store.scene_set.name,
        metric=config.metric,
        metric_revision=score_version(config.metric).revision,
        feedback=config.feedback,
        feedback_steps=steps,
        turns=config.turns,
        data=digest(store.tokens),
    )
    trainer.save_planner(planner.after(stage).card)
    run.finish()


def scenes_with_images(config: RlSettings, store: SceneStore) -> list[str]:
    """The scenes in the order in which they are driven; those without a front image that reads are passed over.

    Only the images of the scenes that the run comes to are looked at.

    Raises:
        MTDriveError: more of them than max_missing_images allows have none.
    """
    count = config.max_steps * config.scenes_per_step
    lacking: dict[str, str] = {}
    while True:
        order = scene_order(store.tokens, count, config.seed, lacking)
        found = without_image(config.data_root, store, list(dict.fromkeys(order)), config.max_missing_images)
        if not found:
            return order
        lacking |= found


@contextmanager
def open_tasks(
    config: RlSettings, planner: Planner, store: SceneStore
) -> Iterator[tuple[Callable[[str], Task], Callable[[str], np.ndarray]]]:
    """Scene token -> task, and the hash of a task's image -> (H, W, 3) uint8 RGB.

    A scene's image is processed once by all processes of this machine.
    """
    paths: dict[str, Path] = {}  # of the images that have been asked for, by hash
    scenes = lru_cache(maxsize=KEPT_SCENES)(store.load)

    def pixels(name: str) -> np.ndarray:
        return decode_image(paths[name])

    with ImageInputs(planner.processor, pixels, config.out) as images:

        def load(token: str) -> Task:
            scene = scenes(token)
            path = image_path(config.data_root, scene.split, scene.camera.image)
            image_hash = images.hash_of(path)
            paths[image_hash] = path
            return Task.from_inputs(planner, scene, image_hash, images[image_hash])

        yield load, pixels


def mtgrpo_settings(config: RlSettings) -> MTGRPOSettings:
    """What GRPOConfig has no field for, without vLLM's part.

    Raises:
        MTDriveError: there is no such estimator.
    """
    return MTGRPOSettings(
        turns=config.turns,
        estimator=estimator(config.estimator),
        advantage=AdvantageConfig(
            scale=config.scale_advantages,
            outcome_weight=config.outcome_weight,
            discount=config.discount,
            anchor_weight=config.anchor_weight,
            anchor_width=config.anchor_width,
        ),
        policy_loss=policy_loss(config.policy_loss),
        loss=PolicyLossConfig(clip=config.clip),
        filter_groups=config.filter_groups,
        reward=PdmsReward(config.format_bonus),
        shared_prefix=config.shared_prefix,
        draft=config.draft,
        train_draft_heads=config.train_draft_heads,
        experts=ExpertBalance(**asdict(config.experts)),
        max_scorer_errors=config.max_scorer_errors,
        max_parse_errors=config.max_parse_errors,
    )


def passes_per_step(config: RlSettings) -> int:
    """Forward and backward passes of this process in one step.

    Raises:
        MTDriveError: scenes_per_step does not divide among processes and passes.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_pass = config.scenes_per_pass or max(1, config.scenes_per_step // processes)
    if config.scenes_per_step % (per_pass * processes):
        raise MTDriveError(
            f"scenes_per_step={config.scenes_per_step} must be a multiple of {processes} (processes) times "
            f"{per_pass} (scenes_per_pass)."
        )
    return config.scenes_per_step // (per_pass * processes)
