"""Writing a synthetic world: maps, logs, images, and what each scene is about."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import defaultdict
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
from mtdrive.simulation.synthetic.logs import CURRENT, STRIDE
from mtdrive.simulation.synthetic.map_files import Feature, write_maps
from mtdrive.simulation.synthetic.recording import Surprise
from mtdrive.simulation.synthetic.scenes import SPLITS, WorldConfig, WorldScene, choose_family

VERSION = 1  # of the generator; the same version and configuration give the same world
JPEG_QUALITY = 92
MANIFEST = "manifest.json"


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


def write_log(config: WorldConfig, root: Path, job: tuple[int, int]) -> list[SceneRecord]:
    """Build one situation and write its log and images; the scene in it, or the two adjacent ones."""
    split, number = job
    family, _ = choose_family(config, split, number)
    scene = WorldScene(config, split, number)
    drive = scene.drive.prolonged(STRIDE) if config.adjacent_frames else scene.drive
    log_name = f"{SPLITS[split]}-{config.seed}-{number:05d}"
    frames = scene.frames(log_name, drive)
    log = root / "navsim_logs" / SPLITS[split] / f"{log_name}.pkl"
    log.write_bytes(pickle.dumps(frames, protocol=4))
    if config.images:
        first = 0 if config.history_images else CURRENT
        for k in range(first, CURRENT + 1 + config.adjacent_frames):
            path = root / "sensor_blobs" / SPLITS[split] / frames[k]["cams"]["CAM_F0"]["data_path"]
            write_jpeg(path, scene.picture(drive, k * STRIDE))
    row = SceneRecord(
        frames[CURRENT]["token"],
        log_name,
        SPLITS[split],
        number,
        family,
        drive.surprise is not Surprise.NONE,
        drive.surprise.value,
        scene.placement.location.name,
        round(float(drive.plan.speed[NOW]), 3),
        len(drive.agents),
        scene.attempt,
        scene.features.rows,
    )
    if not config.adjacent_frames:
        return [row]
    speed = round(float(drive.plan.speed[NOW + STRIDE]), 3)
    return [row, replace(row, token=frames[CURRENT + 1]["token"], speed=speed, features=[], follows=row.token)]


def write_jpeg(path: Path, picture: np.ndarray) -> None:
    """Write a picture (height, width, 3) RGB and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(jpeg.tobytes())  # cv2.imwrite does not say that a disk is full


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
        return _existing(out, _header(config))
    partial_out = out.with_name(f".{out.name}.partial")
    with only_run_in(partial_out):
        if out.exists():  # by a run that has just ended
            shutil.rmtree(partial_out)
            return _existing(out, _header(config))
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
    _write_lists(partial_out, _header(config), records)
    return records


def _header(config: WorldConfig) -> dict:
    """What the manifest says about the generator."""
    settings = asdict(config)
    if not config.adjacent_frames:  # worlds from before there was this key are the same
        del settings["adjacent_frames"]
    return {"generator": "mtdrive synth", "version": VERSION, **json.loads(json.dumps(settings))}


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
