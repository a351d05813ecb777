"""A sharp bend, entered at speed; behind it the road may be blocked by a car that shows late (hidden)."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import car, standing
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, road
from mtdrive.simulation.synthetic.site import RoadEdge
from mtdrive.simulation.synthetic.traffic import oncoming
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    radius, side = rng.uniform(18.0, 40.0), rng.choice([-1.0, 1.0])
    angle, straight = rng.uniform(0.9, 1.7), rng.uniform(6.0, 22.0)
    limit = np.sqrt(2.9 * radius) * rng.uniform(0.95, 1.15)
    pieces = [(straight, 0.0), (angle * radius, side / radius), (90.0, 0.0)]
    edge = RoadEdge(pavement=float(rng.choice([0.0, 2.0])))
    site = road(
        pieces,
        forward=1,
        backward=1,
        lane_width=rng.uniform(3.5, 4.0),
        speed_limit=limit,
        right=edge,
        left=edge,
        ramp=10.0,
    )
    path = site.path(["main/0"])
    speed = limit * rng.uniform(0.8, 1.1)
    agents = []
    if hidden:
        place = APPROACH + REAR_AXLE_TO_FRONT + speed * rng.uniform(1.6, 4.4)
        agents.append(car(rng, standing(path.at(place + 2.4))).appearing(rng.uniform(0.4, 1.0)))
    if rng.uniform() < 0.5:
        agents += oncoming(rng, site, "main_back", 0.8 * limit, (35.0, 80.0))
    return Situation(site, ["main/0"], APPROACH, speed, limit, 0.0, agents)
