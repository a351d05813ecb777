"""Write a synthetic world that looks like a download of NAVSIM.

    python tools/download_world.py world --train 40 --test 40
    export OPENSCENE_DATA_ROOT=world/dataset NUPLAN_MAPS_ROOT=world/dataset/maps NAVSIM_DEVKIT_ROOT=world/devkit

Data splits trainval, test and mini, whose logs are copies of some of the others'; logs of several drives, of which all
frames are there and only the filters' have pictures, though not all of them; filters navtrain, navtest (with as many
tokens as navsim's, most of which no log here holds), navmini and navhard_two_stage (8 frames after t0, and second-stage
scenes) where a checkout of navsim has them; tokens that look like numbers; maps with ids that are texts, NULLs and
MultiPolygons.
With navsim's own scripts: hydra.searchpath=[file://$NAVSIM_DEVKIT_ROOT/navsim/planning/script/config/common,pkg://...].
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shutil
import sqlite3
import struct
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import shapely

from mtdrive.settings import load_settings
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.synthetic.filters import FilterFile, Group, write_filter
from mtdrive.simulation.synthetic.logs import CURRENT, STRIDE, token
from mtdrive.simulation.synthetic.map_files import SRS, Feature, write_maps
from mtdrive.simulation.synthetic.placement import LOCATIONS
from mtdrive.simulation.synthetic.recording import RecordedDrive
from mtdrive.simulation.synthetic.scenes import SPLITS, WorldConfig, WorldScene
from mtdrive.simulation.synthetic.second_stage import moved, synthetic_scene, synthetic_token
from mtdrive.simulation.synthetic.world import write_jpeg

DATA_SPLITS = {"train": "trainval", "test": "test"}
MINI = 2  # logs of each that split mini has too
FILTERS = Path("devkit/navsim/planning/script/config/common")
NAVTRAIN, NAVTEST = 103_288, 12_146  # tokens of navsim's filters
DRIVES_PER_LOG = 5
FRAMES, SHORT_FUTURE = 15, 8  # frames of a drive in its log; frames after t0 in navhard
UPSCALING = 3  # pictures are rendered at a third of their size, which is fast
ASIDE = (-0.5, 0.3, 0.8)  # [m] where the ego of the second-stage scenes is, to the left of the recorded one
TEXT_IDS = ("lane_connectors", "lane_group_connectors", "gen_lane_connectors_scaled_width_polygons")


@dataclass
class Written:
    """What one log brings."""

    split: str
    """Data split."""

    name: str
    """Name of the log."""

    location: str
    """Map location."""

    scenes: list[str] = field(default_factory=list)
    """Tokens with 10 frames after them, two 0.5 s apart of each drive."""

    groups: list[Group] = field(default_factory=list)
    """Scenes of navhard, two of each drive that has them; the second with 8 and 9 frames after t0."""

    pictures: int = 0
    """Pictures written."""

    missing: list[str] = field(default_factory=list)
    """Tokens whose picture is missing."""

    features: list[Feature] = field(default_factory=list)
    """Rows of the map."""


def write_log(config: WorldConfig, root: Path, missing: float, job: tuple[int, int, int, int]) -> Written:
    """Write the log of some drives. job: index into SPLITS, number of the log, its drives, those with second stages."""
    split, number, drives, two_stage = job
    index, place = divmod(number, len(LOCATIONS))
    written = Written(DATA_SPLITS[SPLITS[split]], _log_name(split, number), LOCATIONS[place].name)
    log = []
    for k in range(drives):
        scene = WorldScene(config, split, (index * DRIVES_PER_LOG + k) * len(LOCATIONS) + place)
        drive = scene.drive.prolonged((FRAMES + SHORT_FUTURE) * STRIDE - len(scene.drive.plan.s))
        base = f"{written.name}/{k}"
        tokens = [token(config.seed, base, i) for i in range(FRAMES)]
        if k < 2:
            tokens[CURRENT] = _like_a_number(tokens[CURRENT], exponent=k == 1)
        frames = _relabelled(scene.frames(base, drive)[:FRAMES], written.name, tokens)
        log += frames
        written.scenes += tokens[CURRENT : CURRENT + 2]
        written.features += scene.features.rows
        for i in range(CURRENT, CURRENT + (4 if k < two_stage else 2)):
            if int(token("missing", tokens[i]), 16) < missing * 2**64:
                written.missing.append(tokens[i])
                continue
            path = root / "sensor_blobs" / written.split / frames[i]["cams"]["CAM_F0"]["data_path"]
            write_jpeg(path, _upscaled(scene.picture(drive, i * STRIDE)))
            written.pictures += 1
        if k < two_stage:
            written.groups += _second_stage(scene, drive, tokens, written.name, root / "navhard_two_stage")
    path = root / "navsim_logs" / written.split / f"{written.name}.pkl"
    path.write_bytes(pickle.dumps(log, protocol=4))
    return written


def _second_stage(
    scene: WorldScene, drive: RecordedDrive, tokens: list[str], log_name: str, root: Path
) -> Iterator[Group]:
    """Write scenes that begin where two pairs of first-stage scenes end, and give the pairs with them."""
    for before in (CURRENT, CURRENT + 2):
        pairs = []
        for aside in ASIDE:
            other = moved(drive, aside)
            frames = scene.frames(f"{log_name}/{aside}", other)
            pair = []
            for i in (before + 1, before):
                now = i + SHORT_FUTURE
                initial = synthetic_token(tokens[i], aside)
                window = frames[now - CURRENT : now + SHORT_FUTURE + 1]
                names = [synthetic_token(initial, k) for k in range(len(window))]
                names[CURRENT] = initial
                content = synthetic_scene(_relabelled(window, log_name, names), tokens[now], tokens[i])
                path = root / "synthetic_scene_pickles" / f"{content['scene_metadata']['scene_token']}.pkl"
                path.write_bytes(pickle.dumps(content, protocol=4))
                path = root / "sensor_blobs" / f"{log_name}/CAM_F0/{initial}.jpg"
                write_jpeg(path, _upscaled(scene.picture(other, now * STRIDE)))
                pair.append(initial)
            pairs.append((pair[0], pair[1]))
        yield tokens[before + 1], tokens[before], pairs


def _relabelled(frames: list[dict], log_name: str, tokens: list[str]) -> list[dict]:
    """The frames as a log's of another name, with these tokens and the cameras of the upscaled pictures."""
    chain = [None, *tokens, None]
    for k, (frame, name) in enumerate(zip(frames, tokens, strict=True)):
        frame.update(token=name, log_name=log_name, sample_prev=chain[k], sample_next=chain[k + 2])
        frame["lidar_path"] = f"{log_name}/MergedPointCloud/{name}.pcd"
        for camera, content in frame["cams"].items():
            content["data_path"] = f"{log_name}/{camera}/{name}.jpg"
            content["cam_intrinsic"][:2] *= UPSCALING
    return frames


def _upscaled(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, None, fx=UPSCALING, fy=UPSCALING, interpolation=cv2.INTER_LINEAR)


def _log_name(split: int, number: int) -> str:
    day, hour = divmod(number, 12)
    return f"2021.{split + 5:02d}.{day + 1:02d}.{hour + 8:02d}.05.11_veh-35_{number:05d}_{number + 90:05d}"


def _like_a_number(name: str, exponent: bool) -> str:
    digits = name.translate(str.maketrans("abcdef", "123456"))
    return f"{digits[:4]}e{digits[5:]}" if exponent else digits


def _jobs(scenes: dict[str, int], two_stage: int) -> list[tuple[int, int, int, int]]:
    jobs = []
    for split, name in enumerate(SPLITS):
        drives, left = -(-scenes.get(name, 0) // 2), two_stage if name == "test" else 0
        for number, first in enumerate(range(0, drives, DRIVES_PER_LOG)):
            count = min(DRIVES_PER_LOG, drives - first)
            jobs.append((split, number, count, min(left, count)))
            left -= min(left, count)
    return jobs


def _as_real_maps(maps: Path) -> None:
    """Give each map what one of the real ones has: ids as texts, a connector without an entry lane, odd geometries."""
    for path in maps.rglob("map.gpkg"):
        location = path.parts[-3]
        with sqlite3.connect(path) as database:
            if location == "us-ma-boston":
                for name in TEXT_IDS:
                    (sql,) = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
                    database.execute(f"ALTER TABLE {name} RENAME TO old")
                    database.execute(re.sub(r"_fid INTEGER\b", "_fid TEXT(256)", sql))
                    database.execute(f"INSERT INTO {name} SELECT * FROM old")
                    database.execute("DROP TABLE old")
            elif location == "sg-one-north":
                last = "(SELECT max(fid) FROM lane_connectors)"
                database.execute(f"UPDATE lane_connectors SET entry_lane_fid = NULL WHERE fid = {last}")
            else:
                bounds = "SELECT min_x, min_y FROM gpkg_contents WHERE table_name = 'lanes_polygons'"
                x, y = database.execute(bounds).fetchone()
                parts = [] if x is None else [shapely.box(x - far, y, x - far + 1e-4, y + 1e-4) for far in (2e-2, 3e-2)]
                blob = b"GP" + struct.pack("<BBi", 0, 1, SRS) + shapely.to_wkb(shapely.MultiPolygon(parts))
                database.executemany("INSERT INTO carpark_areas (geom) VALUES (?)", [(None,), (blob,)])
        database.close()


def _write_filters(folder: Path, logs: list[Written], mini: list[Written]) -> None:
    def save(name: str, split: str, chosen: list[Written], least: int = 0) -> None:
        tokens = [name for log in chosen for name in log.scenes]
        tokens += [token(name, "elsewhere", k) for k in range(least - len(tokens))]
        names = [log.name for log in chosen] + ["2021.10.11.07.12.18_veh-50_00211_00304"] * (least > 0)
        write_filter(folder, FilterFile(name, split, names, tokens))

    train, test = ([log for log in logs if log.split == split] for split in DATA_SPLITS.values())
    save("navtrain", "trainval", train, NAVTRAIN)
    save("navtest", "test", test, NAVTEST)
    save("navmini", "mini", mini)
    hard = [log for log in test if log.groups]
    groups = [group for log in hard for group in log.groups]
    first = [name for now, before, _ in groups for name in (before, now)]
    second = [name for *_, pairs in groups for pair in pairs for name in pair]
    content = FilterFile("navhard_two_stage", "test", [log.name for log in hard], first, SHORT_FUTURE, second, groups)
    write_filter(folder, content)


def _copy_mini(root: Path, logs: list[Written]) -> None:
    for log in logs:
        os.link(*(root / "navsim_logs" / split / f"{log.name}.pkl" for split in (log.split, "mini")))
        blobs = [root / "sensor_blobs" / split / log.name for split in (log.split, "mini")]
        if blobs[0].exists():
            shutil.copytree(*blobs, copy_function=os.link)


def write_download(
    out: Path, scenes: dict[str, int], two_stage: int, missing: float, width: int, seed: int, workers: int
) -> list[Written]:
    """Write the world; see the module.

    Args:
        out: folder to write; it must not exist.
        scenes: number of scenes of `train` and `test`.
        two_stage: drives of `test` with second-stage scenes.
        missing: share of the pictures that are not there.
        width: of the pictures [px]; the height is 9/16 of it.
        seed: of all that is drawn.
        workers: processes; the world does not depend on it.
    """
    mix = load_settings("synth", ["out=-"]).families
    families = {name: (family.weight, family.hidden) for name, family in mix.items()}
    size = (width // UPSCALING, width * 9 // 16 // UPSCALING)
    config = WorldConfig(seed, scenes, families, image_size=size)
    root, jobs = out / "dataset", _jobs(scenes, two_stage)
    for split in (*DATA_SPLITS.values(), "mini"):
        (root / "navsim_logs" / split).mkdir(parents=True)
    (root / "navhard_two_stage" / "synthetic_scene_pickles").mkdir(parents=True)
    logs = sorted(map_unordered(partial(write_log, config, root, missing), jobs, workers), key=lambda log: log.name)
    features: dict[str, list[Feature]] = defaultdict(list)
    for log in logs:
        features[log.location] += log.features
    write_maps(root / "maps", features)
    _as_real_maps(root / "maps")
    mini = [log for split in DATA_SPLITS.values() for log in [log for log in logs if log.split == split][:MINI]]
    _copy_mini(root, mini)
    _write_filters(out / FILTERS, logs, mini)
    return logs


def _report(logs: Iterable[Written]) -> None:
    for split in DATA_SPLITS.values():
        chosen = [log for log in logs if log.split == split]
        scenes, missing = {name for log in chosen for name in log.scenes}, {n for log in chosen for n in log.missing}
        print(f"{split}: {len(chosen)} logs, {len(scenes)} scenes, {sum(log.pictures for log in chosen)} pictures, "
              f"{len(missing & scenes)} scenes without one")  # fmt: skip
    groups = [group for log in logs for group in log.groups]
    print(f"navhard_two_stage: {len(groups)} groups, {sum(2 * len(pairs) for *_, pairs in groups)} second-stage scenes")


def main() -> None:
    """Read the arguments, write the world, say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=40, help="scenes of navtrain")
    parser.add_argument("--test", type=int, default=40, help="scenes of navtest")
    parser.add_argument("--two-stage", type=int, default=2, help="drives of the test split with second-stage scenes")
    parser.add_argument("--missing", type=float, default=0.1, help="share of the pictures that are missing")
    parser.add_argument("--width", type=int, default=1920, help="of the pictures [px]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if given.out.exists():
        sys.exit(f"{given.out} exists; give another folder or remove it.")
    scenes = {"train": given.train, "test": given.test}
    _report(write_download(given.out, scenes, given.two_stage, given.missing, given.width, given.seed, given.workers))


if __name__ == "__main__":
    main()
