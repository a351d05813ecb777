"""A signalled crossing: the light changes and cross traffic starts, or somebody runs the red light (hidden); or the
light is red already, or green and stays so."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import TIMES, Agent, along, car, travelled
from mtdrive.simulation.synthetic.driver import StopLine
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.rendering.scene import LightState
from mtdrive.simulation.synthetic.roads import crossroads
from mtdrive.simulation.synthetic.site import Site
from mtdrive.simulation.synthetic.traffic import ahead, approach, arrival
from mtdrive.simulation.vehicle import REAR_AXLE_TO_CENTER, REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    main, limit = int(rng.integers(1, 3)), rng.uniform(8.0, 11.5)
    site = crossroads(rng, limit=limit, signals=True, main=main, cross=1, corner=(3.5, 6.0))
    own = int(rng.integers(main))
    route = [f"main/{own}", f"main/{own}>arm2_back/{own}", f"arm2_back/{own}"]
    line = site.lanes[route[0]].curve.length
    speed, acceleration = approach(rng, limit)
    distance = speed * (rng.uniform(1.2, 3.2) if hidden else rng.uniform(1.5, 3.0))  # to the stop line
    start = line - distance - REAR_AXLE_TO_FRONT
    turns_red, runner = (rng.uniform(1.0, 1.6), False) if rng.uniform() < 0.6 else (np.inf, True)
    if not hidden:
        turns_red, runner = (-9.0, False) if rng.uniform() < 0.55 else (np.inf, False)
    lights = _lights(turns_red)
    stops = [StopLine(line, turns_red, 9.0)] if np.isfinite(turns_red) else []
    middle = site.connectors[route[1]].curve.length / 2 - 1.0
    crossing = arrival(distance + REAR_AXLE_TO_FRONT - REAR_AXLE_TO_CENTER + middle, speed, limit)
    agents = _waiting(rng, site, "arm2")
    if np.isfinite(turns_red):
        agents += _cross_traffic(rng, site, crossing + rng.uniform(-0.9, 0.9) if hidden else rng.uniform(0.0, 4.0), 3)
        if rng.uniform() < 0.4 and not hidden:
            agents.append(ahead(rng, site.path(route), start, distance - rng.uniform(6.0, 7.0), 0.0).waiting())
    elif runner:
        agents += _cross_traffic(rng, site, crossing + rng.uniform(-0.9, 0.9), 1, halts=rng.uniform() < 0.4)
    elif rng.uniform() < 0.5:  # only who dawdles meets this one
        agents += _cross_traffic(rng, site, crossing + rng.uniform(1.4, 3.0), 1)
    return Situation(
        site,
        route,
        start,
        speed,
        limit,
        min(acceleration, 0.1) if turns_red < 0 else acceleration,
        agents,
        stops=stops,
        lights=lights,
    )


def _lights(turns_red: float) -> dict[str, list[LightState]]:
    """Main road: green, 1 s of yellow, red from `turns_red` on; the cross road is green 0.4 s later."""
    main = [LightState.GREEN if t < turns_red - 1.0 else LightState.YELLOW if t < turns_red else LightState.RED
            for t in TIMES]  # fmt: skip
    cross = [LightState.GREEN if t >= turns_red + 0.4 else LightState.RED for t in TIMES]
    return {"main": main, "arm2": main, "arm1": cross, "arm3": cross}


def _cross_traffic(rng: np.random.Generator, site: Site, time: float, count: int, halts: bool = False) -> list[Agent]:
    """Vehicles that cross the ego's way, the first of them at `time`; houses hide them until they are near.

    halts: the first one stops in the middle.
    """
    arm, end = ("arm3", "arm1") if rng.uniform() < 0.7 else ("arm1", "arm3")
    route = [f"{arm}/0", f"{arm}/0>{end}_back/0", f"{end}_back/0"]
    path = site.path(route)
    line = site.lanes[route[0]].curve.length
    middle = line + site.connectors[route[1]].curve.length / 2
    pace = rng.uniform(6.5, 10.5)
    place = middle - pace * time
    braking = [(time - pace / 6.0, -3.0)] if halts else []
    vehicles = []
    for _ in range(count):
        s = travelled(place, pace, braking)
        near = TIMES[np.argmax(s > line - rng.uniform(2.0, 8.0))]
        vehicles.append(car(rng, along(path, s)).appearing(near))
        place -= rng.uniform(12.0, 22.0)
    return vehicles


def _waiting(rng: np.random.Generator, site: Site, group: str) -> list[Agent]:
    """Cars that stand at the stop line of a group's lanes."""
    return [
        car(rng, along(lane.curve, np.full(len(TIMES), lane.curve.length - rng.uniform(3.0, 4.0))))
        for lane in site.lanes.values() if lane.group == group and rng.uniform() < 0.4
    ]  # fmt: skip
