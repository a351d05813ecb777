"""A narrow street where the other side is blocked: an oncoming car swings round the obstacle into the ego's lane
(hidden), waits, or is not there. Sometimes it only drifts across the centre line, and there is room to give way."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import along, car, shift, standing, travelled, van
from mtdrive.simulation.synthetic.driver import Swerve
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, street
from mtdrive.simulation.synthetic.site import RoadEdge
from mtdrive.simulation.synthetic.traffic import approach, arrival, parked, walkers


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    return _drifting(rng, hidden) if rng.uniform() < 0.4 else _blocked(rng, hidden)


def _blocked(rng: np.random.Generator, hidden: bool) -> Situation:
    limit = rng.uniform(8.0, 11.0)
    edge = RoadEdge(parking=2.2, pavement=2.0)
    site = street(rng, lanes=1, limit=limit, width=(2.9, 3.2), right=edge, left=edge, bend=0.4)
    path, back = site.path(["main/0"]), site.path(["main_back/0"])
    width = site.lanes["main/0"].width
    speed, acceleration = approach(rng, limit)
    block = rng.uniform(20.0, 50.0)  # [m] ahead of the ego's rear axle
    place = back.length - APPROACH - block  # on the oncoming lane
    agents = [van(rng, standing(back.at(place, -rng.uniform(0.2, 0.5))))]
    # Meeting at the obstacle: the other passes it when an undisturbed ego would.
    meeting = arrival(block, speed, limit)
    pace = rng.uniform(5.0, 8.0)
    start = place - pace * (meeting - rng.uniform(-0.8, 0.9))
    if hidden:
        swing = meeting - rng.uniform(1.6, 2.2)
        offset = shift(max(0.05, swing), 1.3, width * rng.uniform(0.75, 0.95))
        agents.append(car(rng, along(back, travelled(start, pace), offset)))
    elif rng.uniform() < 0.5:
        pace = rng.uniform(3.0, 5.0)
        start = place - rng.uniform(14.0, 20.0)
        agents.append(car(rng, along(back, travelled(start, pace, [(-1.5, -(pace**2) / 2 / (place - start - 7.0))]))))
    agents += parked(rng, path, -width / 2 - 1.15, APPROACH - 30, APPROACH + 90, 0.6)
    agents += parked(rng, back, -width / 2 - 1.15, 20, back.length - 40, 0.6)
    agents += walkers(rng, path, -width / 2 - 3.6, APPROACH, APPROACH + 80, int(rng.integers(4)))
    return Situation(site, ["main/0"], APPROACH, speed, limit, acceleration, agents)


def _drifting(rng: np.random.Generator, hidden: bool) -> Situation:
    limit = rng.uniform(9.0, 13.5)
    right = RoadEdge(parking=2.4, drivable=True, pavement=2.0)
    site = street(rng, lanes=1, limit=limit, width=(3.1, 3.5), right=right, bend=0.4)
    back = site.path(["main_back/0"])
    speed, acceleration = approach(rng, limit)
    pace, meeting = rng.uniform(7.0, 11.0), rng.uniform(1.8, 4.8)
    start = back.length - APPROACH - speed * meeting - pace * meeting
    drift = rng.uniform(1.3, 2.0)
    offset: np.ndarray | float = shift(rng.uniform(0.2, max(0.3, meeting - 1.5)), rng.uniform(1.2, 1.8), drift)
    if not hidden:
        offset = 0.0 if rng.uniform() < 0.6 else shift(-1.4, 1.4, drift)
    agents = [car(rng, along(back, travelled(start, pace), offset))]
    swerves = [
        Swerve(APPROACH + begin, APPROACH + begin + length, -side)
        for side in (0.9, 1.4, 1.9) for begin in (1.0, 6.0) for length in (14.0, 22.0)
    ]  # fmt: skip
    return Situation(site, ["main/0"], APPROACH, speed, limit, acceleration, agents, swerves)
