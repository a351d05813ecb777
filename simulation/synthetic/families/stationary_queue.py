"""Traffic in front comes to a halt (hidden), or stands already."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, street
from mtdrive.simulation.synthetic.traffic import ahead, oncoming


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    lanes, limit = int(rng.integers(1, 3)), rng.uniform(9.0, 14.0)
    site = street(rng, lanes=lanes, limit=limit)
    speed = limit * rng.uniform(0.55, 1.0)
    own = int(rng.integers(lanes))
    agents = []
    for index in range(lanes):
        path = site.path([f"main/{index}"])
        if hidden:
            flow = speed + rng.uniform(-0.5, 0.3)
            gap, brake, begin = 2.0 + speed * rng.uniform(0.5, 1.6), rng.uniform(1.2, 5.0), rng.uniform(0.1, 1.4)
        else:
            flow, brake, begin = 0.0, 0.0, 0.0
            gap = speed**2 / 2 / rng.uniform(1.5, 2.7) + 3.0 + rng.uniform(0.0, 8.0)
        for _ in range(int(rng.integers(2, 5))):
            member = ahead(rng, path, APPROACH, gap, flow, [(begin, -brake)])
            agents.append(member if hidden else member.waiting())
            begin = max(0.0, begin - 0.25)  # the halt comes from the front
            gap += 4.6 + rng.uniform(2.0, 4.0) + 0.5 * flow
    agents += oncoming(rng, site, "main_back", limit, (20.0, 60.0))
    return Situation(
        site,
        [f"main/{own}"],
        APPROACH,
        speed,
        limit,
        rng.uniform(-0.3, 0.1),
        agents,
        following=rng.uniform(14, 25) if rng.uniform() < 0.4 else None,
    )
