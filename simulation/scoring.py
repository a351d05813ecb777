"""PDM scores of a batch of trajectories in one scene, as navsim computes them.

Each trajectory is compared with PDM-Closed alone, never with its neighbours in the batch: a score depends on nothing
but the scene and the trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mtdrive.simulation.dynamics import sample_plans, simulate
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.history_comfort import recorded_past
from mtdrive.simulation.metrics.motion import build_motion
from mtdrive.simulation.metrics.registry import VERSIONS, final_score, metrics_of, product_of_factors, score_version
from mtdrive.simulation.metrics.surroundings import Surroundings, prepare_surroundings
from mtdrive.simulation.runtime.identity_cache import cache_by_identity
from mtdrive.simulation.scene import DrivableMap, Observation, Scene
from mtdrive.simulation.traffic.reactive import ReactiveTraffic, reactive_traffic, simulate_tracks
from mtdrive.simulation.trajectory import validate_batch

LOG_REPLAY = "log_replay"  # all road users move as recorded
IDM = "idm"  # vehicles react to the ego (Intelligent Driver Model)
TRAFFIC = (LOG_REPLAY, IDM)
OK = "ok"
INVALID = "invalid_trajectory"
HUMAN_POSES = 8  # poses of the recorded future that the human penalty filter scores
HUMAN_INTERVAL = 0.5  # [s]


@dataclass(frozen=True)
class Scores:
    """Scores of N trajectories. Rows with an invalid trajectory hold NaN, -1 and False."""

    metric: str
    """Score version, such as "pdms_v1"."""
    status: np.ndarray
    """(N,) str, "ok" or "invalid_trajectory"."""
    columns: dict[str, np.ndarray]
    """Sub-metrics (N,) in [0, 1] by navsim's column name, in navsim's order."""
    product: np.ndarray
    """(N,) product of the sub-metrics that multiply the score."""
    score: np.ndarray
    """(N,) the final score in [0, 1]."""
    events: dict[str, np.ndarray]
    """What happened along each simulated trajectory, (N, ...) by name: `states` (N, 41, 11), the driven trajectory with
    columns as in `dynamics.state`; `reference_progress` (N,) [m], the distance that PDM-Closed travels times its
    factors; and what the version's metrics observe (`Metric.events`; times in seconds from t0)."""


@dataclass(frozen=True)
class PreparedScene:
    """What scoring needs of a scene for one score version and one kind of traffic."""

    surroundings: Surroundings
    """Traffic of the log, map, centerline and recorded past."""
    timestamp: int
    """t0 [us since 1970]."""
    velocity: np.ndarray
    """(2,) of the ego at t0 [m/s]."""
    acceleration: np.ndarray
    """(2,) of the ego at t0 [m/s^2]."""
    reference: np.ndarray
    """(1, 41, 11) PDM-Closed's simulated plan."""
    reference_progress: float
    """PDM-Closed's distance along the centerline times its factors, in log replay [m]."""
    human_failures: frozenset[str]
    """Columns that the recorded human fails; empty where the version has no human penalty filter."""
    traffic: ReactiveTraffic | None
    """The traffic that reacts to the ego; None for log replay."""


@cache_by_identity
def prepare(scene: Scene, metric: str, traffic: str) -> PreparedScene:
    """Prepare a scene for a score version; done once per scene, version and traffic.

    Raises:
        MTDriveError: there is no such version or traffic, or the scene cannot be scored by it.
    """
    check_traffic(metric, traffic)
    version = score_version(metric)
    if metric not in scene.observations:
        raise MTDriveError(
            f"Scene {scene.token} has no score {metric}, which needs {version.traffic.num_future} frames after t0; "
            f"its window is shorter, as in navhard and in synthetic scenes. Use {', '.join(scene.observations)}."
        )
    past = recorded_past(scene) if version.uses_past else None
    surroundings = prepare_surroundings(scene.observations[metric], scene.drivable_map, scene.centerline, past)
    timestamp, velocity, acceleration = int(scene.timestamp), np.array(scene.velocity), np.array(scene.acceleration)
    reactive = reactive_traffic(scene, metric) if traffic == IDM else None

    reference = np.array(scene.references[metric].simulated)[None]
    failures: frozenset[str] = frozenset()
    if version.human_filter and len(scene.human_poses):
        plan = sample_plans(np.array(scene.human_poses[None, :HUMAN_POSES]), HUMAN_INTERVAL, timestamp)
        states = simulate(plan, velocity, acceleration)
        around_human = replace(surroundings, past=None)
        if reactive is not None:
            around_human = replace(around_human, tracks=next(simulate_tracks(reactive, states)))
        human = _score(states, around_human, metric)
        failures = frozenset(name for name, values in human.columns.items() if values[0] == 0.0)
    return PreparedScene(
        surroundings=surroundings,
        timestamp=timestamp,
        velocity=velocity,
        acceleration=acceleration,
        reference=reference,
        reference_progress=_reference_progress(reference, surroundings, metric),
        human_failures=failures,
        traffic=reactive,
    )


def check_traffic(metric: str, traffic: str) -> None:
    """Check that a kind of traffic exists and that a score version supports it.

    Raises:
        MTDriveError: it does not, or there is no such version.
    """
    if traffic not in TRAFFIC:
        raise MTDriveError(f"There is no traffic {traffic!r}; choose {LOG_REPLAY} or {IDM}.")
    if traffic == IDM and not score_version(metric).reactive:
        reactive = " or ".join(name for name, version in VERSIONS.items() if version.reactive)
        raise MTDriveError(f"{metric} has no reactive traffic; choose traffic={LOG_REPLAY}, or metric={reactive}.")


def score(
    scene: Scene,
    poses: np.ndarray,
    interval: float = 0.5,
    metric: str = "pdms_v1",
    human_penalty_filter: bool | None = None,
    traffic: str = LOG_REPLAY,
) -> Scores:
    """Simulate and score trajectories of one scene.

    A score depends on nothing but the scene and the trajectory, so a batch gives what its rows give one by one::

        store = SceneStore("outputs/scene_cache", "navtest")  # compiled by `mtdrive cache`
        scene = store.load(store.tokens[0])
        scores = score(scene, poses)  # poses (N, 8, 3) at 0.5 s
        scores.score  # (N,) PDMS
        scores.columns["no_at_fault_collisions"]  # (N,)

    Args:
        scene: where the trajectories are driven.
        poses: (N, T, 3) rear-axle x [m], y [m], heading [rad] in the ego frame at t0; T = 8 at 0.5 s or 40 at 0.1 s.
            Pose k is at t0 + (k + 1) * interval.
        interval: [s] between poses.
        metric: score version, "pdms_v1" (navsim v1.1) or another of `metrics.registry.VERSIONS`.
        human_penalty_filter: whether a sub-metric that the recorded human fails counts as 1; None for the version's
            default.
        traffic: "log_replay", or "idm": vehicles react to each trajectory. PDM-Closed is then scored in the traffic
            that reacted to the trajectory, and the human in the traffic that reacted to the human.

    Returns:
        One row for each trajectory, in order. A trajectory that is not finite, or whose simulation overflows, gets the
        status "invalid_trajectory" and NaN, and does not affect the others.

    Raises:
        MTDriveError: poses of a wrong shape or interval, an unknown version or traffic, or a filter or traffic that the
            version does not have.
    """
    poses, valid = validate_batch(poses, interval)
    filtered = uses_human_filter(metric, human_penalty_filter)
    prepared = prepare(scene, metric, traffic)
    plans = sample_plans(poses[valid], interval, prepared.timestamp)
    states = simulate(plans, prepared.velocity, prepared.acceleration)
    finite = np.isfinite(states).all(axis=(1, 2))
    valid[valid] = finite
    forgiven = prepared.human_failures if filtered else frozenset()
    if prepared.traffic is None or not finite.any():
        scores = _score(states[finite], prepared.surroundings, metric, prepared.reference_progress, forgiven)
    else:
        scores = _score_reactive(states[finite], prepared, prepared.traffic, metric, forgiven)
    return scores if valid.all() else _with_invalid_rows(scores, valid)


def uses_human_filter(metric: str, human_penalty_filter: bool | None) -> bool:
    """Whether the human penalty filter is applied; None takes the version's default.

    Raises:
        MTDriveError: there is no such version, or the filter is asked for and the version has none.
    """
    has_filter = score_version(metric).human_filter
    if human_penalty_filter and not has_filter:
        raise MTDriveError(f"{metric} has no human penalty filter; leave human_penalty_filter out.")
    return has_filter if human_penalty_filter is None else human_penalty_filter


def score_states(
    states: np.ndarray,
    observation: Observation,
    drivable_map: DrivableMap,
    centerline: np.ndarray,
    metric: str,
    reference_progress: float | None = None,
) -> Scores:
    """Score simulated states in any traffic, without a recorded past or a human.

    Args:
        states: (N, 41, 11), finite, as `dynamics.simulate` returns them.
        observation: the traffic, as in `Scene`.
        drivable_map: the map, as in `Scene`.
        centerline: (C, >= 2) [m], as in `Scene`.
        metric: score version.
        reference_progress: the reference's distance times its factors [m]; None normalises progress over the batch, as
            PDM-Closed does with its proposals.

    Raises:
        MTDriveError: there is no such version.
    """
    surroundings = prepare_surroundings(observation, drivable_map, centerline, past=None)
    return _score(np.ascontiguousarray(states), surroundings, metric, reference_progress)


def _reference_progress(reference: np.ndarray, surroundings: Surroundings, metric: str) -> float:
    """The distance that PDM-Closed's simulated plan (1, 41, 11) travels, times its factors [m]."""
    scores = _score(reference, surroundings, metric)
    return float(scores.events["progress"][0] * scores.product[0])


def _score_reactive(
    states: np.ndarray, prepared: PreparedScene, traffic: ReactiveTraffic, metric: str, forgiven: frozenset[str]
) -> Scores:
    """Score finite states (N >= 1, 41, 11), each in the traffic that reacts to it."""
    rows = []
    for row, tracks in zip(states[:, None], simulate_tracks(traffic, states), strict=True):
        surroundings = replace(prepared.surroundings, tracks=tracks)
        reference_progress = _reference_progress(prepared.reference, surroundings, metric)
        rows.append(_score(row, surroundings, metric, reference_progress, forgiven))
    return _map_arrays(lambda *values: np.concatenate(values), *rows)


def _score(
    states: np.ndarray,
    surroundings: Surroundings,
    metric: str,
    reference_progress: float | None = None,
    forgiven: frozenset[str] = frozenset(),
) -> Scores:
    """Score finite states (N, 41, 11); the columns `forgiven` count as 1, but not in normalising progress."""
    count = len(states)
    motion = build_motion(states, surroundings.polygon_index)
    metrics = metrics_of(metric)
    events, columns = {"states": states}, {}
    for sub_metric in metrics:
        columns[sub_metric.column], observed = sub_metric.measure(motion, surroundings)
        events |= observed

    product = product_of_factors(metric, columns)
    progress = events["progress"] * product
    if reference_progress is None:
        reference_progress = progress.max(initial=0.0)
    best = np.maximum(progress, reference_progress)
    for sub_metric in metrics:
        if sub_metric.normalise is not None:
            columns[sub_metric.column] = sub_metric.normalise(columns[sub_metric.column], product, best)

    columns |= {name: np.ones(count) for name in forgiven}
    return Scores(
        metric=metric,
        status=np.full(count, OK, dtype=f"<U{len(INVALID)}"),
        columns=columns,
        product=product_of_factors(metric, columns),
        score=final_score(metric, columns),
        events=events | {"reference_progress": np.full(count, reference_progress)},
    )


def _with_invalid_rows(scores: Scores, valid: np.ndarray) -> Scores:
    """Put the scores of the valid rows into a batch whose other rows are invalid. valid: (N,) bool."""

    def fill(values: np.ndarray) -> np.ndarray:
        empty = {"f": np.nan, "i": -1, "b": False, "U": INVALID}[values.dtype.kind]
        full = np.full((len(valid), *values.shape[1:]), empty, dtype=values.dtype)
        full[valid] = values
        return full

    return _map_arrays(fill, scores)


def _map_arrays(function: Callable[..., np.ndarray], *scores: Scores) -> Scores:
    """Apply a function to each array of one or more scores of the same version."""
    return Scores(
        metric=scores[0].metric,
        status=function(*(each.status for each in scores)),
        columns={name: function(*(each.columns[name] for each in scores)) for name in scores[0].columns},
        product=function(*(each.product for each in scores)),
        score=function(*(each.score for each in scores)),
        events={name: function(*(each.events[name] for each in scores)) for name in scores[0].events},
    )
