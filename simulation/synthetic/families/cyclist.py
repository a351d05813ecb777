"""A cyclist at the edge of the ego's lane: pulls out into it (hidden), or rides on and is to be overtaken."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import cyclist, shift, standing, van
from mtdrive.simulation.synthetic.driver import Swerve
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, street
from mtdrive.simulation.synthetic.site import RoadEdge
from mtdrive.simulation.synthetic.traffic import ahead, approach, oncoming
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    lanes, limit = int(rng.integers(1, 3)), rng.uniform(9.0, 14.0)
    edge = RoadEdge(parking=2.2, pavement=2.0)
    site = street(rng, lanes=lanes, limit=limit, width=(3.5, 3.8), right=edge, bend=0.4)
    lane = f"main/{lanes - 1}"
    path, half = site.path([lane]), site.lanes[lane].width / 2
    speed, acceleration = approach(rng, limit)
    pace = rng.uniform(3.0, min(6.0, speed - 0.8))
    gap = (0.5 * (speed + limit) - pace) * rng.uniform(1.5, 4.8) + 4.0
    offset: np.ndarray | float = -half - rng.uniform(0.1, 0.4) if hidden else -half + rng.uniform(0.0, 0.9)
    agents = []
    if hidden:
        begin, duration = rng.uniform(0.3, 3.2), rng.uniform(0.9, 1.5)
        offset = offset + shift(begin, duration, rng.uniform(0.6, 1.7))
        # What the cyclist pulls out for.
        block = APPROACH + REAR_AXLE_TO_FRONT + gap + pace * (begin + duration) + rng.uniform(4.5, 7.0)
        agents.append(van(rng, standing(path.at(block, -half - 1.0))))
    agents.append(ahead(rng, path, APPROACH, gap, pace, (), offset, cyclist))
    if (lanes == 1 and rng.uniform() < 0.4) or lanes == 2:
        agents += oncoming(rng, site, "main_back", limit, (30.0, 80.0))
    sides = (0.6, 1.0, 1.5, 2.2) if lanes == 1 else (0.6, 1.0, 1.5, 2.2, 2 * half)
    swerves = [
        Swerve(APPROACH + begin, APPROACH + begin + length, side)
        for side in sides for begin in (1.0, 7.0, 14.0) for length in (14.0, 22.0, 32.0)
    ]  # fmt: skip
    return Situation(site, [lane], APPROACH, speed, limit, acceleration, agents, swerves)
