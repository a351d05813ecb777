"""PDM scores of trajectories in a scene, as navsim computes them, for a whole batch at once.

Each trajectory is compared with PDM-Closed alone, never with its neighbours in the batch: a score depends on nothing
but the scene and the trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from mtdrive.simulation.dynamics import sample_plans, simulate
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.history_comfort import recorded_past
from mtdrive.simulation.metrics.motion import build_motion
from mtdrive.simulation.metrics.registry import final_score, metrics_of, product_of_factors, score_version
from mtdrive.simulation.metrics.surroundings import Surroundings, prepare_surroundings
from mtdrive.simulation.runtime.identity_cache import cache_by_identity
from mtdrive.simulation.scene import DrivableMap, Observation, Scene
from mtdrive.simulation.traffic.reactive import ReactiveTraffic, reactive_traffic, simulate_tracks
from mtdrive.simulation.trajectory import validate_batch

LOG_REPLAY = "log_replay"  # other road users do what was recorded
IDM = "idm"  # vehicles react
TRAFFIC = (LOG_REPLAY, IDM)
OK = "ok"
INVALID = "invalid_trajectory"
HUMAN_POSES = 8  # of the recorded future that the human filter scores
HUMAN_INTERVAL = 0.5  # [s]


@dataclass(frozen=True)
class Scores:
    """Scores of N trajectories.

    metric: score version. status: (N,) str, "ok" or "invalid_trajectory" (then all numbers are NaN).
    columns: navsim's column name -> (N,) sub-metric, in navsim's order. score: (N,). product: (N,) of the factors.
    events: what happened along each simulated plan, (N, ...) by name: what the version's metrics observe (see
    `Metric.events`; times in seconds from t0), and

        states              (N, 41, 11), columns as in `dynamics.state`
        reference_progress  (N,) what PDM-Closed earns, its way times its factors [m]

    Rows with an invalid trajectory hold NaN, -1 and False.
    """

    metric: str
    status: np.ndarray
    columns: dict[str, np.ndarray]
    product: np.ndarray
    score: np.ndarray
    events: dict[str, np.ndarray]


@dataclass(frozen=True)
class PreparedScene:
    """What scoring needs of a scene: surroundings, start of the simulation, PDM-Closed's simulated plan (1, 41, 11) and
    what it earns in log replay [m], the columns that the recorded human fails (where the version can forgive them), and
    the traffic that reacts, or None for log replay."""

    surroundings: Surroundings
    timestamp: int
    velocity: np.ndarray
    acceleration: np.ndarray
    reference: np.ndarray
    reference_progress: float
    human_failures: frozenset[str]
    traffic: ReactiveTraffic | None


@cache_by_identity
def prepare(scene: Scene, metric: str, traffic: str) -> PreparedScene:
    """Prepare a scene for a score version (once per scene, version and traffic).

    Raises:
        MTDriveError: there is no such version or traffic, or the scene cannot be scored by it.
    """
    check_traffic(metric, traffic)
    version = score_version(metric)
    if metric not in scene.observations:
        raise MTDriveError(f"Synthetic scene {scene.token} has no score {metric}; use {', '.join(scene.observations)}.")
    past = recorded_past(scene) if version.uses_past else None
    surroundings = prepare_surroundings(scene.observations[metric], scene.drivable_map, scene.centerline, past)
    timestamp, velocity, acceleration = int(scene.timestamp), np.array(scene.velocity), np.array(scene.acceleration)
    reacting = reactive_traffic(scene, metric) if traffic == IDM else None

    reference = np.array(scene.references[metric].simulated)[None]
    failures = frozenset()
    if version.human_filter and len(scene.human_poses):
        plan = sample_plans(np.array(scene.human_poses[None, :HUMAN_POSES]), HUMAN_INTERVAL, timestamp)
        states = simulate(plan, velocity, acceleration)
        around = replace(surroundings, past=None)
        if reacting is not None:
            around = replace(around, tracks=next(simulate_tracks(reacting, states)))
        human = _score(states, around, metric)
        failures = frozenset(name for name, values in human.columns.items() if values[0] == 0.0)
    return PreparedScene(
        surroundings=surroundings,
        timestamp=timestamp,
        velocity=velocity,
        acceleration=acceleration,
        reference=reference,
        reference_progress=_earned(reference, surroundings, metric),
        human_failures=failures,
        traffic=reacting,
    )


def check_traffic(metric: str, traffic: str) -> None:
    """Refuse a traffic that does not exist, or that a score version does not have.

    Raises:
        MTDriveError: so it is, or there is no such version.
    """
    if traffic not in TRAFFIC:
        raise MTDriveError(f"There is no traffic {traffic!r}; choose {LOG_REPLAY} or {IDM}.")
    if traffic == IDM and not score_version(metric).reactive:
        raise MTDriveError(f"{metric} has no reactive traffic; choose traffic={LOG_REPLAY}, or metric=epdms_v2.")


def score(
    scene: Scene,
    poses: np.ndarray,
    interval: float = 0.5,
    metric: str = "pdms_v1",
    human_penalty_filter: bool | None = None,
    traffic: str = LOG_REPLAY,
) -> Scores:
    """Simulate and score trajectories.

    Args:
        scene: where they are driven.
        poses: (N, T, 3) rear-axle x, y [m], heading [rad] in the local frame, T = 8 at 0.5 s or 40 at 0.1 s.
        interval: [s] between poses.
        metric: score version.
        human_penalty_filter: count a metric that the recorded human fails as 1; None as the version has it.
        traffic: "log_replay", the scene's observation for `metric`, or "idm": vehicles react to each trajectory, and
            PDM-Closed meets the traffic that reacted to the trajectory, the human what reacted to the human.

    Raises:
        MTDriveError: wrong shape or interval, no such version or traffic, or a filter or a traffic that the version
            does not have. Rows that are not finite, or that drive the simulation out of the numbers, get the status
            "invalid_trajectory".
    """
    poses, valid = validate_batch(poses, interval)
    forgiving = uses_human_filter(metric, human_penalty_filter)
    prepared = prepare(scene, metric, traffic)
    plans = sample_plans(poses[valid], interval, prepared.timestamp)
    states = simulate(plans, prepared.velocity, prepared.acceleration)
    finite = np.isfinite(states).all(axis=(1, 2))
    valid[valid] = finite
    forgiven = prepared.human_failures if forgiving else frozenset()
    if prepared.traffic is None or not finite.any():
        scored = _score(states[finite], prepared.surroundings, metric, prepared.reference_progress, forgiven)
    else:
        scored = _score_reactive(states[finite], prepared, metric, forgiven)
    return scored if valid.all() else _spread(scored, valid)


def uses_human_filter(metric: str, human_penalty_filter: bool | None) -> bool:
    """Whether what the recorded human fails is forgiven; None takes the version's default.

    Raises:
        MTDriveError: there is no such version, or it has no filter.
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
    """Score simulated states (N, 41, 11) in traffic that need not be a scene's, without a past or a human.

    Args:
        states: finite, as `dynamics.simulate` returns them.
        observation, drivable_map, centerline: as in Scene.
        metric: score version.
        reference_progress: what the reference earns [m]; None normalises progress over the batch, as PDM-Closed
            does with its proposals.
    """
    surroundings = prepare_surroundings(observation, drivable_map, centerline, past=None)
    return _score(np.ascontiguousarray(states), surroundings, metric, reference_progress)


def _earned(reference: np.ndarray, surroundings: Surroundings, metric: str) -> float:
    """What PDM-Closed's simulated plan (1, 41, 11) earns [m]: its way times its factors."""
    scores = _score(reference, surroundings, metric)
    return float(scores.events["progress"][0] * scores.product[0])


def _score_reactive(states: np.ndarray, prepared: PreparedScene, metric: str, forgiven: frozenset[str]) -> Scores:
    """Score finite states (N >= 1, 41, 11), each in the traffic that reacts to it."""
    rows = []
    for row, tracks in zip(states[:, None], simulate_tracks(prepared.traffic, states), strict=True):
        surroundings = replace(prepared.surroundings, tracks=tracks)
        reference_progress = _earned(prepared.reference, surroundings, metric)
        rows.append(_score(row, surroundings, metric, reference_progress, forgiven))
    return _over(lambda *values: np.concatenate(values), *rows)


def _score(
    states: np.ndarray,
    surroundings: Surroundings,
    metric: str,
    reference_progress: float | None = None,
    forgiven: frozenset[str] = frozenset(),
) -> Scores:
    count = len(states)
    motion = build_motion(states, surroundings.polygon_index)
    metrics = metrics_of(metric)
    events, columns = {"states": states}, {}
    for sub_metric in metrics:
        columns[sub_metric.column], observed = sub_metric.measure(motion, surroundings)
        events |= observed

    product = product_of_factors(metric, columns)
    earned = events["progress"] * product
    if reference_progress is None:
        reference_progress = earned.max(initial=0.0)
    best = np.maximum(earned, reference_progress)
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


def _spread(scores: Scores, valid: np.ndarray) -> Scores:
    """Put the scores of the valid rows into a batch whose other rows are invalid."""

    def spread(values: np.ndarray) -> np.ndarray:
        empty = {"f": np.nan, "i": -1, "b": False, "U": INVALID}[values.dtype.kind]
        full = np.full((len(valid), *values.shape[1:]), empty, dtype=values.dtype)
        full[valid] = values
        return full

    return _over(spread, scores)


def _over(function: Callable[..., np.ndarray], *scores: Scores) -> Scores:
    """Scores of one version whose arrays are a function of the arrays of others."""

    def call(value: Callable[[Scores], np.ndarray]) -> np.ndarray:
        return function(*map(value, scores))

    return Scores(
        metric=scores[0].metric,
        status=call(attrgetter("status")),
        columns={name: call(lambda one, name=name: one.columns[name]) for name in scores[0].columns},
        product=call(attrgetter("product")),
        score=call(attrgetter("score")),
        events={name: call(lambda one, name=name: one.events[name]) for name in scores[0].events},
    )
