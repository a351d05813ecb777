"""`mtdrive submit`: a planner's plans as a submission pickle of navsim's leaderboards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mtdrive.planner.log_views import view_of_frames
from mtdrive.planner.prompt import SceneView
from mtdrive.settings.submission import SubmitSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.agent_inputs import History, recorded_histories, synthetic_histories
from mtdrive.simulation.navsim_format.images import check_image, image_path
from mtdrive.simulation.navsim_format.logs import front_camera
from mtdrive.simulation.navsim_format.names import image_file
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.submission.pickles import KEYS_OF_VERSION, Team, write_submission
from mtdrive.terminal import terminal

if TYPE_CHECKING:
    from mtdrive.rollout.final_plan import Driver, FinalPlan

NAMED = 3  # scenes that a message names

Plans = dict[str, "FinalPlan"]  # by scene token


@dataclass(frozen=True)
class Seen:
    """What is read of a scene before it is driven."""

    view: SceneView
    """What the planner is told, still without the image's hash."""

    image: Path | None
    """File of the front image; None if there is none that reads."""


def run(config: SubmitSettings) -> None:
    """Drive and write; see configs/submit.yaml."""
    with only_run_in(config.folder):
        submit(config)


def submit(config: SubmitSettings) -> None:
    """Read the scenes of every stage, drive them and write the files."""
    from mtdrive.planner.models import load_planner
    from mtdrive.rollout.final_plan import Driver

    stages = read_stages(config)
    check_images(stages, config.max_missing_images)
    planner = load_planner(config.planner)
    driver = Driver(planner)
    plans = [drive(driver, scenes, config.batch_size) for scenes in stages]
    write_results(config, planner.style.name, plans)


def read_stages(config: SubmitSettings) -> list[dict[str, Seen]]:
    """The scenes of every stage, by token.

    Raises:
        MTDriveError: there are none, one occurs twice, or a log or a frame does not read.
    """
    scenes, named = config.scene_filter, config.named_tokens
    of_log = partial(image_path, config.data_root, scenes.data_split)
    stages = [seen(recorded_histories(config.data_root, scenes), of_log, named)]
    if len(KEYS_OF_VERSION[config.navsim]) > 1:
        source = config.synthetic_scenes
        histories = () if source is None else synthetic_histories(source, scenes.synthetic_tokens or None)
        stages.append(seen(histories, partial(_beside, Path(source or "")), named))
    if not any(stages):
        raise MTDriveError(f"There is no scene of {scenes.scene_set}.")
    if twice := {token for token in stages[0] if token in stages[-1]} if len(stages) > 1 else set():
        raise MTDriveError(f"Scene {min(twice)} is in both stages; check split and synthetic_scenes.")
    return stages


def _beside(synthetic_scenes: Path, image: str) -> Path:
    """An image of a synthetic scene: navsim keeps them in a folder beside that of the scenes."""
    return synthetic_scenes.parent / "sensor_blobs" / image_file(image)


def seen(
    histories: Iterable[tuple[str, History]], locate: Callable[[str], Path], named: Collection[str] | None
) -> dict[str, Seen]:
    """Scenes by token.

    Args:
        histories: token and frames up to t0.
        locate: file of the image that a frame names; raises MTDriveError if it is not there.
        named: the scenes to take; None for all.
    """
    scenes: dict[str, Seen] = {}
    for token, frames in tqdm(histories, desc="scenes", unit="scene"):
        if named is not None and token not in named:
            continue
        if token in scenes:
            raise MTDriveError(f"Scene {token} occurs twice; a submission has one plan a scene.")
        try:
            image = locate(front_camera(frames[-1]).image)
            check_image(image)
        except MTDriveError:
            image = None
        scenes[token] = Seen(view_of_frames(frames, ""), image)
    return scenes


def check_images(stages: list[dict[str, Seen]], most: float) -> None:
    """Raises MTDriveError if more than this share of the scenes has no front image that reads."""
    lacking = [token for scenes in stages for token, scene in scenes.items() if scene.image is None]
    count = sum(map(len, stages))
    if len(lacking) > most * count:
        raise MTDriveError(
            f"{len(lacking):,} of {count:,} scenes have no front image that reads: {_some(lacking)}; "
            f"max_missing_images={most:g} allows fewer."
        )


def drive(driver: Driver, scenes: dict[str, Seen], batch_size: int) -> Plans:
    """A plan for every scene, `batch_size` scenes at a time."""
    from mtdrive.rollout.final_plan import Sight

    plans: Plans = {}
    tokens = list(scenes)
    with tqdm(total=len(tokens), desc="planner", unit="scene") as progress:
        for start in range(0, len(tokens), batch_size):
            batch = tokens[start : start + batch_size]
            sights = [Sight.from_file(scenes[token].view, scenes[token].image) for token in batch]
            plans |= zip(batch, driver.single_turn(sights), strict=True)
            progress.update(len(batch))
    return plans


def write_results(config: SubmitSettings, prompt: str, stages: list[Plans]) -> None:
    """The files, and what was done on the terminal."""
    out, scenes = config.folder, config.scene_filter
    team = Team(config.team_name, config.authors, config.email, config.institution, config.country)
    poses = [{token: plan.poses for token, plan in plans.items()} for plans in stages]
    write_submission(out / "submission.pkl", config.navsim, team, poses)
    replaced = {token: plan.fallback for plans in stages for token, plan in plans.items() if plan.fallback}
    wanted = {*(scenes.tokens or ()), *scenes.synthetic_tokens} if config.named_tokens is None else set()
    absent = sorted(wanted - {token for plans in stages for token in plans})
    summary: dict[str, Any] = {
        "mtdrive": version("mtdrive"),
        "navsim": config.navsim,
        "scene_set": asdict(scenes.scene_set),
        "synthetic_scenes": config.synthetic_scenes,
        "planner": config.planner.model,
        "prompt": prompt,
        "scenes": [len(plans) for plans in stages],
        "constant_velocity": replaced,
        "absent": absent,
    }
    with atomic_path(out / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2))
    console = terminal()
    count = " + ".join(f"{len(plans):,}" for plans in stages)
    console.print(f"{scenes.scene_set}: {count} scenes in {out / 'submission.pkl'} (navsim {config.navsim})")
    for reason, number in Counter(replaced.values()).most_common():
        tokens = [token for token, its in replaced.items() if its == reason]
        console.print(f"constant velocity drives {number:,} of them ({reason}): {_some(tokens)}", style="red")
    if absent:
        console.print(f"{len(absent):,} scenes of the filter are in no log here: {_some(absent)}", style="red")


def _some(tokens: list[str]) -> str:
    return ", ".join(tokens[:NAMED]) + (", ..." if len(tokens) > NAMED else "")
