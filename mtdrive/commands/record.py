"""`mtdrive record`: interactive samples of a split, as parquet shards and images."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtdrive import __version__
from mtdrive.datasets.builder import record
from mtdrive.datasets.reader import read_manifest
from mtdrive.datasets.recipe import Recipe
from mtdrive.datasets.recording import Recording
from mtdrive.datasets.validator import verify_dataset
from mtdrive.evaluation.families import read_families
from mtdrive.planner.conversation import conversation
from mtdrive.planner.prompt import prompt_style
from mtdrive.planner.wording import wording_fingerprint
from mtdrive.rollout.episode_file import read_episodes
from mtdrive.settings.data import RecordSettings
from mtdrive.simulation.splits import check_held_out, check_training
from mtdrive.terminal import terminal

MANY = 20  # problems that are printed


def run(config: RecordSettings) -> int:
    """Record a split, or check what was recorded; exit status 1 if rows disagree. See configs/record.yaml."""
    console = terminal()
    if config.check is not None:
        return check_rows(config, config.check, console)
    started = time.perf_counter()
    scenes = config.scene_filter.scene_set
    check_training(scenes, [config.cache_root, config.data_root / "navsim_logs"])
    store = config.open_store()
    check_held_out(config.cache_root, scenes, config.data_root, store.tokens, config.filter_folders)
    manifest, new = record(recording_of(config), store, config.workers)
    minutes = (time.perf_counter() - started) / 60.0
    print_counts(manifest, console)
    if left_out := manifest["scenes_without_image"]:
        console.print(f"{len(left_out):,} of {manifest['scenes']:,} scenes left out, which have no image: see above")
    console.print(f"{manifest['samples']} samples in {config.out}, {new} of them now: {new / minutes:.0f} a minute")
    return 0


def recording_of(config: RecordSettings) -> Recording:
    """What the configuration asks to be recorded.

    Raises:
        MTDriveError: no data root, an unknown prompt, or a damaged file of families or answers.
    """
    style = prompt_style(config.prompt)
    return Recording(
        sensor_root=config.data_root,
        cache_root=config.cache_root,
        scene_set=config.scene_filter.scene_set,
        out=Path(config.out),
        recipe=Recipe(
            **vars(config.recipe),
            metric=config.metric,
            feedback=config.feedback,
            feedback_steps=config.feedback_steps,
            seed=config.seed,
        ),
        to_messages=partial(conversation, style_name=config.prompt),
        wording=style.name,
        wording_fingerprint=wording_fingerprint(style),
        generator=f"mtdrive {__version__}",
        max_missing_images=config.max_missing_images,
        families=read_families(config.families) if config.families else {},
        answers=read_answers(Path(config.answers)) if config.answers else {},
    )


def check_rows(config: RecordSettings, rows: int, console: Console) -> int:
    """Simulate so many rows again and name those that disagree."""
    root = Path(config.out)
    checked, problems = verify_dataset(
        root,
        config.cache_root,
        partial(conversation, style_name=read_manifest(root)["wording"]),
        rows,
        config.seed,
        config.workers,
    )
    for problem in problems[:MANY]:
        console.print(Text.assemble((problem.where, "red"), f": {problem.what}"))
    console.print(f"{checked} rows of {root} simulated again, {len(problems)} problems")
    return 1 if problems else 0


def read_answers(path: Path) -> dict[str, np.ndarray]:
    """token -> plans (K, 8, 3) of all turns in a file of episodes. Raises MTDriveError as `read_episodes`."""
    plans: dict[str, list[np.ndarray]] = {}
    for episode in read_episodes(path)[1]:
        found = plans.setdefault(episode.scene_token, [])
        found.extend(turn.poses for turn in episode.turns if turn.poses is not None)
    return {token: np.stack(found) for token, found in plans.items() if found}


def print_counts(manifest: dict, console: Console) -> None:
    """What came out, by everything that a recipe balances."""
    table = Table(title=f"{manifest['scene_set']['name']}: {manifest['samples']} samples", box=None)
    table.add_column("")
    table.add_column("samples")
    for column, counts in manifest["counts"].items():
        if counts:
            table.add_row(column, ", ".join(f"{value} {count}" for value, count in counts.items()))
    console.print(table)
    if manifest["mean_score_of_corrections"] is not None:
        first, last = manifest["mean_score_of_first_plans"], manifest["mean_score_of_corrections"]
        console.print(f"mean score of flawed plans {first:.3f}, of their corrections {last:.3f}")
