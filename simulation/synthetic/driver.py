"""The recorded human: an attentive driver who knows what the others are going to do.

The driver chooses among speed profiles (when to brake, how hard, down to which speed, when to go on) and
sideways moves the one with the most progress, less a price for hard braking, that keeps clear of everybody (also
for one second ahead at constant velocity), of the edge of the road and of red lights. It must do so as planned
and as the scorer's tracker and vehicle model drive it, which lag behind a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import shapely
from numba import njit

from mtdrive.simulation.dynamics import sample_plans, simulate
from mtdrive.simulation.dynamics.state import ACCELERATION_X, HEADING, VELOCITY_X, VELOCITY_Y, X, Y
from mtdrive.simulation.metrics.comfort import measure_comfort
from mtdrive.simulation.synthetic.agents import NOW, RATE, TIMES, Agent
from mtdrive.simulation.synthetic.collisions import CLEAR, LOOKAHEAD, first_conflict
from mtdrive.simulation.synthetic.curves import Curve
from mtdrive.simulation.synthetic.site import Site
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT, REAR_AXLE_TO_REAR, WIDTH

MAX_LATERAL = 2.8  # [m/s^2] in bends
MAX_LATERAL_SWERVE = 2.2  # [m/s^2] of a sideways move
FREE_ACCELERATION = 1.5  # [m/s^2] PDM-Closed's
JERK = (2.6, 2.0)  # [m/s^3] braking, accelerating
MARGIN = np.array([0.6, 0.2])  # [m] kept around the car, along and across
DRIVEN_MARGIN = np.array([0.3, 0.1])  # [m] the same, as the vehicle model drives it
PATH_STEP = 0.5  # [m]
SWERVE_PRICE = 0.3  # [m of progress] for a sideways move of 1 m
MOST_TRIED = 60  # clear profiles that turn out not to be drivable, before giving up
EDGE_MARGIN = 0.1  # [m] kept from the edge of the drivable area
WAYPOINTS = np.arange(5, 41, 5)  # steps from t0
Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]
BRAKING = [
    (begin, rate, fraction, end)
    for begin, rate, fraction, end in product(
        (0.0, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5, 3.0), (0.8, 1.4, 2.0, 2.6, 3.2), (0.0, 0.2, 0.4, 0.6, 0.8),
        (1.5, 2.5, 3.5, 9.0),
    )
    if end - begin >= 0.9
]  # fmt: skip


@dataclass(frozen=True)
class Swerve:
    """A sideways move."""

    begin: float
    """Arc length [m] of the path where it begins."""

    end: float
    """Arc length [m] of the path where it ends."""

    offset: float
    """How far it goes [m], positive to the left."""


@dataclass(frozen=True)
class StopLine:
    """A line that the front of the car must not cross for a while, unless it has crossed it before."""

    s: float
    """Arc length [m] of the line along the path."""

    begin: float
    """Time [s] from which the line is closed."""

    end: float
    """Time [s] up to which the line is closed."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The ego's drive at TIMES."""

    poses: np.ndarray
    """(66, 3) of the rear axle, site frame."""

    speed: np.ndarray
    """(66,) [m/s]."""

    acceleration: np.ndarray
    """(66,) [m/s^2]."""

    s: np.ndarray
    """(66,) arc length [m] along the path."""


@njit(cache=True)
def _roll(candidates, s0, v0, a0, grid_step, limits, steps, jerk_down, jerk_up):
    """s, v, a (N, steps) of candidates (N, 5): braking begin, rate, target speed, end, share of the limit."""
    n = candidates.shape[0]
    s, v, a = np.empty((n, steps)), np.empty((n, steps)), np.empty((n, steps))
    for i in range(n):
        s[i, 0], v[i, 0], a[i, 0] = s0, v0, a0
        for k in range(1, steps):
            time = (k - 1) * 0.1
            cell = min(limits.shape[0] - 1, max(0, int(s[i, k - 1] / grid_step)))
            gap = limits[cell] * candidates[i, 4] - v[i, k - 1]
            command = min(FREE_ACCELERATION, max(-2.4, gap / 0.9))
            if candidates[i, 0] <= time < candidates[i, 3]:
                brake = max(-candidates[i, 1], (candidates[i, 2] - v[i, k - 1]) / 0.6)
                command = min(command, brake)
            change = command - a[i, k - 1]
            a[i, k] = a[i, k - 1] + min(jerk_up * 0.1, max(-jerk_down * 0.1, change))
            v[i, k] = v[i, k - 1] + a[i, k] * 0.1
            if v[i, k] <= 0.0:
                v[i, k], a[i, k] = 0.0, 0.0
            s[i, k] = s[i, k - 1] + 0.05 * (v[i, k] + v[i, k - 1])
    return s, v, a


def speed_limits(path: Curve, limit: float, step: float) -> np.ndarray:
    """Speed (N,) [m/s] allowed every `step` metres: the limit, and a comfortable pace in and before bends."""
    s = np.arange(0.0, path.length, step)
    bend = np.abs(path.curvature(s))
    allowed = np.minimum(limit, np.sqrt(MAX_LATERAL / np.maximum(bend, 1e-6)))
    for k in range(len(s) - 2, -1, -1):
        allowed[k] = min(allowed[k], np.sqrt(allowed[k + 1] ** 2 + 2 * 1.6 * step))
    return allowed


def footprint(poses: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Corners (..., 4, 2) of the car at rear-axle poses (..., 3)."""
    x = np.array(
        [
            REAR_AXLE_TO_FRONT + margin,
            -REAR_AXLE_TO_REAR - margin,
            -REAR_AXLE_TO_REAR - margin,
            REAR_AXLE_TO_FRONT + margin,
        ]
    )
    y = (WIDTH / 2 + margin) * np.array([1, 1, -1, -1])
    cos, sin = np.cos(poses[..., 2:]), np.sin(poses[..., 2:])
    return poses[..., None, :2] + np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


@njit(cache=True)
def _lay(path, step, s, begin, end, offset, poses):
    """Fill poses (T, 3) with points of a path (M, 3), sampled every `step`, at arc lengths s (T,), moved sideways."""
    for t in range(len(s)):
        place = min(max(s[t] / step, 0.0), len(path) - 1.001)
        cell = int(place)
        share = place - cell
        u = min(max((s[t] - begin) / (end - begin), 0.0), 1.0)
        aside = offset * u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
        slope = offset * 30.0 * u**2 * (1.0 - u) ** 2 / (end - begin)
        heading = path[cell, 2] * (1 - share) + path[cell + 1, 2] * share
        poses[t, 0] = path[cell, 0] * (1 - share) + path[cell + 1, 0] * share - aside * np.sin(heading)
        poses[t, 1] = path[cell, 1] * (1 - share) + path[cell + 1, 1] * share + aside * np.cos(heading)
        poses[t, 2] = heading + np.arctan(slope)


@njit(cache=True)
def _next_clear(position, order, moves, s, speeds, path, step, now, others, halves, present, margin, lookahead, poses):
    """First position from `position` on in order (row = move * N + profile) that is gentle and clear, or -1."""
    count, culprit = s.shape[0], 0
    for i in range(position, len(order)):
        move, k = order[i] // count, order[i] % count
        begin, end, offset = moves[move]
        if offset != 0.0:
            sideways = 0.0
            for t in range(s.shape[1]):
                if begin < s[k, t] < end:
                    sideways = max(sideways, speeds[k, t] ** 2)
            if 5.78 * abs(offset) / (end - begin) ** 2 * sideways > MAX_LATERAL_SWERVE:
                continue
        _lay(path, step, s[k], begin, end, offset, poses)
        # Who was in the way of the last candidate is most likely in the way of this one.
        one = slice(culprit, culprit + 1)
        moment, _ = first_conflict(
            poses[now:], speeds[k, now:], others[one], halves[one], present[one], margin, lookahead
        )
        if moment != CLEAR:
            continue
        moment, who = first_conflict(poses[now:], speeds[k, now:], others, halves, present, margin, lookahead)
        if moment == CLEAR:
            return i
        culprit = who
    return -1


class Driver:
    """Plans one drive. path: the route's centre line; the ego is at arc length `start` with `speed` at t0.

    acceleration: held during the 1.5 s of history and at t0. limit: speed limit [m/s].
    """

    def __init__(self, site: Site, path: Curve, start: float, speed: float, acceleration: float, limit: float):
        self.site = site
        self.path = path.at(np.arange(0.0, path.length + 60.0, PATH_STEP))
        candidates = [(99.0, 0.0, 0.0, 99.0, share) for share in (1.0, 0.9, 0.75, 0.6)]
        candidates += [(begin, rate, fraction * speed, end, 1.0) for begin, rate, fraction, end in BRAKING]
        self.stopping = np.array([target < 0.4 * speed or end > 4.0 for begin, _, target, end, _ in candidates])
        self.stopping &= np.array([begin < 9.0 for begin, *_ in candidates])  # who stops need not swerve
        limits = speed_limits(path, limit, PATH_STEP)
        s, v, a = _roll(np.array(candidates), start, speed, acceleration, PATH_STEP, limits, len(TIMES) - NOW, *JERK)
        hard = np.square(np.maximum(0.0, -a - 1.5)).mean(axis=1)
        self.value = (s[:, 40] - start) + 0.3 * (s[:, 50] - s[:, 40]) - 0.5 * hard
        past = np.tile(TIMES[:NOW], (len(s), 1))
        self.s = np.hstack([start + speed * past + 0.5 * acceleration * past**2, s])
        self.v = np.hstack([speed + acceleration * past, v])
        self.a = np.hstack([np.full_like(past, acceleration), a])

    def plan(
        self, agents: Sequence[Agent], swerves: Sequence[Swerve] = (), stops: Sequence[StopLine] = ()
    ) -> Plan | None:
        """The best drive that keeps clear of agents and stop lines, or None if there is none."""
        moves = np.array([(0.0, 1.0, 0.0), *((swerve.begin, swerve.end, swerve.offset) for swerve in swerves)])
        value = self.value - SWERVE_PRICE * np.abs(moves[:, 2:])
        value[:, ~self._keeps(stops)] = -np.inf
        value[1:, self.stopping] = -np.inf
        order = np.argsort(-value, axis=None, kind="stable")[: int(np.isfinite(value).sum())]
        others, halves, present = obstacles = boxes(agents)
        poses = np.empty((len(TIMES), 3))
        position, tried = -1, 0
        while tried < MOST_TRIED:
            position = _next_clear(
                position + 1,
                order,
                moves,
                self.s,
                self.v,
                self.path,
                PATH_STEP,
                NOW,
                others[:, NOW:],
                halves,
                present[:, NOW:],
                MARGIN,
                np.array(LOOKAHEAD),
                poses,
            )
            if position < 0:
                return None
            k = order[position] % len(self.s)
            plan = Plan(poses.copy(), self.v[k], self.a[k], self.s[k])
            if self._drivable(plan, obstacles):
                return plan
            tried += 1
        return None

    def _keeps(self, stops: Sequence[StopLine]) -> np.ndarray:
        """(N,) whether a speed profile keeps behind all stop lines."""
        keeps = np.ones(len(self.s), dtype=bool)
        for stop in stops:
            during = (stop.begin <= TIMES) & (stop.end >= TIMES)
            front = self.s[:, during] + REAR_AXLE_TO_FRONT
            keeps &= (front[:, 0] > stop.s) | (front[:, -1] < stop.s - 0.5)
        return keeps

    def _drivable(self, plan: Plan, obstacles: Boxes) -> bool:
        """Whether the plan keeps to the road, and is safe and comfortable as the vehicle model drives it."""
        if not self._on_road(plan.poses[NOW - 1 :], EDGE_MARGIN):
            return False
        states = driven(plan)
        poses = states[:, [X, Y, HEADING]]
        if conflict(poses, np.hypot(states[:, VELOCITY_X], states[:, VELOCITY_Y]), obstacles, DRIVEN_MARGIN) != CLEAR:
            return False
        window = len(states)
        comfort = measure_comfort(
            states[None], states[None, :, ACCELERATION_X], acceleration_window=window, jerk_window=window
        )
        return comfort.values[0] == 1.0 and self._on_road(poses, 0.0)

    def _on_road(self, poses: np.ndarray, margin: float) -> bool:
        corners = footprint(poses, margin).reshape(-1, 2)
        return bool(shapely.contains_xy(self.site.drivable, corners).all())


def driven(plan: Plan) -> np.ndarray:
    """The plan's 4 s as the scorer's tracker and vehicle model drive them: states (41, 11), poses in the site frame."""
    x, y, heading = plan.poses[NOW]
    cos, sin = np.cos(heading), np.sin(heading)
    waypoints = plan.poses[NOW + WAYPOINTS] - plan.poses[NOW]
    local = np.column_stack([cos * waypoints[:, 0] + sin * waypoints[:, 1],
                             cos * waypoints[:, 1] - sin * waypoints[:, 0], waypoints[:, 2]])  # fmt: skip
    acceleration = (
        plan.acceleration[NOW],
        plan.speed[NOW] * (plan.poses[NOW + 1, 2] - plan.poses[NOW - 1, 2]) * RATE / 2,
    )
    states = simulate(sample_plans(local[None], 0.5, 0), np.array([plan.speed[NOW], 0.0]), np.array(acceleration))[0]
    states[:, X], states[:, Y] = (
        x + cos * states[:, X] - sin * states[:, Y],
        y + sin * states[:, X] + cos * states[:, Y],
    )
    states[:, HEADING] += heading
    return states


def conflict(
    poses: np.ndarray, speeds: np.ndarray, obstacles: Boxes, margin: np.ndarray, lookahead: tuple[int, ...] = LOOKAHEAD
) -> int:
    """First step from t0 on at which poses (T, 3) conflict with `boxes`; see `collisions.first_conflict`."""
    others, halves, present = obstacles
    return first_conflict(poses, speeds, others[:, NOW:], halves, present[:, NOW:], margin, np.array(lookahead))[0]


def boxes(agents: Sequence[Agent]) -> Boxes:
    """Agents as arrays: poses (A, 66, 3), half sizes (A, 2), labelled (A, 66)."""
    if not agents:
        return np.empty((0, len(TIMES), 3)), np.empty((0, 2)), np.empty((0, len(TIMES)), dtype=bool)
    poses = np.stack([agent.poses for agent in agents])
    return poses, np.array([agent.size[:2] for agent in agents]) / 2, np.stack([agent.visible for agent in agents])


def foreseen(agents: Sequence[Agent]) -> list[Agent]:
    """The agents as somebody expects them who sees only the moment t0: those in sight, at constant velocity."""
    expected = []
    for agent in agents:
        if agent.visible[NOW]:
            poses = agent.poses.copy()
            future = np.arange(len(TIMES) - NOW)[:, None] / RATE
            before = (agent.poses[NOW, :2] - agent.poses[NOW - 2, :2]) * RATE / 2
            poses[NOW:, :2] = poses[NOW, :2] + future * before
            poses[NOW:, 2] = poses[NOW, 2]
            expected.append(Agent(agent.kind, agent.size, agent.colour, poses))
    return expected
