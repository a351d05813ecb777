"""From a scripted situation to a recorded drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from mtdrive.simulation.dynamics.state import HEADING, VELOCITY_X, VELOCITY_Y, X, Y
from mtdrive.simulation.scene import DrivingCommand
from mtdrive.simulation.synthetic.agents import NOW, RATE, TIMES, Agent, along, car
from mtdrive.simulation.synthetic.collisions import CLEAR, any_overlap
from mtdrive.simulation.synthetic.curves import Curve
from mtdrive.simulation.synthetic.driver import Boxes, Driver, Plan, StopLine, Swerve, boxes, conflict, driven, foreseen
from mtdrive.simulation.synthetic.rendering.scene import LightState
from mtdrive.simulation.synthetic.site import Site
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT

COMMAND_DISTANCE = 30.0  # [m] where along the route ...
COMMAND_OFFSET = 3.0  # [m] ... a sideways displacement makes it a turn


@dataclass(frozen=True, eq=False)
class Situation:
    """What a scenario family scripts."""

    site: Site
    """The road with its surroundings."""

    route: Sequence[str]
    """Names of the lanes and connectors that the ego follows."""

    start: float
    """Arc length [m] of the ego's rear axle along the route at t0."""

    speed: float
    """Speed of the ego at t0 [m/s]."""

    limit: float
    """Speed limit [m/s]."""

    acceleration: float = 0.0
    """Acceleration of the ego at t0 [m/s^2]."""

    agents: Sequence[Agent] = ()
    """All other road users."""

    swerves: Sequence[Swerve] = ()
    """Sideways moves that the driver may make."""

    stops: Sequence[StopLine] = ()
    """Red lights ahead."""

    lights: Mapping[str, Sequence[LightState]] = field(default_factory=dict)
    """Lane group -> state of its traffic light at TIMES (66)."""

    following: float | None = None
    """Distance [m] at t0 of a car behind the ego; None for no such car."""


class Surprise(Enum):
    """What becomes of a good plan that is made from all that shows at t0: labels, lights, constant velocities."""

    NONE = "none"
    CLOSE_CALL = "close_call"  # its time to collision falls below a second
    COLLISION = "collision"


@dataclass(frozen=True, eq=False)
class RecordedDrive:
    """A situation and how the ego drove in it."""

    situation: Situation
    """What was scripted."""

    plan: Plan
    """What the driver did."""

    agents: Sequence[Agent]
    """All other road users, with a car behind if there is one."""

    command: DrivingCommand
    """Navigation command at t0."""

    surprise: Surprise
    """What would become of a plan made from what shows at t0."""

    def prolonged(self, steps: int) -> RecordedDrive:
        """The same drive, `steps` of 0.1 s longer: everybody keeps the last velocity, lights keep their state."""
        agents = [
            replace(
                agent,
                poses=_straight_on(agent.poses, agent.velocity[-1], steps),
                visible=_held(agent.visible, steps),
            )
            for agent in self.agents
        ]
        plan = self.plan
        speed, heading = plan.speed[-1], plan.poses[-1, 2]
        longer = Plan(
            _straight_on(plan.poses, speed * np.array([np.cos(heading), np.sin(heading)]), steps),
            _held(plan.speed, steps),
            np.concatenate([plan.acceleration, np.zeros(steps)]),
            np.concatenate([plan.s, plan.s[-1] + speed / RATE * np.arange(1, steps + 1)]),
        )
        lights = {group: [*states, *[states[-1]] * steps] for group, states in self.situation.lights.items()}
        return replace(self, situation=replace(self.situation, lights=lights), plan=longer, agents=agents)


def record(situation: Situation, rng: np.random.Generator) -> RecordedDrive | None:
    """Let the driver drive; None if the situation has no good way out or makes its actors overlap."""
    path = situation.site.path(situation.route)
    agents = list(situation.agents)
    poses, halves, present = boxes(agents)
    if any_overlap(poses, halves, present):
        return None
    driver = Driver(situation.site, path, situation.start, situation.speed, situation.acceleration, situation.limit)
    plan = driver.plan(agents, situation.swerves, situation.stops)
    if plan is None:
        return None
    visible_stops = [stop for stop in situation.stops if stop.begin <= 0]
    expected = driver.plan(foreseen(agents), situation.swerves, visible_stops)
    surprise = Surprise.NONE if expected is None else _surprise(expected, (poses, halves, present))
    if situation.following is not None:
        agents.append(_follower(path, plan, situation.following, rng))
    return RecordedDrive(situation, plan, agents, _command(path, situation.start), surprise)


def _straight_on(poses: np.ndarray, velocity: np.ndarray, steps: int) -> np.ndarray:
    """Poses (T, 3), and `steps` more at a velocity (2,) [m/s] and the last heading."""
    ahead = np.zeros((steps, 3))
    ahead[:, :2] = np.arange(1, steps + 1)[:, None] / RATE * velocity
    return np.concatenate([poses, poses[-1] + ahead])


def _held(values: np.ndarray, steps: int) -> np.ndarray:
    """Values (T,), and the last one `steps` times more."""
    return np.concatenate([values, np.repeat(values[-1:], steps)])


def _surprise(plan: Plan, obstacles: Boxes) -> Surprise:
    states = driven(plan)
    poses, speeds = states[:, [X, Y, HEADING]], np.hypot(states[:, VELOCITY_X], states[:, VELOCITY_Y])
    if conflict(poses, speeds, obstacles, np.zeros(2), lookahead=(0,)) != CLEAR:
        return Surprise.COLLISION
    return Surprise.NONE if conflict(poses, speeds, obstacles, np.zeros(2)) == CLEAR else Surprise.CLOSE_CALL


def _follower(path: Curve, plan: Plan, distance: float, rng: np.random.Generator) -> Agent:
    """A car behind that keeps its distance (intelligent driver model, towards the ego's speed at t0)."""
    follower = car(rng, np.zeros((len(TIMES), 3)))
    s, v = np.empty(len(TIMES)), np.empty(len(TIMES))
    s[0], v[0] = plan.s[0] - distance, plan.speed[0]
    for k in range(1, len(TIMES)):
        gap = max(0.5, plan.s[k - 1] - s[k - 1] - REAR_AXLE_TO_FRONT)
        wanted = 2.0 + 1.0 * v[k - 1] + v[k - 1] * (v[k - 1] - plan.speed[k - 1]) / (2 * np.sqrt(1.5 * 2.5))
        pull = 1.5 * (1 - (v[k - 1] / max(3.0, plan.speed[NOW])) ** 4 - (max(0.0, wanted) / gap) ** 2)
        v[k] = max(0.0, v[k - 1] + max(-6.0, pull) / RATE)
        s[k] = s[k - 1] + 0.5 * (v[k] + v[k - 1]) / RATE
    return Agent(follower.kind, follower.size, follower.colour, along(path, s))


def _command(path: Curve, start: float) -> DrivingCommand:
    """The navigation command, from where the route leads within the next metres."""
    here, ahead = path.at(start), path.at(start + COMMAND_DISTANCE)
    dx, dy = ahead[:2] - here[:2]
    sideways = -np.sin(here[2]) * dx + np.cos(here[2]) * dy
    if abs(sideways) < COMMAND_OFFSET:
        return DrivingCommand.STRAIGHT
    return DrivingCommand.LEFT if sideways > 0 else DrivingCommand.RIGHT
