"""A slower car in the next lane moves over into the ego's (hidden), is already doing so, or stays where it is."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import shift
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, street
from mtdrive.simulation.synthetic.traffic import ahead, approach, oncoming, stream


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    limit = rng.uniform(11.0, 16.0)
    site = street(rng, lanes=2, limit=limit)
    own = int(rng.integers(2))
    path, beside = site.path([f"main/{own}"]), site.path([f"main/{1 - own}"])
    speed, acceleration = approach(rng, limit)
    width = site.lanes["main/0"].width * (1.0 if own == 0 else -1.0)  # the ego's lane lies left of lane 1
    slower, gap = rng.uniform(0.5, 5.0), rng.uniform(1.0, 18.0)
    offset: np.ndarray | float = 0.0
    if hidden:
        offset = shift(rng.uniform(0.2, 3.4), rng.uniform(1.8, 3.0), width)
    elif rng.uniform() < 0.5:
        offset = shift(-rng.uniform(0.8, 1.4), rng.uniform(1.8, 3.0), width)
        gap += 5.0
    script = [(0.0, rng.uniform(-0.8, 0.3))]
    if hidden and rng.uniform() < 0.5:  # and brakes
        script.append((rng.uniform(1.0, 2.5), -rng.uniform(2.0, 5.0)))
    cutter = ahead(rng, beside, APPROACH, gap, max(3.0, speed - slower), script, offset)
    agents = [cutter, *oncoming(rng, site, "main_back", limit, (25.0, 80.0))]
    if rng.uniform() < 0.5:  # what makes the other change lanes
        agents.append(
            ahead(rng, beside, APPROACH, gap + rng.uniform(22, 35), max(0.0, speed - slower - rng.uniform(3, 6)))
        )
    if rng.uniform() < 0.5:
        agents += stream(rng, path, limit, APPROACH + rng.uniform(40, 60), APPROACH + 120, (30.0, 50.0))
    return Situation(
        site,
        [f"main/{own}"],
        APPROACH,
        speed,
        limit,
        acceleration,
        agents,
        following=rng.uniform(14, 30) if rng.uniform() < 0.3 else None,
    )
