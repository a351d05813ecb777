"""`mtdrive rl`: multi-turn reinforcement learning of a planner on the scenes of a split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from transformers import PrinterCallback, ProgressCallback

from mtdrive.datasets.recording import digest
from mtdrive.evaluation.report.panels import read_log
from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import TINY, Planner, load_planner
from mtdrive.rollout.multi_turn import Task
from mtdrive.rollout.vllm_engine import VLLMSettings, check_installed
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.structured import SOURCES
from mtdrive.simulation.feedback.worker_pool import open_assessor
from mtdrive.simulation.navsim_format.images import decode_image, image_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.runtime.processes import check_workers
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.splits import check_held_out, check_training_split
from mtdrive.terminal import terminal
from mtdrive.training.advantages import AdvantageConfig, estimator
from mtdrive.training.arguments import RL, check_arguments, grpo_arguments
from mtdrive.training.checkpoints import LOG_NAME, LogFile, train_from_latest
from mtdrive.training.mtgrpo_trainer import MTGRPOSettings, MTGRPOTrainer, scene_order
from mtdrive.training.policy_losses import PolicyLossConfig, policy_loss
from mtdrive.training.progress_bar import Progress, TokenBudget
from mtdrive.training.rewards import PdmsReward
from mtdrive.training.run import Run, is_main_process, settings_of

ENGINES = ("hf", "vllm")
KEPT_SCENES = 512
# What a run that goes on may change.
FREE = (
    *("openscene_data_root", "nuplan_maps_root", "navsim_exp_root", "out", "max_steps", "max_generated_tokens"),
    *("scenes_per_pass", "activation_checkpointing", "save_steps", "scoring_workers", "report_to", "planner.device"),
)


def run(config: DictConfig) -> None:
    """Train and save a planner; see configs/rl.yaml."""
    check(config)
    passes, settings = passes_per_step(config), mtgrpo_settings(config)
    cache_root = Path(config.navsim_exp_root) / "scene_cache"
    store = SceneStore(cache_root, config.split)
    check_held_out(cache_root, config.split, Path(config.openscene_data_root))
    with only_run_in(Path(config.out)):
        decisive = settings_of(config, FREE) | {"scenes_digest": digest(store.tokens)}
        run = Run(config.out, decisive, {name: config[name] for name in ("max_steps", "max_generated_tokens")})
        if not run.finished:
            train(config, passes, settings, store, run)
    if is_main_process():
        steps = [line for line in read_log(Path(config.out) / LOG_NAME) if "turns" in line]
        last = f"pdms/turn_{config.turns}"
        terminal().print(
            f"{steps[-1]['step']} steps, sampled PDMS of the last turn {steps[0][last]:.3f} to {steps[-1][last]:.3f}; "
            f"planner in {config.out}"
        )


def train(config: DictConfig, passes: int, settings: MTGRPOSettings, store: SceneStore, run: Run) -> None:
    """Train from where the run has come to, in `passes` passes a step, and save the planner."""
    planner, tokens = load_planner(config.planner), config.max_generated_tokens
    scorer = partial(assess, metric=config.metric, source=config.feedback, steps=config.feedback_steps)
    with (
        open_tasks(config, planner, store) as (load, pixels),
        open_assessor(scorer, store, config.scoring_workers) as assessor,
    ):
        if config.engine == "vllm":
            settings = replace(settings, vllm=VLLMSettings(pixels, **OmegaConf.to_container(config.vllm)))
        trainer = MTGRPOTrainer(
            planner,
            grpo_arguments(config, passes, on_cpu=planner.model.device.type == "cpu"),
            settings,
            scene_order(store.tokens, config.max_steps * config.scenes_per_step, config.seed),
            load,
            assessor,
            callbacks=[*([TokenBudget(tokens)] if tokens else []), LogFile(config.out), Progress()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        run.begin()
        train_from_latest(trainer)
    trainer.save_planner()
    run.finish()


@contextmanager
def open_tasks(
    config: DictConfig, planner: Planner, store: SceneStore
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
            path = image_path(config.openscene_data_root, config.split, scene.camera.image)
            image_hash = images.hash_of(path)
            paths[image_hash] = path
            return Task.from_inputs(planner, scene, image_hash, images[image_hash])

        yield load, pixels


def check(config: DictConfig) -> None:
    """Refuse values that cannot work, before anything is loaded.

    Raises:
        MTDriveError: an evaluation split, an unknown feedback source or engine, no vLLM where it is asked for, a
            planner without training, a missing data root, arguments that TRL's trainer cannot take (see
            `check_arguments`), or numbers out of range or that do not divide.
    """
    check_training_split(config.split)
    check_workers(config.scoring_workers, least=0, key="scoring_workers")
    check_arguments(config, RL)
    if config.feedback not in SOURCES:
        raise MTDriveError(f"There is no feedback source {config.feedback!r}: choose {' or '.join(SOURCES)}.")
    if config.planner.model == TINY:
        raise MTDriveError("planner.model=tiny has random weights and answers nothing; run mtdrive sft first.")
    if config.openscene_data_root is None:
        raise MTDriveError("Set openscene_data_root=... or the variable OPENSCENE_DATA_ROOT: the planner needs images.")
    if config.engine not in ENGINES:
        raise MTDriveError(f"There is no engine {config.engine!r}: choose {' or '.join(ENGINES)}.")
    if config.engine == "vllm":
        check_installed()
    for name, least in {
        "turns": 1,
        "max_steps": 1,
        "scenes_per_step": 1,
        "group_size": 2,
        "updates_per_step": 1,
    }.items():
        if config[name] < least:
            raise MTDriveError(f"{name}={config[name]} must be at least {least}.")
    if not 0 <= config.discount <= 1:
        raise MTDriveError(f"discount={config.discount} must lie between 0 and 1.")
    if not config.anchor_width > 0:
        raise MTDriveError(f"anchor_width={config.anchor_width} must be above 0.")
    if not config.temperature > 0:
        raise MTDriveError(f"temperature={config.temperature} must be above 0: training needs episodes that differ.")
    if config.save_steps % config.updates_per_step:
        raise MTDriveError(
            f"save_steps={config.save_steps} must be a multiple of updates_per_step={config.updates_per_step}, "
            "so that a checkpoint never falls between two updates on the same episodes."
        )


def mtgrpo_settings(config: DictConfig) -> MTGRPOSettings:
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
        max_scorer_errors=config.max_scorer_errors,
        max_parse_errors=config.max_parse_errors,
    )


def passes_per_step(config: DictConfig) -> int:
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
