"""Which compiled scenes have no front image that can be read, and whether those are too many."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import check_image, image_path
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore

logger = logging.getLogger(__name__)

NAMED = 3  # scenes without an image that a message names


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


def has_image(openscene_data_root: Path | str, scene: Scene) -> bool:
    """Whether the front image of a scene is there and begins and ends as one."""
    return _lack(openscene_data_root, scene) is None


def _lack(openscene_data_root: Path | str, scene: Scene) -> str | None:
    """Why a scene has no image."""
    try:
        check_image(image_path(openscene_data_root, scene.split, scene.camera.image))
    except MTDriveError as error:
        return str(error)
    return None


def _check_log(data_root: Path, store: SceneStore, log: tuple[str, list[str]]) -> LogImages:
    name, tokens = log
    lacking = {}
    for token in tokens:
        if (reason := _lack(data_root, store.load(token))) is not None:
            lacking[token] = reason
    return LogImages(name, len(tokens), lacking)


def without_image(
    openscene_data_root: Path | str, store: SceneStore, tokens: Collection[str], most: float, workers: int | str = 1
) -> dict[str, str]:
    """The scenes that are to be left out for want of a front image that reads, and why; the first few are logged.

    most: share of the scenes that may be left out.

    Raises:
        MTDriveError: there are more; or as `check_images`.
    """
    logs = check_images(openscene_data_root, store, tokens, workers)
    lacking = {token: reason for log in logs for token, reason in log.lacking.items()}
    if not lacking:
        return {}
    first = " ".join(f"{token}: {reason}" for token, reason in list(lacking.items())[:NAMED])
    said = f"{len(lacking):,} of {len(tokens):,} scenes have no front image that reads. {first}"
    if len(lacking) > most * len(tokens) or len(lacking) == len(tokens):
        raise MTDriveError(
            f"{said} max_missing_images={most:g} allows fewer; mtdrive cache check_images=true lists them by log."
        )
    logger.warning("Left out: %s%s", said, " ..." if len(lacking) > NAMED else "")
    return lacking
