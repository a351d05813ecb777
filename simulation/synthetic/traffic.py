"""Background that families place around their story: parked cars, other lanes' traffic, people on the pavement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtdrive.simulation.synthetic.agents import Agent, along, car, cyclist, lorry, pedestrian, standing, travelled, van
from mtdrive.simulation.synthetic.curves import Curve
from mtdrive.simulation.synthetic.site import Site
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT

Make = Callable[[np.random.Generator, np.ndarray], Agent]
LENGTHS: dict[Make, float] = {car: 4.6, van: 5.7, lorry: 9.0, cyclist: 1.8}  # [m] about


def arrival(distance: float, speed: float, limit: float) -> float:
    """When [s] an undisturbed ego has gone `distance` [m], speeding up from `speed` to `limit`."""
    ramp = max(0.0, limit - speed) / 1.2
    within = 0.5 * (speed + limit) * ramp
    if distance < within:
        return (np.sqrt(speed**2 + 2 * 1.2 * distance) - speed) / 1.2
    return ramp + (distance - within) / max(limit, speed)


def parked(
    rng: np.random.Generator, curve: Curve, offset: float, begin: float, end: float, share: float = 0.7
) -> list[Agent]:
    """Cars parked in a row along a curve, `offset` metres to the left, between two arc lengths."""
    row, s = [], begin
    while s < end:
        if rng.uniform() < share:
            pose = curve.at(s, offset + rng.uniform(-0.1, 0.1))
            pose[2] += rng.normal(0.0, 0.02)
            row.append((van if rng.uniform() < 0.15 else car)(rng, standing(pose)))
        s += rng.uniform(6.6, 8.5)
    return row


def stream(
    rng: np.random.Generator, curve: Curve, speed: float, begin: float, end: float, spacing: tuple[float, float]
) -> list[Agent]:
    """Vehicles that drive along a lane at one speed, spread over arc lengths begin..end at t0."""
    vehicles, s = [], begin + rng.uniform(0.0, spacing[0])
    while s < end:
        poses = along(curve, travelled(s, speed))
        vehicles.append((lorry if rng.uniform() < 0.1 else car)(rng, poses))
        s += rng.uniform(*spacing)
    return vehicles


def walkers(rng: np.random.Generator, curve: Curve, offset: float, begin: float, end: float, count: int) -> list[Agent]:
    """People who walk up or down beside a curve."""
    people = []
    for s in rng.uniform(begin, end, count):
        pace = rng.uniform(0.9, 1.6)
        line = curve if rng.uniform() < 0.5 else curve.reversed()
        forward = line is curve
        start, side = (s, offset) if forward else (curve.length - s, -offset)
        people.append(pedestrian(rng, along(line, travelled(start, pace), side + rng.uniform(-0.4, 0.4))))
    return people


def ahead(
    rng: np.random.Generator,
    path: Curve,
    start: float,
    gap: float,
    speed: float,
    script: Sequence[tuple[float, float]] = (),
    offset: np.ndarray | float = 0.0,
    make: Make = car,
) -> Agent:
    """A vehicle whose rear is about `gap` metres before the front of an ego at arc length `start`."""
    place = start + REAR_AXLE_TO_FRONT + gap + LENGTHS[make] / 2
    return make(rng, along(path, travelled(place, speed, script), offset))


def oncoming(
    rng: np.random.Generator, site: Site, group: str, speed: float, spacing: tuple[float, float]
) -> list[Agent]:
    """Traffic on all lanes of a lane group, over its whole length."""
    vehicles = []
    for lane in site.lanes.values():
        if lane.group == group:
            vehicles += stream(rng, lane.curve, speed * rng.uniform(0.85, 1.1), 0.0, lane.curve.length, spacing)
    return vehicles


def approach(rng: np.random.Generator, limit: float) -> tuple[float, float]:
    """Speed [m/s] and acceleration [m/s^2] at t0 of a free ego: the slower below the limit, the more it speeds up."""
    speed = limit * rng.uniform(0.62, 1.0)
    return speed, float(np.clip(0.35 * (limit - speed) + rng.normal(0.0, 0.08), -0.2, 1.2))
