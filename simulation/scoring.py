"""PDM scores of trajectories in a scene, as navsim computes them, for a whole batch at once.

Each trajectory is compared with PDM-Closed alone, never with its neighbours in the batch: a score depends on nothing
but the scene and the trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mtdrive.simulation.dynamics import sample_plans, simulate
from mtdrive.simulation.memo import remember
from mtdrive.simulation.metrics.motion import build_motion
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.metrics.surroundings import Surroundings, prepare_surroundings
from mtdrive.simulation.scene import DrivableMap, Observation, Scene
from mtdrive.simulation.trajectory import validate_batch

OK = "ok"
INVALID = "invalid_trajectory"


@dataclass(frozen=True)
class Events:
    """What happened along each of N simulated plans. Times [s] from t0, inf if it did not happen; indices -1 then.

    Rows with an invalid trajectory hold NaN, -1 and False.

    states: (N, 41, 11), columns as in `dynamics.state`.
    collision_time, collision_track, collision_kind: first at-fault collision; the track's index in the observation;
    CollisionKind.
    ttc_time, ttc_track: first step from which a collision is within bound, and with which track.
    off_road_time, off_road_corner: first corner off the road, as an index into `metrics.motion.CORNERS`.
    wrong_way_time: when 2 m against traffic within a second are reached; wrong_way_distance: the most within one [m].
    red_light_time: first step on a connector whose light is red (epdms_v2).
    comfort_ok, comfort_peak: (N, 6) per `metrics.comfort.QUANTITIES`: within bounds; the value nearest to, or farthest
    over, its bound.
    progress: way along the centerline [m]; reference_progress: what PDM-Closed earns, its way times its factors [m].
    """

    states: np.ndarray
    collision_time: np.ndarray
    collision_track: np.ndarray
    collision_kind: np.ndarray
    ttc_time: np.ndarray
    ttc_track: np.ndarray
    off_road_time: np.ndarray
    off_road_corner: np.ndarray
    wrong_way_time: np.ndarray
    wrong_way_distance: np.ndarray
    red_light_time: np.ndarray
    comfort_ok: np.ndarray
    comfort_peak: np.ndarray
    progress: np.ndarray
    reference_progress: np.ndarray


@dataclass(frozen=True)
class Scores:
    """Scores of N trajectories.

    metric: score version. status: (N,) str, "ok" or "invalid_trajectory" (then all numbers are NaN).
    columns: navsim's column name -> (N,) sub-metric, in navsim's order. score: (N,). product: (N,) of the factors.
    """

    metric: str
    status: np.ndarray
    columns: dict[str, np.ndarray]
    product: np.ndarray
    score: np.ndarray
    events: Events


@dataclass(frozen=True)
class PreparedScene:
    """What scoring needs of a scene: surroundings, start of the simulation, and what PDM-Closed earns [m]."""

    surroundings: Surroundings
    timestamp: int
    velocity: np.ndarray
    acceleration: np.ndarray
    reference_progress: float


@remember
def prepare(scene: Scene, metric: str) -> PreparedScene:
    """Prepare a scene for a score version (once per scene and version).

    Raises:
        MTDriveError: there is no such version.
    """
    metrics_of(metric)
    surroundings = prepare_surroundings(scene.observations[metric], scene.drivable_map, scene.centerline)
    simulated = np.array(scene.references[metric].simulated)[None]
    reference = _score(simulated, surroundings, metric, reference_progress=None)
    return PreparedScene(
        surroundings=surroundings,
        timestamp=int(scene.timestamp),
        velocity=np.array(scene.velocity),
        acceleration=np.array(scene.acceleration),
        reference_progress=float(reference.events.progress[0] * reference.product[0]),
    )


def score(scene: Scene, poses: np.ndarray, interval: float = 0.5, metric: str = "pdms_v1") -> Scores:
    """Simulate and score trajectories.

    Args:
        scene: where they are driven; its observation for `metric` is the traffic.
        poses: (N, T, 3) rear-axle x, y [m], heading [rad] in the local frame, T = 8 at 0.5 s or 40 at 0.1 s.
        interval: [s] between poses.
        metric: score version.

    Raises:
        MTDriveError: wrong shape or interval, or no such version. Rows that are not finite, or that drive the
            simulation out of the numbers, get the status "invalid_trajectory" instead.
    """
    poses, valid = validate_batch(poses, interval)
    prepared = prepare(scene, metric)
    plans = sample_plans(poses[valid], interval, prepared.timestamp)
    states = simulate(plans, prepared.velocity, prepared.acceleration)
    finite = np.isfinite(states).all(axis=(1, 2))
    valid[valid] = finite
    scored = _score(states[finite], prepared.surroundings, metric, prepared.reference_progress)
    return scored if valid.all() else _spread(scored, valid)


def score_states(
    states: np.ndarray,
    observation: Observation,
    drivable_map: DrivableMap,
    centerline: np.ndarray,
    metric: str,
    reference_progress: float | None = None,
) -> Scores:
    """Score simulated states (N, 41, 11) in traffic that need not be a scene's.

    Args:
        states: finite, as `dynamics.simulate` returns them.
        observation, drivable_map, centerline: as in Scene.
        metric: score version.
        reference_progress: what the reference earns [m]; None normalises progress over the batch, as PDM-Closed
            does with its proposals.
    """
    surroundings = prepare_surroundings(observation, drivable_map, centerline)
    return _score(np.ascontiguousarray(states), surroundings, metric, reference_progress)


def _score(states: np.ndarray, surroundings: Surroundings, metric: str, reference_progress: float | None) -> Scores:
    count = len(states)
    motion = build_motion(states, surroundings.polygon_index)
    metrics = metrics_of(metric)
    events = {"red_light_time": np.full(count, np.inf)}
    columns = {}
    for sub_metric in metrics:
        columns[sub_metric.column], observed = sub_metric.measure(motion, surroundings)
        events |= observed

    product = np.ones(count)
    for sub_metric in metrics:
        if sub_metric.weight is None:
            product *= columns[sub_metric.column]

    earned = events["progress"] * product
    if reference_progress is None:
        reference_progress = earned.max(initial=0.0)
    best = np.maximum(earned, reference_progress)
    weighted, weights = np.zeros(count), 0.0
    for sub_metric in metrics:
        if sub_metric.normalise is not None:
            columns[sub_metric.column] = sub_metric.normalise(columns[sub_metric.column], product, best)
        if sub_metric.weight is not None:
            weighted += sub_metric.weight * columns[sub_metric.column]
            weights += sub_metric.weight
    return Scores(
        metric=metric,
        status=np.full(count, OK, dtype=f"<U{len(INVALID)}"),
        columns=columns,
        product=product,
        score=product * (weighted / weights),
        events=Events(states=states, reference_progress=np.full(count, reference_progress), **events),
    )


def _spread(scores: Scores, valid: np.ndarray) -> Scores:
    """Put the scores of the valid rows into a batch whose other rows are invalid."""

    def spread(values: np.ndarray) -> np.ndarray:
        empty = {"f": np.nan, "i": -1, "b": False, "U": INVALID}[values.dtype.kind]
        full = np.full((len(valid), *values.shape[1:]), empty, dtype=values.dtype)
        full[valid] = values
        return full

    return Scores(
        metric=scores.metric,
        status=spread(scores.status),
        columns={name: spread(values) for name, values in scores.columns.items()},
        product=spread(scores.product),
        score=spread(scores.score),
        events=Events(**{field.name: spread(getattr(scores.events, field.name)) for field in fields(Events)}),
    )
