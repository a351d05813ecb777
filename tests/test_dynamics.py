"""Dynamics against the official code, and the fits against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.simulation.dynamics import sample_plans, simulate
from mtdrive.simulation.dynamics.lqr import PROFILE_STEPS, fit_curvatures, fit_speeds
from mtdrive.simulation.geometry.frames import normalize_angle, poses_to_local
from mtdrive.simulation.trajectory import SAMPLINGS
from support import reference

DT = 0.1


@pytest.mark.parametrize("row", range(len(reference.load("simulated.npz")["name"])))
def test_equals_official_simulation(row: int):
    golden = reference.load("simulated.npz")
    token, name = str(golden["token"][row]), str(golden["name"][row])
    scene = reference.scenes()[token]
    num_poses = 40 if name.endswith("10hz") else 8
    names, poses = reference.plans(token, num_poses)
    plan = sample_plans(poses[names == name].astype(float), SAMPLINGS[num_poses], scene.timestamp)
    ours = simulate(plan, scene.velocity, scene.acceleration)[0]

    official = golden["states"][row]
    expected = np.column_stack([poses_to_local(official[:, :3], scene.origin), official[:, 3:]])
    difference = ours - expected
    difference[:, 2] = normalize_angle(difference[:, 2])
    np.testing.assert_allclose(difference, 0.0, atol=2e-8)


references = st.integers(0, 2**32 - 1).map(
    lambda seed: np.cumsum(np.random.default_rng(seed).normal([0.6, 0.05, 0.02], [0.4, 0.1, 0.05], (41, 3)), axis=0)
)


@settings(max_examples=25, deadline=None)
@given(references)
def test_fits_solve_navsims_least_squares_in_the_derivatives(poses: np.ndarray):
    """The profiles equal those integrated from navsim's unknowns: initial value and derivatives."""
    n = PROFILE_STEPS
    speeds, curvatures = np.empty(n), np.empty(n)
    fit_speeds(poses, speeds)
    fit_curvatures(poses, speeds, curvatures)

    integrate = np.tri(n) * DT
    integrate[:, 0] = 1.0
    along = (np.diff(poses[:, :2], axis=0) * np.column_stack([np.cos(poses[:-1, 2]), np.sin(poses[:-1, 2])])).sum(1)
    penalty = np.zeros((n - 2, n))
    penalty[:, 1:-1] = -np.eye(n - 2)
    penalty[-1, -1] = 1.0  # the only difference that navsim's matrix keeps
    design = integrate * DT
    unknowns = np.linalg.solve(design.T @ design + 1e-4 * penalty.T @ penalty, design.T @ along)
    np.testing.assert_allclose(speeds, integrate @ unknowns, atol=1e-9)

    design = integrate * DT * speeds[:, None]
    regularisation = np.diag([1e-10, *np.full(n - 1, 1e-2)])
    unknowns = np.linalg.solve(design.T @ design + regularisation, design.T @ normalize_angle(np.diff(poses[:, 2])))
    np.testing.assert_allclose(curvatures, integrate @ unknowns, atol=1e-8)


def test_standing_plan_at_speed_brakes_straight():
    plan = sample_plans(np.zeros((1, 8, 3)), 0.5, 1_620_000_000_123_457)
    states = simulate(plan, np.array([8.0, 0.0]), np.zeros(2))[0]
    assert states[-1, 3] < 0.2
    np.testing.assert_array_equal(states[:, [1, 2, 7]], 0.0)


def test_whole_turns_of_a_heading_do_not_matter():
    poses = np.zeros((2, 8, 3))
    poses[:, :, 0] = np.arange(1, 9) * 3.0
    poses[:, :, 2] = 0.1 * np.arange(1, 9)
    poses[1, 2::3, 2] += 2 * np.pi
    plain, turned = sample_plans(poses, 0.5, 1_620_000_000_000_000)
    np.testing.assert_allclose(turned, plain, atol=1e-12)


def test_row_does_not_depend_on_its_neighbours():
    scene = next(iter(reference.scenes().values()))
    _, poses = reference.plans(scene.token, 8)
    poses = poses.astype(float)
    start = (scene.velocity, scene.acceleration)
    together = simulate(sample_plans(poses, 0.5, scene.timestamp), *start)
    for row in (0, 7, len(poses) - 1):
        alone = simulate(sample_plans(poses[row : row + 1], 0.5, scene.timestamp), *start)[0]
        np.testing.assert_array_equal(together[row], alone)
