"""Reactive vehicles in motion: the Intelligent Driver Model along their paths, compiled.

navsim `NavsimIDMAgentManager`, nuplan-devkit `IDMAgentManager`, `IDMAgent` and `IDMPolicy`.

All of it runs in UTM, at 10 Hz. What the official code does and one would not expect:

- At step t vehicles react to the ego of step t - 1, whose box is centred on its *rear axle*.
- Vehicles move one after the other: the later see the earlier where they are at the end of the step.
- A vehicle occupies its strip from half a length behind it to half a length and 1.5 s of its speed ahead, and its box;
  before its first move, its box alone.
- Whatever meets the rest of its path, from its centre to the end, is in its way, also what lies behind or goes along
  only at a side. It keeps its distance to the nearest of these, measured between occupied areas. Several overlap it
  often; then the search tree chooses (`search_tree.py`), of up to ten the one whose bounds are centred southernmost.
- A gap below 1 m counts as 1 m. Without a leader the end of the path leads, standing, less half a length.
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

RADIUS = 100.0  # [m] around the ego
MIN_GAP = 1.0  # [m]
HEADWAY = 1.5  # [s]
MAX_ACCELERATION = 1.0  # [m/s^2]
MAX_DECELERATION = 2.0  # [m/s^2]
EXPONENT = 4
BLOCK = 12  # segments


class Vehicles(NamedTuple):
    """K vehicles on their paths; pose to target_speed as in `scene.IdmPaths`.

    half_size: (K, 2) half length and width [m].
    start: (K + 1,) offsets of the vehicles in what follows, which every vehicle has of its own.
    path: (W, 4) as in IdmPaths. sides: (W, 2, 2) left and right of its points. segments: (W, 4, 2) quads up to the next
    point, and bounds: (W, 4) of these; the last of a vehicle is none. blocks: (W, 4) bounds of every BLOCK segments
    together, block by block from the start of a vehicle on.
    """

    pose: np.ndarray
    progress: np.ndarray
    speed: np.ndarray
    target_speed: np.ndarray
    half_size: np.ndarray
    start: np.ndarray
    path: np.ndarray
    sides: np.ndarray
    segments: np.ndarray
    bounds: np.ndarray
    blocks: np.ndarray


@kernel
def _hull(bounds, out):
    out[0], out[1] = bounds[:, 0].min(), bounds[:, 1].min()
    out[2], out[3] = bounds[:, 2].max(), bounds[:, 3].max()


@kernel
def _lay(path, half_width, sides, segments, bounds, blocks):
    """Fill what Vehicles holds of one vehicle's path (n, 4)."""
    sides[:] = path_sides(path, half_width)
    for s in range(len(path) - 1):
        fill_quad(segments[s], sides[s], sides[s + 1])
        bounds_of(segments[s], bounds[s])
    for s in range(0, len(path) - 1, BLOCK):
        _hull(bounds[s : min(s + BLOCK, len(path) - 1)], blocks[s // BLOCK])


def vehicles_on(idm_paths: IdmPaths, half_size: np.ndarray) -> Vehicles:
    """Prepare the vehicles of `idm_paths`, of half_size (K, 2) half length and width [m]."""
    paths = [idm_paths.path[idm_paths.path_start[lane] : idm_paths.path_start[lane + 1]] for lane in idm_paths.lane]
    start = np.cumsum([0, *map(len, paths)])
    path = np.concatenate([np.empty((0, 4)), *paths])
    laid = [np.zeros((len(path), *shape)) for shape in ((2, 2), (4, 2), (4,), (4,))]
    for low, high, width in zip(start[:-1], start[1:], half_size[:, 1], strict=True):
        _lay(path[low:high], width, *(array[low:high] for array in laid))
    state = (
        np.array(column) for column in (idm_paths.pose, idm_paths.progress, idm_paths.speed, idm_paths.target_speed)
    )
    return Vehicles(*state, half_size, start, path, *laid)


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
    wanted = (
        MIN_GAP + speed * HEADWAY + speed * (speed - leader_speed) / (2 * np.sqrt(MAX_ACCELERATION * MAX_DECELERATION))
    )
    free = MAX_ACCELERATION * (1 - (speed / target_speed) ** EXPONENT - (wanted / max(gap, MIN_GAP)) ** 2)
    return min(max(free, -MAX_DECELERATION), MAX_ACCELERATION)


@kernel
def _occupy(path, sides, pose, progress, speed, half_size, quads, bounds):
    """Fill quads and bounds (max_quads, ...) with the area that a vehicle occupies; returns the number of quads."""
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
def _choose(in_way, gaps, hulls, k):
    """The nearest of what is in the way of vehicle k; of several equally near, what the official tree finds first."""
    nearest = gaps.argmin()
    if (gaps == gaps[nearest]).sum() == 1:
        return in_way[nearest]
    return in_way[first_nearest(hulls[in_way], gaps, hulls[k])]


@kernel
def drive(vehicles, ego, poses, active):
    """Fill poses (41, K, 3), UTM box centres, and active (41, K), whether a vehicle is still there; step 0 is left out.

    ego: (41, 4) UTM rear axle x, y, heading and speed.
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
    in_way, gaps = np.empty(count + 1, dtype=np.int64), np.empty(count + 1)

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
            met, gap = 0, np.inf
            for j in range(count + 1):
                if j == k or (j < count and not there[j]):
                    continue
                other, other_bounds = quads[j, : num_quads[j]], bounds[j, : num_quads[j]]
                if not (
                    _sets_meet(part, part_bounds, other, other_bounds, hulls[j])
                    or _path_meets(vehicles, k, s + 1, other, other_bounds, hulls[j])
                ):
                    continue
                in_way[met], gaps[met] = j, np.sqrt(squared_gap(hulls[k], hulls[j]))
                if gaps[met] <= gap:  # otherwise it is farther than another one, no matter how far
                    gaps[met] = distance_between(quads[k, :n], bounds[k, :n], other, other_bounds, hulls[j])
                    gap = min(gap, gaps[met])
                met += 1
            leader = _choose(in_way[:met], gaps[:met], hulls, k) if met else -1
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
