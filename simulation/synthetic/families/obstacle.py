"""Something stands in the ego's lane and there is room to go round. The car in front may hide it until it moves over
itself (hidden)."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import Agent, along, barrier, car, cone, lorry, shift, standing, travelled, van
from mtdrive.simulation.synthetic.curves import Curve
from mtdrive.simulation.synthetic.driver import Swerve
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, street
from mtdrive.simulation.synthetic.traffic import approach, oncoming, stream
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    limit = rng.uniform(9.5, 14.5)
    site = street(rng, lanes=2, limit=limit, bend=0.4)
    own = int(rng.integers(2))
    lane, other = f"main/{own}", f"main/{1 - own}"
    path, width = site.path([lane]), site.lanes[lane].width
    side = -width if own == 0 else width
    speed, acceleration = approach(rng, limit)
    if hidden:
        gap = 2.0 + speed * rng.uniform(0.9, 1.4)  # to the car in front
        until = rng.uniform(0.5, 1.4)
        place = APPROACH + REAR_AXLE_TO_FRONT + gap + 4.6 + speed * (until + 1.7)
        leader = along(path, travelled(APPROACH + REAR_AXLE_TO_FRONT + gap + 2.3, speed), shift(until, 2.0, side))
        blocker = (van if rng.uniform() < 0.5 else car)(rng, standing(path.at(place + 2.5)))
        agents = [(van if rng.uniform() < 0.5 else car)(rng, leader), blocker.appearing(until + 0.9)]
    else:
        place = APPROACH + REAR_AXLE_TO_FRONT + speed * rng.uniform(1.8, 3.4)
        agents = _blockers(rng, path, place, width)
        if rng.uniform() < 0.3:
            agents += stream(rng, site.path([other]), limit, APPROACH - 40, APPROACH + 120, (45.0, 90.0))
    agents += oncoming(rng, site, "main_back", limit, (30.0, 90.0))
    swerves = [
        Swerve(APPROACH + begin, APPROACH + begin + length, side * share)
        for begin in (0.5, 5.0, 10.0, 16.0) for length in (14.0, 20.0, 27.0, 35.0) for share in (0.8, 1.0)
    ]  # fmt: skip
    return Situation(site, [lane], APPROACH, speed, limit, acceleration, agents, swerves)


def _blockers(rng: np.random.Generator, path: Curve, place: float, width: float) -> list[Agent]:
    """A stopped vehicle, or a building site behind cones and barriers, from arc length `place` on."""
    kind = rng.choice(["car", "lorry", "works"])
    if kind == "car":
        return [car(rng, standing(path.at(place + 2.4, rng.uniform(-0.3, 0.3))))]
    if kind == "lorry":
        return [lorry(rng, standing(path.at(place + 4.8, rng.uniform(-0.3, 0.3))))]
    line = [cone(path.at(place + 2.0 * k, side * (0.25 + 0.12 * k) * width)) for k in range(3) for side in (-1, 1)]
    return [*line, barrier(path.at(place + 6.0)), *[barrier(path.at(place + 14.0 + 4 * k)) for k in range(2)]]
