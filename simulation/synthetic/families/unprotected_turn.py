"""A left turn across oncoming traffic: somebody comes from behind a waiting lorry (hidden), is seen coming, or the way
is free; or a right turn, where somebody steps onto the crosswalk (hidden)."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import Agent, along, car, lorry, pedestrian, standing, travelled, walked
from mtdrive.simulation.synthetic.drive import Situation
from mtdrive.simulation.synthetic.roads import crossroads
from mtdrive.simulation.synthetic.site import Site
from mtdrive.simulation.synthetic.traffic import arrival
from mtdrive.simulation.vehicle import REAR_AXLE_TO_CENTER, REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    main, limit = int(rng.integers(1, 3)), rng.uniform(7.0, 9.5)
    site = crossroads(rng, limit=limit, signals=False, main=main, cross=1)
    left = rng.uniform() < 0.65
    lane = "main/0" if left else f"main/{main - 1}"
    exit_lane = "arm3_back/0" if left else "arm1_back/0"
    route = [lane, f"{lane}>{exit_lane}", exit_lane]
    line = site.lanes[lane].curve.length
    start = line - rng.uniform(3.0, 12.0) - REAR_AXLE_TO_FRONT
    speed = rng.uniform(4.5, 6.5)
    agents = _oncoming(rng, site, hidden, start, speed, main) if left else _crosswalk(rng, site, route, hidden, start, speed)
    return Situation(site, route, start, speed, limit, rng.uniform(-0.3, 0.1), agents)


def _oncoming(rng, site: Site, hidden: bool, start: float, speed: float, main: int) -> list[Agent]:
    """Traffic that comes from the opposite arm on the lane next to the kerb, timed to meet the turning ego."""
    lane = f"arm2/{main - 1}"
    route = [lane, f"{lane}>main_back/{main - 1}", f"main_back/{main - 1}"]
    path = site.path(route)
    line = site.lanes[lane].curve.length
    own = site.path(["main/0", "main/0>arm3_back/0", "arm3_back/0"])
    away = np.hypot(*(own.xy[:, None] - path.xy[None]).transpose(2, 0, 1))
    meeting, there = (int(k) for k in np.unravel_index(np.argmin(away), away.shape))  # where the two paths cross
    entry = arrival(own.s[meeting] - start - REAR_AXLE_TO_CENTER, speed, 7.0)
    pace = rng.uniform(8.0, 11.0)
    place = path.s[there] - pace * (entry + rng.uniform(-0.5, 0.5))
    agents: list[Agent] = []
    if hidden or rng.uniform() < 0.6:
        other = car(rng, along(path, travelled(place, pace)))
        agents.append(other.appearing(rng.uniform(0.4, 1.0)) if hidden else other)
    if main == 2:  # a lorry that waits to turn left itself and blocks the view
        agents.append(lorry(rng, standing(site.lanes["arm2/0"].curve.at(line - 4.0))))
    return agents


def _crosswalk(rng, site: Site, route: list[str], hidden: bool, start: float, speed: float) -> list[Agent]:
    """A person at the crosswalk of the arm that the ego turns into."""
    path = site.path(route)
    lane = site.lanes[route[0]].curve
    crossing = lane.length + site.connectors[route[1]].curve.length - 2.3  # arc length of the crosswalk
    meeting = arrival(crossing - REAR_AXLE_TO_FRONT - start, speed, 6.0)
    half = site.lanes[route[0]].width / 2
    pace = rng.uniform(1.3, 2.2)
    waiting = path.at(crossing, -half - 1.5)
    if hidden:
        leaves = max(0.3, meeting + rng.uniform(-0.4, 0.5) - (half + 1.5) / pace)
        return [pedestrian(rng, walked(path.at(crossing, np.array([-half - 1.5, 3.5 * half]))[:, :2], pace, leaves))]
    if rng.uniform() < 0.5:
        return [pedestrian(rng, standing(waiting))]
    begin = meeting + rng.uniform(-0.8, 0.5) - (half + 1.5) / pace
    line = path.at(crossing, np.array([-half - 1.5 - pace * max(0.0, begin + 1.5), 3.5 * half]))[:, :2]
    return [pedestrian(rng, walked(line, pace, -1.5))]
