"""Writing a synthetic world: maps, logs, images, and what each scene is about."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.locks import LOCK, only_run_in
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.synthetic.agents import NOW
from mtdrive.simulation.synthetic.families import FAMILIES
from mtdrive.simulation.synthetic.filters import FilterFile, write_filter
from mtdrive.simulation.synthetic.logs import CURRENT, STRIDE, LogWriter
from mtdrive.simulation.synthetic.map_files import Feature, SiteFeatures, write_maps
from mtdrive.simulation.synthetic.placement import LOCATIONS, Placement
from mtdrive.simulation.synthetic.recording import RecordedDrive, Surprise, record
from mtdrive.simulation.synthetic.rendering import render_front_camera
from mtdrive.simulation.synthetic.scenery import plant
from mtdrive.simulation.synthetic.view import random_atmosphere, render_scene

VERSION = 1  # of the generator; the same version and configuration give the same world
SPLITS = ("train", "val", "test")
ATTEMPTS = 200  # redraws of a situation that has no good way out
GOLDEN = 0.6180339887498949
JPEG_QUALITY = 92
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class WorldConfig:
    """What to write."""

    seed: int
    """Seed of all that is drawn at random."""

    scenes: Mapping[str, int]
    """Split -> number of scenes."""

    families: Mapping[str, tuple[float, float]]
    """Scenario family -> its weight, and the share of its scenes with a hidden danger."""

    close_calls: float = 0.55
    """Share of the hidden dangers that end in a close call rather than a collision."""

    images: bool = True
    """Whether to render CAM_F0 at t0."""

    history_images: bool = False
    """Whether to render the three frames before t0 as well."""

    image_size: tuple[int, int] = (640, 360)
    """Width and height of the pictures [px]."""

    adjacent_frames: bool = False
    """Whether logs have 15 frames, so that the frame 0.5 s after t0 is a scene as well, with its picture."""

    @property
    def header(self) -> dict[str, object]:
        """What the manifest says about the generator."""
        settings = asdict(self)
        if not self.adjacent_frames:  # worlds from before there was this key are the same
            del settings["adjacent_frames"]
        return {"generator": "mtdrive synth", "version": VERSION, **json.loads(json.dumps(settings))}


@dataclass(frozen=True)
class SceneRecord:
    """One row of the manifest."""

    token: str
    """Scene token."""

    log_name: str
    """Name of the log, which holds this one scene, and with adjacent frames the next."""

    split: str
    """Split that it belongs to."""

    number: int
    """Number of the scene within the split."""

    family: str
    """Scenario family."""

    hidden_danger: bool
    """Whether a danger shows only after t0 (of the log's first scene)."""

    surprise: str
    """Value of `recording.Surprise`."""

    location: str
    """Name of the map location."""

    speed: float
    """Speed of the ego at t0 [m/s]."""

    agents: int
    """Number of other road users."""

    attempt: int
    """How often the situation was drawn anew."""

    features: list[Feature] = field(repr=False)
    """Map features of the site; not in the manifest."""

    follows: str | None = None
    """Token of the scene 0.5 s before, if there is one."""

    @property
    def row(self) -> dict[str, object]:
        """What the manifest says."""
        row = {key: value for key, value in vars(self).items() if key != "features"}
        if self.follows is None:
            del row["follows"]
        return row


def choose_family(config: WorldConfig, split: int, number: int) -> tuple[str, bool]:
    """Family of a scene and whether it shall hide a danger, spread evenly over consecutive numbers."""
    offsets = np.random.default_rng([config.seed, split]).uniform(size=2)
    names = list(config.families)
    shares = np.cumsum([config.families[name][0] for name in names])
    place = (offsets[0] + GOLDEN * number) % 1.0 * shares[-1]
    index = min(int(np.searchsorted(shares, place, side="right")), len(names) - 1)
    low = shares[index - 1] if index else 0.0
    # The place within the family's interval is spread just as evenly, which decides the second question.
    dice = (offsets[1] + (place - low) / (shares[index] - low)) % 1.0
    return names[index], bool(dice < config.families[names[index]][1])


def build_scene(config: WorldConfig, split: int, number: int) -> tuple[RecordedDrive, int]:
    """Scene `number` of a split (index into SPLITS) and how often it was redrawn; depends on nothing else."""
    family, hidden = choose_family(config, split, number)
    close = np.random.default_rng([config.seed, split, number, ATTEMPTS + 1]).uniform() < config.close_calls
    surprises = {Surprise.CLOSE_CALL, Surprise.COLLISION}
    wanted = {Surprise.CLOSE_CALL if close else Surprise.COLLISION} if hidden else {Surprise.NONE}
    for attempt in range(ATTEMPTS):
        if hidden and attempt == ATTEMPTS // 2:
            wanted = surprises  # some families hardly have close calls
        rng = np.random.default_rng([config.seed, split, number, attempt])
        drive = record(FAMILIES[family](rng, hidden), rng)
        if drive is not None and drive.surprise in wanted:
            return drive, attempt
    raise RuntimeError(f"Family {family} (hidden={hidden}, close={close}) gave no situation in {ATTEMPTS} attempts.")


def write_log(config: WorldConfig, root: Path, job: tuple[int, int]) -> list[SceneRecord]:
    """Build one situation and write its log and images; the scene in it, or the two adjacent ones."""
    split, number = job
    family, _ = choose_family(config, split, number)
    drive, attempt = build_scene(config, split, number)
    if config.adjacent_frames:
        drive = drive.prolonged(STRIDE)
    rng = np.random.default_rng([config.seed, split, number, ATTEMPTS])
    location = LOCATIONS[number % len(LOCATIONS)]
    placement = Placement.of(location, split, number // len(LOCATIONS), len(SPLITS), float(rng.uniform(-np.pi, np.pi)))
    features = SiteFeatures(drive.situation.site, placement)
    log_name = f"{SPLITS[split]}-{config.seed}-{number:05d}"
    width, height = config.image_size
    writer = LogWriter((width, height))
    frames = writer.frames(log_name, drive, features, placement, split * 100_000 + number)
    log = root / "navsim_logs" / SPLITS[split] / f"{log_name}.pkl"
    log.write_bytes(pickle.dumps(frames, protocol=4))
    if config.images:
        plant(drive.situation.site, rng, rng.uniform(0.2, 1.0))
        atmosphere = random_atmosphere(rng)
        first = 0 if config.history_images else CURRENT
        for k in range(first, CURRENT + 1 + config.adjacent_frames):
            view = render_scene(drive, placement, k * STRIDE, atmosphere, seed=split * 100_000 + number)
            picture = render_front_camera(view, writer.camera())
            path = root / "sensor_blobs" / SPLITS[split] / frames[k]["cams"]["CAM_F0"]["data_path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            path.write_bytes(jpeg)  # cv2.imwrite does not say that a disk is full
    scene = SceneRecord(
        frames[CURRENT]["token"],
        log_name,
        SPLITS[split],
        number,
        family,
        drive.surprise is not Surprise.NONE,
        drive.surprise.value,
        location.name,
        round(float(drive.plan.speed[NOW]), 3),
        len(drive.agents),
        attempt,
        features.rows,
    )
    if not config.adjacent_frames:
        return [scene]
    speed = round(float(drive.plan.speed[NOW + STRIDE]), 3)
    return [scene, replace(scene, token=frames[CURRENT + 1]["token"], speed=speed, features=[], follows=scene.token)]


def write_world(config: WorldConfig, out: Path, workers: int) -> list[SceneRecord]:
    """Write the world under out: `navsim_logs`, `sensor_blobs`, `maps`, manifest and one scene filter per split.

    The filter of split `test` is `synthetic_test` in navsim's `train_test_split`.

    The folder appears when everything is in it. If it already holds this very world, nothing is done.

    Raises:
        MTDriveError: out holds something else, or a family is unknown.
    """
    unknown = sorted(set(config.families) - set(FAMILIES))
    if unknown:
        raise MTDriveError(f"There is no scenario family {unknown[0]!r}; choose from {', '.join(FAMILIES)}.")
    if out.exists():
        return _existing(out, config.header)
    partial_out = out.with_name(f".{out.name}.partial")
    with only_run_in(partial_out):
        if out.exists():  # by a run that has just ended
            shutil.rmtree(partial_out)
            return _existing(out, config.header)
        try:
            records = _write(config, partial_out, workers)
            os.replace(partial_out, out)
        except BaseException:
            shutil.rmtree(partial_out, ignore_errors=True)
            raise
        (out / LOCK).unlink()
    return records


def _write(config: WorldConfig, partial_out: Path, workers: int) -> list[SceneRecord]:
    """The world, in a folder that may hold what a killed run has left."""
    for left in partial_out.iterdir():
        if left.name != LOCK:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    for split in SPLITS:
        (partial_out / "navsim_logs" / split).mkdir(parents=True)
    jobs = [(split, number) for split, name in enumerate(SPLITS) for number in range(config.scenes.get(name, 0))]
    work = map_unordered(partial(write_log, config, partial_out), jobs, workers)
    logs = list(tqdm(work, total=len(jobs), desc="scenes", unit="scene"))
    logs.sort(key=lambda scenes: (SPLITS.index(scenes[0].split), scenes[0].number))
    records = [scene for scenes in logs for scene in scenes]
    features: dict[str, list[Feature]] = defaultdict(list)
    for scene in records:
        features[scene.location] += scene.features
    write_maps(partial_out / "maps", features)
    _write_lists(partial_out, config.header, records)
    return records


def _existing(out: Path, header: dict) -> list[SceneRecord]:
    manifest = out / MANIFEST
    if not manifest.is_file():
        raise MTDriveError(f"{out} exists and is no synthetic world; give another out=... or remove it.")
    content = json.loads(manifest.read_text())
    if content.get("world") != header:
        raise MTDriveError(
            f"{out} holds a synthetic world of another configuration; give another out=... or remove it."
        )
    return [SceneRecord(**row, features=[]) for row in content["scenes"]]


def _write_lists(out: Path, header: dict, records: list[SceneRecord]) -> None:
    rows = [scene.row for scene in records]
    (out / MANIFEST).write_text(json.dumps({"world": header, "scenes": rows}, indent=1))
    for split in SPLITS:
        chosen = [scene for scene in records if scene.split == split]
        folder = out / "splits" / split
        folder.mkdir(parents=True)
        log_names, tokens = list(dict.fromkeys(scene.log_name for scene in chosen)), [scene.token for scene in chosen]
        lines = [
            f"{scene.token},{scene.log_name},{scene.family},{scene.hidden_danger},{scene.surprise}" for scene in chosen
        ]
        (folder / "scene_tokens.csv").write_text(
            "\n".join(["token,log_name,family,hidden_danger,surprise", *lines]) + "\n"
        )
        scene_filter = {
            "_target_": "navsim.common.dataclasses.SceneFilter", "_convert_": "all", "num_history_frames": 4,
            "num_future_frames": 10, "frame_interval": 1, "has_route": True, "max_scenes": None,
            "log_names": log_names, "tokens": tokens,
        }  # fmt: skip
        # JSON is YAML.
        (folder / "scene_filter.yaml").write_text(json.dumps(scene_filter, indent=1))
        write_filter(out, FilterFile(f"synthetic_{split}", split, log_names, tokens))
