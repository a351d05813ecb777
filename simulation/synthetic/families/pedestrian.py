"""Somebody steps onto the road: from behind a parked van or after walking along the pavement (hidden), or is already
crossing; or nobody does."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.synthetic.agents import TIMES, Agent, pedestrian, standing, van, walked
from mtdrive.simulation.synthetic.curves import Curve
from mtdrive.simulation.synthetic.recording import Situation
from mtdrive.simulation.synthetic.roads import APPROACH, street
from mtdrive.simulation.synthetic.site import RoadEdge
from mtdrive.simulation.synthetic.traffic import approach, arrival, oncoming, parked, walkers
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT

PARKING = 2.2  # [m]


def build(rng: np.random.Generator, hidden: bool) -> Situation:
    """See the module docstring."""
    lanes, limit = int(rng.integers(1, 3)), rng.uniform(8.5, 13.0)
    edge = RoadEdge(parking=PARKING, pavement=3.0)
    site = street(rng, lanes=lanes, limit=limit, right=edge, left=edge, bend=0.4)
    lane = f"main/{lanes - 1}"
    path, half = site.path([lane]), site.lanes[lane].width / 2
    speed, acceleration = approach(rng, limit)
    crossing = speed * rng.uniform(1.8, 4.8)  # [m] ahead of the ego's front
    behind_van = rng.uniform() < 0.6
    meeting = arrival(crossing, speed, limit)
    place = APPROACH + REAR_AXLE_TO_FRONT + crossing
    agents: list[Agent] = []
    gap = (place - 1.2, place + 1.2)  # no parked car where the person walks
    if behind_van:
        vehicle = van(rng, standing(path.at(place - rng.uniform(4.0, 4.6), -half - 1.1)))
        agents.append(vehicle)
        gap = (place - 8.5, place + 1.2)
    share = rng.uniform(0.2, 0.8) if behind_van else 0.0
    agents += parked(rng, path, -half - 1.1, APPROACH - 30, gap[0] - 3.4, share)
    agents += parked(rng, path, -half - 1.1, gap[1] + 3.0, APPROACH + 90, share)
    story = rng.choice(["visible", "late", "nobody", "nobody"])
    if hidden:
        agents.append(_surprise(rng, path, half, place, meeting + rng.uniform(-0.7, 0.5), behind_van))
    elif story == "late":  # only who dawdles meets this one
        agents.append(_surprise(rng, path, half, place, meeting + rng.uniform(1.0, 2.8), behind_van))
    elif story == "visible":
        pace = rng.uniform(1.1, 1.6)
        reach = rng.uniform(-1.0, 0.8) * half  # where across the lane at the undisturbed ego's arrival
        start = reach - pace * meeting
        line = path.at(place, np.array([start - pace * 1.5, half * 6]))[:, :2]
        agents.append(pedestrian(rng, walked(line, pace, -1.5)))
    agents += walkers(rng, path, -half - PARKING - 2.0, APPROACH + 5, APPROACH + 90, int(rng.integers(4)))
    if story == "nobody" and not hidden:
        agents += oncoming(rng, site, "main_back", limit, (40.0, 120.0))
    return Situation(site, [lane], APPROACH, speed, limit, acceleration, agents)


def _surprise(
    rng: np.random.Generator, path: Curve, half: float, place: float, there: float, behind_van: bool
) -> Agent:
    """A person who enters the road at arc length `place` and is in the middle of the ego's lane at time `there`."""
    pace = rng.uniform(1.5, 2.6)
    end = half * (5 if rng.uniform() < 0.65 else rng.uniform(-0.3, 0.6))  # crosses, or freezes in the lane
    kerb = -half - PARKING - 0.6
    leaves = there + kerb / pace
    if behind_van:
        person = pedestrian(rng, walked(path.at(place, np.array([kerb, end]))[:, :2], pace, leaves))
        return person.appearing(leaves + (PARKING + 0.3) / pace)
    # Walks along the pavement up to the place, then turns into the road.
    stroll = rng.uniform(1.0, 1.5)
    before = place - stroll * (leaves + 1.5)
    along, across = path.at(np.linspace(before, place, 8), kerb)[:, :2], path.at(place, end)[:2]
    poses = walked(along, stroll, -1.5)
    crossing = walked(np.vstack([along[-1], across]), pace, leaves)
    return pedestrian(rng, np.where(TIMES[:, None] < leaves, poses, crossing))
