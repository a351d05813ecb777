"""A car ahead at a normal distance brakes hard (hidden), or drives on."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import along, car, travelled
from mtdrive.simulation.synthetic.drive import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, road
from mtdrive.simulation.synthetic.site import RoadEdge
from mtdrive.simulation.synthetic.traffic import oncoming
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    lanes, limit = int(rng.integers(1, 3)), rng.uniform(9.0, 14.0)
    bend = rng.choice([0.0, 1.0]) * rng.uniform(-1, 1) / 200
    site = road([(160.0, bend)], forward=lanes, backward=lanes, lane_width=rng.uniform(3.3, 3.7), speed_limit=limit,
                right=RoadEdge(pavement=rng.choice([0.0, 2.5])))
    lane = f"main/{rng.integers(lanes)}"
    path = site.path([lane])
    speed = limit * rng.uniform(0.75, 1.0)
    gap = 2.0 + speed * rng.uniform(0.7, 1.6)
    script = [(rng.uniform(0.1, 1.0), -rng.uniform(3.5, 6.5))] if hidden else [(0.0, rng.uniform(-0.2, 0.3))]
    place = APPROACH + REAR_AXLE_TO_FRONT + gap + 2.3
    lead = car(rng, along(path, travelled(place, speed + rng.uniform(-0.4, 0.6), script)))
    agents = [lead, *oncoming(rng, site, "main_back", limit, (25.0, 80.0))]
    return Situation(site, [lane], APPROACH, speed, limit, rng.uniform(0, 0.3), agents,
                     following=rng.uniform(14, 30) if rng.uniform() < 0.5 else None)
