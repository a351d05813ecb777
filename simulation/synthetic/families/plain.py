"""Nothing special: free driving, with others around, on streets and through crossings."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import TIMES
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.rendering.scene import LightState
from mtdrive.simulation.synthetic.roads import APPROACH, crossroads, street
from mtdrive.simulation.synthetic.site import RoadEdge
from mtdrive.simulation.synthetic.traffic import approach, oncoming, parked, stream, walkers
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring; there is nothing to hide."""
    return _street(rng) if rng.uniform() < 0.55 else _crossing(rng)


def _street(rng: np.random.Generator) -> Situation:
    lanes, limit = int(rng.integers(1, 3)), rng.uniform(7.0, 15.0)
    edge = RoadEdge(parking=2.2 if rng.uniform() < 0.5 else 0.0, pavement=2.5)
    site = street(rng, lanes=lanes, limit=limit, right=edge, left=edge, bend=0.7)
    own = int(rng.integers(lanes))
    path = site.path([f"main/{own}"])
    width = site.lanes["main/0"].width
    agents = oncoming(rng, site, "main_back", limit, (20.0, 70.0))
    speed, acceleration = approach(rng, limit)
    if rng.uniform() < 0.6:
        agents += stream(
            rng, path, limit * rng.uniform(0.9, 1.1), APPROACH + 30 + 1.5 * limit, APPROACH + 130, (30.0, 60.0)
        )
    if lanes == 2:
        agents += stream(rng, site.path([f"main/{1 - own}"]), limit * 0.9, APPROACH - 60, APPROACH + 100, (25.0, 60.0))
    if edge.parking:
        last = site.path([f"main/{lanes - 1}"])
        agents += parked(rng, last, -width / 2 - 1.1, APPROACH - 30, APPROACH + 100, rng.uniform(0.2, 0.9))
    agents += walkers(
        rng, path, -(lanes - own - 0.5) * width - edge.parking - 1.8, APPROACH, APPROACH + 90, int(rng.integers(5))
    )
    return Situation(
        site,
        [f"main/{own}"],
        APPROACH,
        speed,
        limit,
        acceleration,
        agents,
        following=rng.uniform(14, 30) if rng.uniform() < 0.4 else None,
    )


def _crossing(rng: np.random.Generator) -> Situation:
    main, limit, signals = int(rng.integers(1, 3)), rng.uniform(7.0, 11.0), rng.uniform() < 0.5
    site = crossroads(rng, limit=limit, signals=signals, main=main, cross=int(rng.integers(1, 3)))
    turn = str(rng.choice(["left", "straight", "straight", "right"]))
    options = [c for c in site.connectors.values() if c.start.startswith("main/") and c.turn == turn]
    connector = options[rng.integers(len(options))]
    route = [connector.start, connector.name, connector.end]
    speed, acceleration = approach(rng, limit) if turn == "straight" else (rng.uniform(4.0, 6.0), 0.0)
    distance = rng.uniform(-6.0, 25.0)  # to the stop line
    if rng.uniform() < 0.25:  # just moving off
        speed, distance = rng.uniform(0.3, 2.0), rng.uniform(0.0, 2.0)
        acceleration = 0.6 * speed
    start = site.lanes[connector.start].curve.length - REAR_AXLE_TO_FRONT - distance
    green, red = [LightState.GREEN] * len(TIMES), [LightState.RED] * len(TIMES)
    lights = {"main": green, "arm2": green, "arm1": red, "arm3": red} if signals else {}
    agents = []
    if turn != "left":
        agents = stream(rng, site.lanes["main_back/0"].curve, limit, 0.0, 80.0, (25.0, 60.0))
    return Situation(site, route, start, speed, limit, acceleration, agents, lights=lights)
