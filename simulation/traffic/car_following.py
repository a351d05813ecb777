"""Reactive vehicles: the Intelligent Driver Model along their paths, compiled.

navsim `NavsimIDMAgentManager`, nuplan-devkit `IDMAgentManager`, `IDMAgent` and `IDMPolicy`.

Everything runs in UTM, at 10 Hz. The official code has some surprises:

- At step t vehicles react to the ego of step t - 1, whose box is centred on its *rear axle*.
- Vehicles move one after the other: a later one sees an earlier one where that is at the end of the step.
- A vehicle occupies its strip from half a length behind it to half a length and 1.5 s of its speed ahead, and its box;
  before its first move, its box alone.
- Whatever meets the rest of its path, from its centre to the end, blocks it, also what is behind it or drives beside
  it. The nearest of these leads, by the distance between occupied areas. Often several overlap the vehicle; then the
  search tree decides (`search_tree.py`): of up to ten, the one whose bounds are centred southernmost.
- A gap below 1 m counts as 1 m. Without a leader the end of the path leads, at speed 0, half a length short.
- The leader's speed counts by the cosine of the angle between the headings: oncoming traffic is approached at the sum
  of the speeds.
- A vehicle more than 100 m from the ego's rear axle is gone for good.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtdrive.simulation import vehicle
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import NUM_STEPS, STEP, IdmPaths
from mtdrive.simulation.traffic.search_tree import first_nearest
from mtdrive.simulation.traffic.strips import (
    bounds_meet,
    bounds_of,
    distance_between,
    fill_box,
    fill_first,
    fill_quad,
    fill_strip,
    path_sides,
    quads_meet,
    squared_gap,
)

RADIUS = 100.0  # [m] around the ego, beyond which a vehicle is gone
MIN_GAP = 1.0  # [m]
HEADWAY = 1.5  # [s]
MAX_ACCELERATION = 1.0  # [m/s^2]
MAX_DECELERATION = 2.0  # [m/s^2]
EXPONENT = 4
BLOCK = 12  # segments of a path that share bounds


class Vehicles(NamedTuple):
    """K vehicles and their paths (W points in all, a copy of the path for each vehicle), in UTM."""

    pose: np.ndarray
    """(K, 3) x [m], y [m], heading [rad] of the box centre at t0."""
    progress: np.ndarray
    """(K,) distance along the path at t0 [m]."""
    speed: np.ndarray
    """(K,) speed at t0 [m/s]."""
    target_speed: np.ndarray
    """(K,) desired speed [m/s]."""
    half_size: np.ndarray
    """(K, 2) half length and half width [m]."""
    start: np.ndarray
    """(K + 1,) int64 offsets of the vehicles into the rows below."""
    path: np.ndarray
    """(W, 4) distance along the path [m], x [m], y [m], unwrapped heading [rad]."""
    sides: np.ndarray
    """(W, 2, 2) left and right points beside the points of the path [m]."""
    segments: np.ndarray
    """(W, 4, 2) quads from each point to the next [m]; the last row of a vehicle is unused."""
    bounds: np.ndarray
    """(W, 4) min x, min y, max x, max y of the segments [m]; the last row of a vehicle is unused."""
    blocks: np.ndarray
    """(W, 4) bounds of every BLOCK segments together [m], in the first rows of a vehicle."""


@kernel
def _hull(bounds, out):
    """Fill out (4,) with the bounds of bounds (n, 4)."""
    out[0], out[1] = bounds[:, 0].min(), bounds[:, 1].min()
    out[2], out[3] = bounds[:, 2].max(), bounds[:, 3].max()


@kernel
def _prepare_path(path, half_width, sides, segments, bounds, blocks):
    """Fill what `Vehicles` holds about the path (n, 4) of one vehicle."""
    sides[:] = path_sides(path, half_width)
    for s in range(len(path) - 1):
        fill_quad(segments[s], sides[s], sides[s + 1])
        bounds_of(segments[s], bounds[s])
    for s in range(0, len(path) - 1, BLOCK):
        _hull(bounds[s : min(s + BLOCK, len(path) - 1)], blocks[s // BLOCK])


def vehicles_on(idm_paths: IdmPaths, half_size: np.ndarray) -> Vehicles:
    """The K vehicles of `idm_paths`, ready to simulate.

    half_size: (K, 2) half length and half width [m].
    """
    paths = [idm_paths.path[idm_paths.path_start[lane] : idm_paths.path_start[lane + 1]] for lane in idm_paths.lane]
    start = np.cumsum([0, *map(len, paths)])
    path = np.concatenate([np.empty((0, 4)), *paths])
    sides, segments, bounds, blocks = (np.zeros((len(path), *shape)) for shape in ((2, 2), (4, 2), (4,), (4,)))
    for low, high, width in zip(start[:-1], start[1:], half_size[:, 1], strict=True):
        rows = slice(low, high)
        _prepare_path(path[rows], width, sides[rows], segments[rows], bounds[rows], blocks[rows])
    return Vehicles(
        pose=np.array(idm_paths.pose),
        progress=np.array(idm_paths.progress),
        speed=np.array(idm_paths.speed),
        target_speed=np.array(idm_paths.target_speed),
        half_size=half_size,
        start=start,
        path=path,
        sides=sides,
        segments=segments,
        bounds=bounds,
        blocks=blocks,
    )


@kernel
def _pose_at(path, progress, pose):
    """Fill pose (3,) at a distance along a path, clipped to it."""
    progress = min(max(progress, path[0, 0]), path[-1, 0])
    high = min(max(np.searchsorted(path[:, 0], progress), 1), len(path) - 1)
    low = high - 1
    share = (progress - path[low, 0]) / (path[high, 0] - path[low, 0])
    for k in range(3):
        pose[k] = path[low, 1 + k] + share * (path[high, 1 + k] - path[low, 1 + k])


@kernel
def _acceleration(speed, target_speed, gap, leader_speed):
    """[m/s^2] by the Intelligent Driver Model, for a gap [m] to the leader."""
    wanted = (
        MIN_GAP + speed * HEADWAY + speed * (speed - leader_speed) / (2 * np.sqrt(MAX_ACCELERATION * MAX_DECELERATION))
    )
    free = MAX_ACCELERATION * (1 - (speed / target_speed) ** EXPONENT - (wanted / max(gap, MIN_GAP)) ** 2)
    return min(max(free, -MAX_DECELERATION), MAX_ACCELERATION)


@kernel
def _occupy(path, sides, pose, progress, speed, half_size, quads, bounds):
    """Fill quads (>= n, 4, 2) and bounds (>= n, 4) with the area that a vehicle occupies; returns n."""
    low, high = path[0, 0], path[-1, 0]
    start = min(max(progress - half_size[0], low), high)
    end = min(max(progress + half_size[0] + speed * HEADWAY, low), high)
    count = fill_strip(path, sides, half_size[1], start, end, quads) + 1
    fill_box(quads[count - 1], pose[0], pose[1], pose[2], half_size[0], half_size[1])
    for q in range(count):
        bounds_of(quads[q], bounds[q])
    return count


@kernel
def _sets_meet(a, a_bounds, b, b_bounds, b_hull):
    """Whether two sets of quads (n, 4, 2) with bounds (n, 4) share a point; b_hull: bounds of all of b."""
    for i in range(len(a)):
        if not bounds_meet(a_bounds[i], b_hull):
            continue
        for j in range(len(b)):
            if bounds_meet(a_bounds[i], b_bounds[j]) and quads_meet(a[i], b[j]):
                return True
    return False


@kernel
def _path_meets(vehicles, k, first, other, other_bounds, hull):
    """Whether the path of vehicle k, from a segment on, meets a set of quads; hull: bounds of all of them."""
    low, count = vehicles.start[k], vehicles.start[k + 1] - vehicles.start[k] - 1
    for block in range(first // BLOCK, (count + BLOCK - 1) // BLOCK):
        if bounds_meet(vehicles.blocks[low + block], hull):
            begin, end = low + max(first, block * BLOCK), low + min(count, (block + 1) * BLOCK)
            if _sets_meet(vehicles.segments[begin:end], vehicles.bounds[begin:end], other, other_bounds, hull):
                return True
    return False


@kernel
def _find_leader(blocking, gaps, hulls, k):
    """The nearest of what blocks vehicle k; of several equally near ones, the first that the official tree finds."""
    nearest = gaps.argmin()
    if (gaps == gaps[nearest]).sum() == 1:
        return blocking[nearest]
    return blocking[first_nearest(hulls[blocking], gaps, hulls[k])]


@kernel
def simulate_vehicles(vehicles: Vehicles, ego: np.ndarray, poses: np.ndarray, active: np.ndarray) -> None:
    """Simulate K vehicles around one driven plan, from step 1 on; row 0 of the outputs is left as it is.

    Args:
        vehicles: the `Vehicles`.
        ego: (41, 4) UTM x [m], y [m], heading [rad] of the rear axle, and speed [m/s].
        poses: output (41, K, 3), UTM x [m], y [m], heading [rad] of the box centres.
        active: output (41, K) bool, whether the vehicle is still there.
    """
    count = len(vehicles.speed)
    progress, speed = vehicles.progress.copy(), vehicles.speed.copy()
    here, there = np.empty((count, 3)), np.ones(count, dtype=np.bool_)
    longest = 1 + (vehicles.start[1:] - vehicles.start[:-1]).max() if count else 1
    # what is occupied: by each vehicle, then by the ego
    quads, bounds = np.empty((count + 1, longest, 4, 2)), np.empty((count + 1, longest, 4))
    num_quads, hulls = np.ones(count + 1, dtype=np.int64), np.empty((count + 1, 4))
    for k in range(count):
        pose, half_size = vehicles.pose[k], vehicles.half_size[k]
        fill_box(quads[k, 0], pose[0], pose[1], pose[2], half_size[0], half_size[1])
        bounds_of(quads[k, 0], bounds[k, 0])
        hulls[k] = bounds[k, 0]
        _pose_at(vehicles.path[vehicles.start[k] : vehicles.start[k + 1]], progress[k], here[k])
    part, part_bounds = np.empty((1, 4, 2)), np.empty((1, 4))
    blocking, gaps = np.empty(count + 1, dtype=np.int64), np.empty(count + 1)

    for t in range(1, NUM_STEPS):
        ego_x, ego_y, ego_heading, ego_speed = ego[t - 1]
        fill_box(quads[count, 0], ego_x, ego_y, ego_heading, vehicle.LENGTH / 2, vehicle.WIDTH / 2)
        bounds_of(quads[count, 0], bounds[count, 0])
        hulls[count] = bounds[count, 0]
        for k in range(count):
            there[k] &= np.hypot(here[k, 0] - ego_x, here[k, 1] - ego_y) <= RADIUS
        for k in range(count):
            if not there[k]:
                continue
            low, high, half_size = vehicles.start[k], vehicles.start[k + 1], vehicles.half_size[k]
            own, own_sides, last = vehicles.path[low:high], vehicles.sides[low:high], high - low - 1
            # the rest of the path: part of a segment, then whole ones
            if progress[k] >= own[last, 0]:
                s = last - 1
                part[0] = vehicles.segments[low + s]
            else:
                s = fill_first(own, own_sides, half_size[1], max(progress[k], own[0, 0]), part[0])
            bounds_of(part[0], part_bounds[0])
            n = num_quads[k]
            num_blocking, gap = 0, np.inf
            for j in range(count + 1):
                if j == k or (j < count and not there[j]):
                    continue
                other, other_bounds = quads[j, : num_quads[j]], bounds[j, : num_quads[j]]
                if not (
                    _sets_meet(part, part_bounds, other, other_bounds, hulls[j])
                    or _path_meets(vehicles, k, s + 1, other, other_bounds, hulls[j])
                ):
                    continue
                m = num_blocking
                blocking[m], gaps[m] = j, np.sqrt(squared_gap(hulls[k], hulls[j]))
                if gaps[m] <= gap:  # otherwise it is farther than another one, no matter how far
                    gaps[m] = distance_between(quads[k, :n], bounds[k, :n], other, other_bounds, hulls[j])
                    gap = min(gap, gaps[m])
                num_blocking += 1
            leader = _find_leader(blocking[:num_blocking], gaps[:num_blocking], hulls, k) if num_blocking else -1
            leader_speed = 0.0
            if leader < 0:
                gap = own[last, 0] - progress[k] - half_size[0]
            elif leader == count:
                leader_speed = ego_speed * np.cos(ego_heading - here[k, 2])
            else:
                leader_speed = speed[leader] * np.cos(here[leader, 2] - here[k, 2])

            acceleration = _acceleration(speed[k], vehicles.target_speed[k], gap, leader_speed)
            progress[k] += STEP * speed[k]
            speed[k] = max(speed[k] + STEP * acceleration, 0.0)
            _pose_at(own, progress[k], here[k])
            n = _occupy(own, own_sides, here[k], progress[k], speed[k], half_size, quads[k], bounds[k])
            num_quads[k] = n
            _hull(bounds[k, :n], hulls[k])
        poses[t] = here
        active[t] = there
