"""Turns where others have the right of way: somebody comes whom something hides (hidden), is seen coming, or the way is
free. To the left across oncoming traffic, out of a side road, or to the right over a crosswalk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtdrive.simulation.synthetic.agents import Agent, along, car, lorry, pedestrian, standing, travelled, walked
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import crossroads, side_road
from mtdrive.simulation.synthetic.site import Site
from mtdrive.simulation.synthetic.traffic import arrival
from mtdrive.simulation.vehicle import REAR_AXLE_TO_CENTER, REAR_AXLE_TO_FRONT


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    kind = rng.choice(["across", "side_road", "crosswalk"], p=[0.3, 0.5, 0.2])
    limit, main = rng.uniform(7.0, 9.5), 1 if kind == "side_road" else int(rng.integers(1, 3))
    if kind == "side_road":
        site = side_road(rng, limit=limit)
        lane, end = "main/0", str(rng.choice(["arm1_back/0", "arm2_back/0"]))
    else:
        site = crossroads(rng, limit=limit, signals=False, main=main, cross=1)
        lane, end = ("main/0", "arm3_back/0") if kind == "across" else (f"main/{main - 1}", "arm1_back/0")
    route = [lane, f"{lane}>{end}", end]
    start = site.lanes[lane].curve.length - rng.uniform(-3.0, 8.0) - REAR_AXLE_TO_FRONT
    speed = rng.uniform(4.5, 6.5)
    if kind == "across":
        other = f"arm2/{main - 1}", f"main_back/{main - 1}"
        agents = _meeting(rng, site, route, other, hidden, start, speed)
        if main == 2:  # a lorry that waits to turn left itself and blocks the view
            waiting = site.lanes["arm2/0"].curve
            agents.append(lorry(rng, standing(waiting.at(waiting.length - 4.0))).waiting())
    elif kind == "side_road":
        other = ("arm2/0", "arm1_back/0") if end == "arm1_back/0" or rng.uniform() < 0.6 else ("arm1/0", "arm2_back/0")
        agents = _meeting(rng, site, route, other, hidden, start, speed)
    else:
        agents = _crosswalk(rng, site, route, hidden, start, speed)
    return Situation(site, route, start, speed, limit, rng.uniform(-0.3, 0.1), agents)


def _meeting(
    rng: np.random.Generator,
    site: Site,
    route: Sequence[str],
    other: tuple[str, str],
    hidden: bool,
    start: float,
    speed: float,
) -> list[Agent]:
    """A vehicle that drives from one lane to another and meets the turning ego where their ways first touch."""
    story = "surprise" if hidden else rng.choice(["visible", "late", "nobody"], p=[0.4, 0.3, 0.3])
    if story == "nobody":
        return []
    own, path = site.path(route), site.path([other[0], f"{other[0]}>{other[1]}", other[1]])
    distance = np.hypot(*(own.xy[:, None] - path.xy[None]).transpose(2, 0, 1)).min(axis=1)
    touch = int(np.argmax(distance < 1.5))
    when = arrival(own.s[touch] - start - REAR_AXLE_TO_CENTER, speed, 6.5)
    # Only who dawdles meets a late one.
    when += rng.uniform(1.3, 3.0) if story == "late" else rng.uniform(-0.9, 0.9)
    pace = rng.uniform(7.0, 10.5)
    vehicle = car(rng, along(path, travelled(path.project(own.xy[touch]) - pace * when, pace)))
    return [vehicle if story == "visible" else vehicle.appearing(rng.uniform(0.3, 1.0))]


def _crosswalk(
    rng: np.random.Generator, site: Site, route: Sequence[str], hidden: bool, start: float, speed: float
) -> list[Agent]:
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
