"""Two-frame extended comfort against the official values, and which frames have it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtdrive.simulation.dynamics.state import ACCELERATION_X, ACCELERATION_Y, HEADING
from mtdrive.simulation.metrics.extended_comfort import (
    EXTENDED_COMFORT,
    QUANTITIES,
    adjacent_frames,
    differences,
    extended_comfort,
)
from mtdrive.simulation.metrics.registry import final_score
from mtdrive.simulation.scoring import score
from support import reference
from support.scenes import cruise

PAIRS = pd.read_csv(reference.FOLDER / "extended_comfort_v2.csv")


@pytest.fixture(scope="module")
def drives() -> dict:
    """(token, trajectory) -> start [s], and the scores without and with human filter."""
    golden = reference.load("trajectories.npz")
    wanted = {*zip(PAIRS.now_token, PAIRS.now_traj), *zip(PAIRS.prev_token, PAIRS.prev_traj)}
    known = {}
    for token, name in wanted:
        row = np.flatnonzero((golden["token"] == token) & (golden["name"] == name))[0]
        scene, poses = reference.scenes()[token], golden["poses"][row : row + 1, : golden["num_poses"][row]]
        scores = [score(scene, poses, golden["interval"][row], "epdms_v2", human) for human in (False, True)]
        known[token, name] = (scene.timestamp * 1e-6, scores)
    return known


def test_equals_official(drives):
    now = [drives[pair] for pair in zip(PAIRS.now_token, PAIRS.now_traj)]
    previous = [drives[pair] for pair in zip(PAIRS.prev_token, PAIRS.prev_traj)]
    states = np.concatenate([scores[0].events["states"] for _, scores in (*now, *previous)])
    times = np.array([time for time, _ in (*now, *previous)])
    rows = np.arange(len(PAIRS))
    comfort = extended_comfort(states, times, rows, rows + len(PAIRS))
    np.testing.assert_array_equal(comfort, PAIRS.two_frame_extended_comfort)
    for human in (False, True):
        columns = {
            name: np.concatenate([scores[human].columns[name] for _, scores in now]) for name in now[0][1][0].columns
        }
        total = final_score("epdms_v2", {**columns, EXTENDED_COMFORT: comfort})
        np.testing.assert_allclose(total, PAIRS[f"now_score_hf{int(human)}"], rtol=0, atol=1e-9)
        alone = [scores[human].score[0] for _, scores in previous]
        np.testing.assert_allclose(alone, PAIRS[f"prev_score_hf{int(human)}"], rtol=0, atol=1e-9)


def test_unknown_extended_comfort_has_no_weight():
    columns = {
        **dict.fromkeys(
            ("no_at_fault_collisions", "drivable_area_compliance", "driving_direction_compliance"), np.ones(3)
        ),
        "traffic_light_compliance": np.ones(3),
        **dict.fromkeys(("ego_progress", "time_to_collision_within_bound"), np.ones(3)),
        **dict.fromkeys(("lane_keeping", "history_comfort"), np.zeros(3)),
        EXTENDED_COMFORT: np.array([np.nan, 0.0, 1.0]),
    }
    np.testing.assert_allclose(final_score("epdms_v2", columns), [10 / 14, 10 / 16, 12 / 16])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]))
def test_is_blind_to_place_heading_and_order(seed: int, gap: float):
    random = np.random.default_rng(seed)
    now, previous = np.cumsum(random.normal(scale=0.02, size=(2, 6, 41, 11)), axis=2)
    gaps = np.full(6, gap)
    apart = differences(now, previous, gaps)
    order = random.permutation(6)
    np.testing.assert_array_equal(differences(now[order], previous[order], gaps), apart[order])
    moved = previous.copy()
    moved[..., :2] += random.normal(scale=1e3, size=2)
    moved[..., 2] = (moved[..., 2] + random.normal() + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(differences(now, moved, gaps), apart, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gap", [0.1, 0.5])
def test_a_plan_that_goes_on_as_before_differs_by_nothing(gap: float):
    """The later frame sees the same drive from a later start; a plan compared with itself has not gone on."""
    steps = round(gap / 0.1)
    drive = np.zeros((1, 50, 11))
    drive[0, :, 5], drive[0, :, 2] = np.sin(np.arange(50) / 8), np.cos(np.arange(50) / 9)
    previous, now = drive[:, :41], drive[:, steps : steps + 41]
    # at its ends a window is cut short, so what lies within alone is the same
    apart = differences(now, previous, np.array([gap]))
    assert (apart < differences(previous, previous, np.array([gap]))).all()
    straight = cruise(40.0, 8.0)[None]
    np.testing.assert_allclose(differences(straight, straight, np.array([gap])), 0.0, atol=1e-7)


SECONDS = np.arange(36) * 0.1  # that both plans cover
SHAPES = {  # columns of the state, and how they differ: mostly in one quantity
    "acceleration": (ACCELERATION_X, np.ones(36)),
    "jerk": (ACCELERATION_Y, SECONDS - SECONDS.mean()),
    "yaw rate": (HEADING, SECONDS),
    "yaw acceleration": (HEADING, np.sin(3 * SECONDS)),
}
NAVSIM_LIMITS = {"acceleration": 0.7, "jerk": 0.5, "yaw rate": 0.1, "yaw acceleration": 0.1}


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("share", [0.99, 1.01])
def test_limits(quantity: str, share: float):
    column, shape = SHAPES[quantity]
    now, previous = np.zeros((2, 1, 41, 11))
    now[..., ACCELERATION_Y] = previous[..., ACCELERATION_Y] = 20.0 * (quantity == "jerk")  # magnitudes are positive
    gap, index = np.array([0.5]), QUANTITIES.index(quantity)
    flat, bent = now.copy(), now.copy()
    bent[0, :36, column] += shape
    scale = share * NAVSIM_LIMITS[quantity] / differences(bent, previous, gap)[0, index]
    flat[0, :36, column] += scale * shape
    assert differences(flat, previous, gap)[0, index] == pytest.approx(share * NAVSIM_LIMITS[quantity])
    comfort = extended_comfort(np.concatenate([flat, previous]), np.array([0.5, 0.0]), np.array([0]), np.array([1]))
    assert comfort[0] == (share < 1.0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), unique=True, max_size=12), st.integers(0, 2**32 - 1)
)
@example([("a", 3), ("b", 5)], 0)
def test_adjacent_frames_are_the_last_before_in_the_same_log(frames, seed):
    frames = [frames[i] for i in np.random.default_rng(seed).permutation(len(frames))]
    log_names = np.array([log for log, _ in frames], dtype=object)
    times = 1.6e9 + np.array([0.25 * tick for _, tick in frames])
    found = {frames[now]: frames[previous] for now, previous in adjacent_frames(log_names, times)}
    expected = {}
    for log, tick in frames:
        earlier = [other for name, other in frames if name == log and other < tick]
        if earlier and tick - max(earlier) <= 2:  # 0.5 s, but not 0.75 s
            expected[log, tick] = (log, max(earlier))
    assert found == expected
