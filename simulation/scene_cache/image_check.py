"""Which compiled scenes have no front image that can be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import check_image, image_path
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene_cache.store import SceneStore


@dataclass(frozen=True)
class LogImages:
    """The front images at t0 of the scenes of one log."""

    log_name: str
    """The log."""
    scenes: int
    """Number of scenes that were looked at."""
    lacking: dict[str, str]
    """Token -> why its image cannot be read, in the order of the log."""


def check_images(
    openscene_data_root: Path | str, store: SceneStore, tokens: Iterable[str], workers: int | str
) -> list[LogImages]:
    """Look for the front images of scenes, and at where each begins and ends (`images.check_image`); log by log.

    workers: as in `map_unordered`.

    Raises:
        MTDriveError: a scene is not compiled, or its cache does not read.
    """
    of_log = defaultdict(list)
    for token in tokens:
        of_log[store.log_name(token)].append(token)
    check = partial(_check_log, Path(openscene_data_root), store)
    with tqdm(map_unordered(check, list(of_log.items()), workers), "images", len(of_log), unit="log") as results:
        return sorted(results, key=lambda result: result.log_name)


def _check_log(data_root: Path, store: SceneStore, log: tuple[str, list[str]]) -> LogImages:
    name, tokens = log
    lacking = {}
    for token in tokens:
        scene = store.load(token)
        try:
            check_image(image_path(data_root, scene.split, scene.camera.image))
        except MTDriveError as error:
            lacking[token] = str(error)
    return LogImages(name, len(tokens), lacking)
