"""`mtdrive record`: interactive samples of a split, as parquet shards and images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from mtdrive.datasets.builder import record
from mtdrive.datasets.interactions import Recipe
from mtdrive.datasets.schema import Interaction
from mtdrive.planner.answer import format_answer
from mtdrive.planner.prompt import SceneView, messages, prompt_style
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.splits import check_training_split


def conversation(scene: Scene, image_hash: str, sample: Interaction, style_name: str) -> list[dict]:
    """The messages of one sample, the target answer last."""
    style = prompt_style(style_name)
    view = SceneView(
        token=scene.token,
        image=np.empty((0, 0, 3), np.uint8),
        image_hash=image_hash,
        history_poses=scene.history_poses,
        velocity=scene.velocity,
        acceleration=scene.acceleration,
        command=scene.command,
    )
    exchanges = [(format_answer(turn.poses, style.integer_digits), turn.feedback) for turn in sample.exchanges]
    answer = format_answer(sample.target.poses, style.integer_digits)
    return [*messages(view, exchanges, style), {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def run(config: DictConfig) -> None:
    """Record a split; see configs/record.yaml."""
    check_training_split(config.split)
    if config.openscene_data_root is None:
        raise MTDriveError("Set openscene_data_root=... or the variable OPENSCENE_DATA_ROOT.")
    recipe = Recipe(
        one_turn=config.one_turn,
        two_turns=config.two_turns,
        three_turns=config.three_turns,
        metric=config.metric,
        feedback=config.feedback,
        seed=config.seed,
    )
    prompt_style(config.prompt)
    manifest = record(
        sensor_root=Path(config.openscene_data_root),
        cache_root=Path(config.navsim_exp_root) / "scene_cache",
        split=config.split,
        out=Path(config.out),
        recipe=recipe,
        to_messages=partial(conversation, style_name=config.prompt),
        workers=config.workers,
    )
    by_turns = ", ".join(f"{count} of {turns} turn(s)" for turns, count in manifest["samples_by_turns"].items())
    Console().print(f"{manifest['samples']} samples ({by_turns}) in {config.out}")
