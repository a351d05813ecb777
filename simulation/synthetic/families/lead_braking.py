"""A car ahead at a normal distance brakes (hidden), drives on, or is already much slower."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, street
from mtdrive.simulation.synthetic.traffic import ahead, oncoming


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    lanes, limit = int(rng.integers(1, 3)), rng.uniform(10.0, 15.5)
    site = street(rng, lanes=lanes, limit=limit)
    lane = f"main/{rng.integers(lanes)}"
    path = site.path([lane])
    speed = limit * rng.uniform(0.75, 1.0)
    gap = 2.0 + speed * rng.uniform(0.6, 1.6)
    if hidden:
        lead = ahead(
            rng, path, APPROACH, gap, speed + rng.uniform(-0.4, 0.6), [(rng.uniform(0.1, 1.8), -rng.uniform(1.5, 7.0))]
        )
    elif rng.uniform() < 0.5:
        lead = ahead(rng, path, APPROACH, gap, speed + rng.uniform(-0.4, 0.6), [(0.0, rng.uniform(-0.2, 0.3))])
    else:
        lead = ahead(
            rng, path, APPROACH, gap + 0.8 * speed, speed * rng.uniform(0.3, 0.6), [(-0.8, -rng.uniform(0, 1.5))]
        )
    following = rng.uniform(14, 30) if rng.uniform() < 0.5 else None
    agents = [lead, *oncoming(rng, site, "main_back", limit, (25.0, 80.0))]
    return Situation(site, [lane], APPROACH, speed, limit, rng.uniform(0, 0.3), agents, following=following)
