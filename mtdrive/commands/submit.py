"""`mtdrive submit`: a planner's plans as a submission pickle of navsim's leaderboards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from mtdrive.settings.submission import SubmitSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.agent_inputs import History, recorded_histories, synthetic_histories
from mtdrive.simulation.navsim_format.images import decode_image, read_image
from mtdrive.simulation.navsim_format.names import image_file
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.submission.pickles import KEYS_OF_VERSION, Team, write_submission
from mtdrive.terminal import terminal

if TYPE_CHECKING:
    from mtdrive.rollout.final_plan import Driver, FinalPlan

NAMED = 3  # scenes that constant velocity drives that are named

Plans = dict[str, "FinalPlan"]  # by scene token


def run(config: SubmitSettings) -> None:
    """Drive and write; see configs/submit.yaml."""
    with only_run_in(Path(config.out)):
        submit(config)


def submit(config: SubmitSettings) -> None:
    """Drive the scenes of every stage and write the files."""
    from mtdrive.planner.models import load_planner
    from mtdrive.rollout.final_plan import Driver

    planner = load_planner(config.planner)
    driver = Driver(planner)
    stages = [
        drive(driver, histories, read, config.batch_size, description) for description, histories, read in parts(config)
    ]
    if not any(stages):
        raise MTDriveError(f"There is no scene in split {config.split}.")
    if twice := stages[0].keys() & stages[-1].keys() if len(stages) > 1 else set():
        raise MTDriveError(f"Scene {min(twice)} is in both stages; check split and synthetic_scenes.")
    write_results(config, planner.style.name, stages)


def parts(config: SubmitSettings) -> Iterator[tuple[str, Iterator[tuple[str, History]], Callable[[str], np.ndarray]]]:
    """What is driven, stage by stage: what to call it, its scenes, and how the images are read that its frames name."""
    yield (
        f"submit {config.split}",
        recorded_histories(config.data_root, config.split),
        lambda image: read_image(config.data_root, config.split, image),
    )
    if len(KEYS_OF_VERSION[config.navsim]) > 1:
        source = config.synthetic_scenes
        yield (
            "submit synthetic scenes",
            iter(()) if source is None else synthetic_histories(source),
            lambda image: decode_image(Path(source or "").parent / "sensor_blobs" / image_file(image)),
        )


def drive(
    driver: Driver,
    histories: Iterator[tuple[str, History]],
    read: Callable[[str], np.ndarray],
    batch_size: int,
    description: str,
) -> Plans:
    """A plan for every scene, `batch_size` scenes at a time.

    Raises:
        MTDriveError: a scene occurs twice, or its frames do not read.
    """
    from mtdrive.rollout.final_plan import Sight

    plans: Plans = {}
    with tqdm(desc=description, unit="scene") as progress:
        while batch := list(islice(histories, batch_size)):
            sights = [Sight.of_frames(frames, read) for _, frames in batch]
            for (token, _), plan in zip(batch, driver.single_turn(sights), strict=True):
                if token in plans:
                    raise MTDriveError(f"Scene {token} occurs twice; a submission has one plan a scene.")
                plans[token] = plan
            progress.update(len(batch))
    return plans


def write_results(config: SubmitSettings, prompt: str, stages: list[Plans]) -> None:
    """The files, and what was done on the terminal."""
    out = Path(config.out)
    team = Team(config.team_name, config.authors, config.email, config.institution, config.country)
    poses = [{token: plan.poses for token, plan in plans.items()} for plans in stages]
    write_submission(out / "submission.pkl", config.navsim, team, poses)
    replaced = {token: plan.fallback for plans in stages for token, plan in plans.items() if plan.fallback}
    summary = {
        "mtdrive": version("mtdrive"),
        "navsim": config.navsim,
        "split": config.split,
        "synthetic_scenes": config.synthetic_scenes,
        "planner": config.planner.model,
        "prompt": prompt,
        "scenes": [len(plans) for plans in stages],
        "constant_velocity": replaced,
    }
    with atomic_path(out / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2))
    console = terminal()
    console.print(f"{sum(summary['scenes'])} scenes in {out / 'submission.pkl'} (navsim {config.navsim})")
    for reason, count in Counter(replaced.values()).most_common():
        named = [token for token, its in replaced.items() if its == reason]
        more = ", ..." if count > NAMED else ""
        console.print(
            f"constant velocity drives {count} of them ({reason}): {', '.join(named[:NAMED])}{more}", style="red"
        )
