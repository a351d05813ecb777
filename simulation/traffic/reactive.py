"""The tracks around each simulated plan in reactive traffic (navsim `AbstractTrafficAgentsPolicy`).

Step 0 is what was detected at t0, also what overlaps the ego, which log replay would drop. From step 1 on:

- Reactive vehicles move as in `car_following.simulate_vehicles`.
- Parked vehicles are there at the steps at which they meet neither a reactive vehicle nor a parked one before them.
- Other vehicles, and those first seen later, are gone.
- Everything else is as recorded.

A vehicle counts as stopped by its speed at t0, whatever it does later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mtdrive.simulation.dynamics.state import HEADING, VELOCITY_X, VELOCITY_Y, X, Y
from mtdrive.simulation.geometry.frames import poses_to_global
from mtdrive.simulation.metrics.geometry import boxes_overlap
from mtdrive.simulation.metrics.surroundings import Tracks, build_tracks
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import NUM_STEPS, ObjectType, Scene
from mtdrive.simulation.traffic.car_following import Vehicles, simulate_vehicles, vehicles_on


@dataclass(frozen=True)
class ReactiveTraffic:
    """The reactive traffic of a scene, ready to simulate around plans."""

    vehicles: Vehicles
    """The K reactive vehicles."""
    tracks: np.ndarray
    """(K,) int64 indices of these vehicles in the tracks of the observation."""
    parked: np.ndarray
    """int64 indices of the vehicles that stay where they are, likewise."""
    base: Tracks
    """All tracks in the local frame, without the vehicles after step 0."""
    origin: np.ndarray
    """(3,) UTM x [m], y [m], heading [rad] of the local frame."""


def reactive_traffic(scene: Scene, metric: str) -> ReactiveTraffic:
    """Prepare the reactive traffic of a scene, for its observation for a score version."""
    observation, idm_paths = scene.observations[metric], scene.idm_paths
    present = observation.present.copy()
    present[0, len(scene.current_tokens) :] = False
    present[1:, observation.kind == ObjectType.VEHICLE] = False
    everything = replace(observation, present=present, ignored=np.zeros_like(observation.ignored))
    return ReactiveTraffic(
        vehicles=vehicles_on(idm_paths, observation.size[idm_paths.track] / 2.0),
        tracks=np.array(idm_paths.track),
        parked=np.array(idm_paths.parked),
        base=build_tracks(everything),
        origin=np.array(scene.origin),
    )


def simulate_tracks(traffic: ReactiveTraffic, states: np.ndarray) -> Iterator[Tracks]:
    """Simulate the traffic that reacts to each of N plans, one after the other.

    states: (N, 41, 11) simulated plans, columns as in `dynamics.state`.

    Yields:
        The tracks around each plan, in the local frame.
    """
    rear_axle = poses_to_global(states[..., [X, Y, HEADING]], traffic.origin)
    speed = np.hypot(states[..., VELOCITY_X], states[..., VELOCITY_Y])
    for ego in np.concatenate([rear_axle, speed[..., None]], axis=-1):
        poses = np.zeros((NUM_STEPS, len(traffic.tracks), 3))
        active = np.zeros((NUM_STEPS, len(traffic.tracks)), dtype=np.bool_)
        simulate_vehicles(traffic.vehicles, ego, poses, active)
        base = traffic.base
        tracks = base._replace(poses=base.poses.copy(), present=base.present.copy(), bounds=base.bounds.copy())
        _place_reactive(tracks, traffic.tracks, poses, active, traffic.origin)
        _place_parked(tracks, traffic.tracks, traffic.parked)
        yield tracks


@kernel
def _place_reactive(tracks, vehicles, poses, active, origin):
    """Enter the poses (41, K, 3) of the vehicles on their paths, UTM, from step 1 on."""
    cos, sin = np.cos(origin[2]), np.sin(origin[2])
    for k in range(len(vehicles)):
        a = vehicles[k]
        reach = np.hypot(tracks.half_sizes[a, 0], tracks.half_sizes[a, 1])
        for t in range(1, NUM_STEPS):
            if not active[t, k]:
                break
            dx, dy = poses[t, k, 0] - origin[0], poses[t, k, 1] - origin[1]
            x, y, heading = dx * cos + dy * sin, dy * cos - dx * sin, poses[t, k, 2] - origin[2]
            tracks.present[a, t] = True
            tracks.poses[a, t, 0], tracks.poses[a, t, 1] = x, y
            tracks.poses[a, t, 2], tracks.poses[a, t, 3] = np.cos(heading), np.sin(heading)
            bounds = tracks.bounds[a]
            bounds[0], bounds[1] = min(bounds[0], x - reach), min(bounds[1], y - reach)
            bounds[2], bounds[3] = max(bounds[2], x + reach), max(bounds[3], y + reach)


@kernel
def _meet(tracks, a, b, t):
    """Whether the boxes of tracks a and b overlap at step t."""
    p, q = tracks.poses[a, t], tracks.poses[b, t]
    reach = tracks.half_sizes[a].sum() + tracks.half_sizes[b].sum()
    if abs(p[0] - q[0]) > reach or abs(p[1] - q[1]) > reach:
        return False
    return boxes_overlap(
        p[0], p[1], p[2], p[3], tracks.half_sizes[a, 0], tracks.half_sizes[a, 1],
        q[0], q[1], q[2], q[3], tracks.half_sizes[b, 0], tracks.half_sizes[b, 1],
    )  # fmt: skip


@kernel
def _place_parked(tracks, vehicles, parked):
    """Keep the parked vehicles where they are at step 0, at the steps at which there is room."""
    for m in range(len(parked)):
        a = parked[m]
        for t in range(1, NUM_STEPS):
            tracks.poses[a, t] = tracks.poses[a, 0]
            free = True
            for b in vehicles:
                free = free and not (tracks.present[b, t] and _meet(tracks, a, b, t))
            for b in parked[:m]:
                free = free and not (tracks.present[b, t] and _meet(tracks, a, b, t))
            tracks.present[a, t] = free
