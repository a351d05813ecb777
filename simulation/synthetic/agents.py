"""Scripted road users: what they are and where they are at every moment of a drive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.synthetic.curves import Curve
from mtdrive.simulation.synthetic.rendering.scene import Colour

RATE = 10  # [Hz]
NOW = 15  # index of t0 in TIMES
TIMES = np.arange(-NOW, 51) / RATE  # [s] 1.5 s of history, t0, 5 s of future
PAINTS: tuple[Colour, ...] = (
    (235, 235, 235), (25, 25, 28), (120, 122, 126), (180, 182, 186), (160, 25, 30),
    (30, 60, 130), (70, 90, 70), (200, 170, 60), (90, 50, 40), (40, 110, 140),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Agent:
    """A road user or object."""

    kind: ObjectType
    """Its class."""

    size: tuple[float, float, float]
    """Length, width, height [m]."""

    colour: Colour
    """Paint of its body, or clothes of a person."""

    poses: np.ndarray
    """(66, 3) pose of the box centre at TIMES, site frame."""

    visible: np.ndarray = field(default_factory=lambda: np.ones(len(TIMES), dtype=bool))
    """(66,) bool, whether it is labelled at each time; what is wholly hidden behind something is not."""

    halted: bool = False
    """Whether it stands in traffic with its brake lights on."""

    @property
    def velocity(self) -> np.ndarray:
        """(66, 2) in the site frame [m/s]."""
        return np.gradient(self.poses[:, :2], 1.0 / RATE, axis=0)

    @property
    def acceleration(self) -> np.ndarray:
        """(66,) along the heading [m/s^2]."""
        change = np.gradient(self.velocity, 1.0 / RATE, axis=0)
        return change[:, 0] * np.cos(self.poses[:, 2]) + change[:, 1] * np.sin(self.poses[:, 2])

    def waiting(self) -> Agent:
        """The same agent, halted in traffic."""
        return replace(self, halted=True)

    def appearing(self, time: float) -> Agent:
        """The same agent, hidden before `time` [s]."""
        return replace(self, visible=time - 1e-9 <= TIMES)


def travelled(start: float, speed: float, accelerations: Sequence[tuple[float, float]] = ()) -> np.ndarray:
    """Distance (66,) along a path of something that is at `start` [m] with `speed` [m/s] at t0.

    accelerations: (from time [s], value [m/s^2]), in order; 0 before the first. Speed never falls below 0.
    """
    command = np.zeros(len(TIMES))
    for since, value in accelerations:
        command[since - 1e-9 <= TIMES] = value
    v = np.full(len(TIMES), float(speed))
    for k in range(NOW, len(TIMES) - 1):
        v[k + 1] = max(0.0, v[k] + command[k] / RATE)
    for k in range(NOW, 0, -1):
        v[k - 1] = max(0.0, v[k] - command[k - 1] / RATE)
    s = np.concatenate([[0.0], np.cumsum(0.5 * (v[1:] + v[:-1]) / RATE)])
    return start + s - s[NOW]


def shift(begin: float, duration: float, amount: float) -> np.ndarray:
    """Sideways displacement (66,) [m]: 0 until `begin`, `amount` after `begin + duration`, smooth between."""
    u = np.clip((TIMES - begin) / duration, 0.0, 1.0)
    return amount * u**3 * (10 - 15 * u + 6 * u**2)


def along(curve: Curve, s: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
    """Poses (66, 3) at arc lengths s (66,) of a curve, `offset` to its left, turned into the direction of travel."""
    poses = curve.at(s, offset)
    ahead, aside = np.gradient(s), np.gradient(np.broadcast_to(np.asarray(offset, dtype=np.float64), s.shape))
    poses[:, 2] += np.where(ahead > 1e-3, np.arctan2(aside, np.maximum(ahead, 1e-3)), 0.0)
    return poses


def standing(pose: ArrayLike) -> np.ndarray:
    """Poses (66, 3) of something that stays at pose (x, y, heading)."""
    return np.tile(np.asarray(pose, dtype=np.float64), (len(TIMES), 1))


def walked(points: np.ndarray, speed: float, begin: float) -> np.ndarray:
    """Poses (66, 3) of somebody who walks along points (N, 2) at `speed` from time `begin`, then stays."""
    path = Curve.from_points(np.asarray(points, dtype=np.float64))
    return path.at(np.clip((TIMES - begin) * speed, 0.0, path.length - 1e-6))


def paint(rng: np.random.Generator) -> Colour:
    """A body colour."""
    return PAINTS[rng.integers(len(PAINTS))]


def car(rng: np.random.Generator, poses: np.ndarray) -> Agent:
    """A passenger car."""
    size = rng.uniform((4.2, 1.78, 1.42), (4.9, 1.95, 1.75))
    return Agent(ObjectType.VEHICLE, tuple(size.tolist()), paint(rng), poses)


def van(rng: np.random.Generator, poses: np.ndarray) -> Agent:
    """A delivery van, high enough to hide a person."""
    size = rng.uniform((5.2, 2.0, 2.35), (6.2, 2.15, 2.7))
    return Agent(ObjectType.VEHICLE, tuple(size.tolist()), (230, 230, 225), poses)


def lorry(rng: np.random.Generator, poses: np.ndarray) -> Agent:
    """A lorry."""
    size = rng.uniform((8.0, 2.4, 3.1), (10.0, 2.5, 3.6))
    return Agent(ObjectType.VEHICLE, tuple(size.tolist()), paint(rng), poses)


def pedestrian(rng: np.random.Generator, poses: np.ndarray) -> Agent:
    """A person on foot."""
    size = rng.uniform((0.55, 0.55, 1.55), (0.75, 0.75, 1.9))
    return Agent(ObjectType.PEDESTRIAN, tuple(size.tolist()), paint(rng), poses)


def cyclist(rng: np.random.Generator, poses: np.ndarray) -> Agent:
    """A bicycle with its rider."""
    size = rng.uniform((1.7, 0.6, 1.65), (1.9, 0.75, 1.85))
    return Agent(ObjectType.BICYCLE, tuple(size.tolist()), paint(rng), poses)


def cone(pose: ArrayLike) -> Agent:
    """A traffic cone."""
    return Agent(ObjectType.TRAFFIC_CONE, (0.4, 0.4, 0.75), (240, 110, 20), standing(pose))


def barrier(pose: ArrayLike) -> Agent:
    """A construction barrier across its heading."""
    return Agent(ObjectType.BARRIER, (0.5, 2.2, 1.0), (225, 60, 40), standing(pose))
