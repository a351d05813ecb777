"""Where a site lies: one of the four map locations, a cell of its grid, a direction, and the side of the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELL = 450.0  # [m] distance between neighbouring sites
COLUMNS = 40
FIRST_FID, FIDS_PER_SITE = 10_000, 1_000


@dataclass(frozen=True)
class Location:
    """A map location of nuPlan."""

    name: str
    """Its name, such as us-ma-boston."""

    version: str
    """Version of its map."""

    epsg: int
    """EPSG code of its UTM zone."""

    origin: tuple[float, float]
    """UTM [m] of the first site."""

    left_hand: bool = False
    """Whether traffic keeps left."""


LOCATIONS = (
    Location("us-nv-las-vegas-strip", "9.15.1915", 32611, (664_000.0, 3_995_000.0)),
    Location("us-ma-boston", "9.12.1817", 32619, (328_000.0, 4_688_000.0)),
    Location("us-pa-pittsburgh-hazelwood", "9.17.1937", 32617, (586_000.0, 4_474_000.0)),
    Location("sg-one-north", "9.17.1964", 32648, (360_000.0, 140_000.0), left_hand=True),
)


@dataclass(frozen=True)
class Placement:
    """Where a site lies: from the site frame to UTM. The site is mirrored (y to -y) where traffic keeps left."""

    location: Location
    """Map location."""

    x: float
    """UTM easting [m] of the site's origin."""

    y: float
    """UTM northing [m] of the site's origin."""

    heading: float
    """Direction [rad] of the site's x axis."""

    first_fid: int
    """Feature ids of the site come after this one."""

    @classmethod
    def of(cls, location: Location, split: int, index: int, splits: int, heading: float) -> Placement:
        """The place of a split's site number `index` at a location; no two sites of a map share a cell."""
        row, column = divmod(index, COLUMNS)
        cell = row * splits + split
        x, y = location.origin[0] + CELL * column, location.origin[1] + CELL * cell
        return cls(location, x, y, heading, FIRST_FID + FIDS_PER_SITE * (cell * COLUMNS + column))

    @property
    def _side(self) -> float:
        return -1.0 if self.location.left_hand else 1.0

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points (..., 2)."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        x, y = xy[..., 0], self._side * xy[..., 1]
        return np.stack([self.x + cos * x - sin * y, self.y + sin * x + cos * y], axis=-1)

    def poses(self, poses: np.ndarray) -> np.ndarray:
        """Poses (..., 3); headings are wrapped to [-pi, pi)."""
        heading = self._side * poses[..., 2] + self.heading
        heading = (heading + np.pi) % (2 * np.pi) - np.pi
        return np.concatenate([self.points(poses[..., :2]), heading[..., None]], axis=-1)
