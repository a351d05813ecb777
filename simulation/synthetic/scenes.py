"""One scene of a synthetic world: drawn from a seed, set on its map, seen by its camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mtdrive.simulation.synthetic.families import FAMILIES
from mtdrive.simulation.synthetic.logs import LogWriter
from mtdrive.simulation.synthetic.map_files import SiteFeatures
from mtdrive.simulation.synthetic.placement import LOCATIONS, Placement
from mtdrive.simulation.synthetic.recording import RecordedDrive, Surprise, record
from mtdrive.simulation.synthetic.rendering import render_front_camera
from mtdrive.simulation.synthetic.rendering.scene import Atmosphere
from mtdrive.simulation.synthetic.scenery import plant
from mtdrive.simulation.synthetic.view import random_atmosphere, render_scene

SPLITS = ("train", "val", "test")
ATTEMPTS = 200  # redraws of a situation that has no good way out
GOLDEN = 0.6180339887498949


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


class WorldScene:
    """Scene `number` of a split (index into SPLITS); it depends on nothing but the configuration and these.

    Attributes:
        drive: what was recorded. `frames` and `picture` also take another drive through the same situation.
        attempt: how often the situation was drawn anew.
        placement: where it lies.
        features: its map features.
    """

    def __init__(self, config: WorldConfig, split: int, number: int):
        self.drive, self.attempt = build_scene(config, split, number)
        self._rng = np.random.default_rng([config.seed, split, number, ATTEMPTS])
        heading = float(self._rng.uniform(-np.pi, np.pi))
        location = LOCATIONS[number % len(LOCATIONS)]
        self.placement = Placement.of(location, split, number // len(LOCATIONS), len(SPLITS), heading)
        self.features = SiteFeatures(self.drive.situation.site, self.placement)
        self._writer = LogWriter(config.image_size)
        self._number = split * 100_000 + number

    def frames(self, log_name: str, drive: RecordedDrive) -> list[dict]:
        """Log frames of a drive, the fourth of which is t0."""
        return self._writer.frames(log_name, drive, self.features, self.placement, self._number)

    def picture(self, drive: RecordedDrive, step: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB: what the front camera sees at a step of 0.1 s."""
        view = render_scene(drive, self.placement, step, self._atmosphere, seed=self._number)
        return render_front_camera(view, self._writer.camera())

    @cached_property
    def _atmosphere(self) -> Atmosphere:
        """Sky and light; with it, what stands beside the road is put there."""
        plant(self.drive.situation.site, self._rng, self._rng.uniform(0.2, 1.0))
        return random_atmosphere(self._rng)
