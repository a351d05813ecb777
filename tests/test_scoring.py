"""Whole scores against the official ones, and what must hold for any trajectory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuzz_scoring import adversarial_plans, fuzz
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.kernels import fingerprint
from mtdrive.simulation.scene import STEP
from mtdrive.simulation.scoring import INVALID, OK, Scores, score
from mtdrive.simulation.trajectory import SAMPLINGS
from support import reference
from support.scenes import straight_scene

TOKENS = sorted(set(reference.load("trajectories.npz")["token"].tolist()))


def assert_equals_official(scores: Scores, names: np.ndarray, official, score_column: str):
    for column, values in scores.columns.items():
        tolerance = 1e-6 if column == "ego_progress" else 0.0  # the others are discrete
        np.testing.assert_allclose(values, official[column], rtol=0, atol=tolerance, err_msg=f"{column} of {names}")
    np.testing.assert_allclose(scores.score, official[score_column], rtol=0, atol=1e-6)
    bits = ["".join(str(int(bit)) for bit in row) for row in scores.events["comfort_ok"]]
    assert bits == official.dbg_comfort_bits.tolist()


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("num_poses", SAMPLINGS)
def test_pdms_v1_equals_official(token: str, num_poses: int):
    names, poses = reference.plans(token, num_poses)
    official = reference.scores("v1").loc[token].loc[names]
    assert official.stable.all()  # none is decided by rounding
    scores = score(reference.scenes()[token], poses, SAMPLINGS[num_poses], "pdms_v1")
    assert_equals_official(scores, names, official, "score")
    np.testing.assert_allclose(scores.events["progress"], official.dbg_progress_raw, rtol=0, atol=1e-7)
    np.testing.assert_allclose(scores.events["collision_time"], official.dbg_at_fault_time_idx * STEP)
    np.testing.assert_allclose(scores.events["ttc_time"], official.dbg_ttc_time_idx * STEP)


@pytest.mark.parametrize("human_filter", [False, True])
@pytest.mark.parametrize("token", TOKENS)
def test_epdms_v2_equals_official(token: str, human_filter: bool):
    table = reference.scores("v2").loc[token]
    for num_poses, interval in SAMPLINGS.items():
        names, poses = reference.plans(token, num_poses)
        official = table[table.human_penalty_filter == human_filter].loc[names]
        scores = score(reference.scenes()[token], poses, interval, "epdms_v2", human_filter)
        assert_equals_official(scores, names, official, "final_score")


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(TOKENS),
    st.sampled_from([("pdms_v1", "log_replay"), ("epdms_v2", "log_replay"), ("epdms_v2", "idm")]),
)
def test_score_depends_on_nothing_but_scene_and_trajectory(seed: int, token: str, setting: tuple[str, str]):
    """Bit for bit the same alone, in a batch, and in another order."""
    scene = reference.scenes()[token]
    random = np.random.default_rng(seed)
    poses = np.concatenate([adversarial_plans(random, 12), reference.plans(token, 8)[1][seed % 30 :][:8]])
    order = random.permutation(len(poses))
    options = dict(zip(("metric", "traffic"), setting, strict=True))
    together, shuffled = score(scene, poses, **options), score(scene, poses[order], **options)
    alone = score(scene, poses[order[:1]], **options)
    for values in (lambda s: s.score, *(lambda s, name=name: s.columns[name] for name in together.columns)):
        np.testing.assert_array_equal(values(together)[order], values(shuffled))
        np.testing.assert_array_equal(values(shuffled)[:1], values(alone))
    valid = together.status == OK
    assert np.isfinite(together.score[valid]).all()
    assert ((together.score[valid] >= 0) & (together.score[valid] <= 1)).all()
    assert np.isnan(together.score[~valid]).all()


def test_adversarial_plans_score_the_same_twice_or_are_invalid():
    statuses = fuzz(list(reference.scenes().values()), 5000)
    assert statuses[OK] > statuses[INVALID] > 0
    assert statuses.total() == 5000


def test_invalid_rows_are_named_and_never_zero():
    token = TOKENS[0]
    _, poses = reference.plans(token, 8)
    poses = poses[:4].astype(float)
    clean = score(reference.scenes()[token], poses)
    poses[1, 2, 0] = np.nan
    poses[3, 7, 0] = 1e308  # finite, but not where it leads
    scores = score(reference.scenes()[token], poses)
    assert scores.status.tolist() == [OK, INVALID, OK, INVALID]
    np.testing.assert_array_equal(scores.score[[0, 2]], clean.score[[0, 2]])
    for values in (scores.score, scores.events["collision_time"], *scores.columns.values()):
        assert np.isnan(values[[1, 3]]).all()
    assert (scores.events["collision_track"][[1, 3]] == -1).all()


def test_human_filter_does_not_forgive_what_only_the_past_spoils():
    """navsim scores the human without a past: a jerky one spoils the candidate's history comfort all the same."""
    scene = straight_scene()
    jerky = replace(scene, history_acceleration=np.array([[6.0, 0.0], [-6.0, 0.0]] * 2))
    for human_filter in (False, True):
        scores = score(jerky, scene.human_poses[None, :8], 0.5, "epdms_v2", human_filter)
        assert scores.columns["history_comfort"][0] == 0.0


@pytest.mark.parametrize("count", [0, 1])
def test_batches_without_a_valid_row(count: int):
    scores = score(reference.scenes()[TOKENS[0]], np.full((count, 8, 3), np.nan))
    assert scores.score.shape == (count,)
    assert scores.events["states"].shape == (count, 41, 11)


@pytest.mark.parametrize(
    ("poses", "options", "words"),
    [
        (np.zeros((8, 3)), {}, "(8, 3)"),
        (np.zeros((2, 9, 3)), {}, "(2, 9, 3)"),
        (np.zeros((2, 8, 3)), {"interval": 0.1}, "0.1"),
        ([[["x"]]], {}, "numbers"),
        (np.zeros((2, 8, 3)), {"metric": "pdms"}, "pdms_v1"),
        (np.zeros((2, 8, 3)), {"human_penalty_filter": True}, "no human penalty filter"),
    ],
)
def test_refuses_in_one_sentence(poses, options, words):
    with pytest.raises(MTDriveError, match=r"\.$") as refusal:
        score(reference.scenes()[TOKENS[0]], poses, **options)
    assert words in str(refusal.value)


def test_compilation_cache_follows_every_kernel_and_constant(tmp_path: Path):
    """numba looks at the file of a kernel alone; ours must notice a changed callee and a changed constant."""
    (tmp_path / "dynamics").mkdir()
    fingerprints = set()
    for name in ("kernels.py", "scene.py", "dynamics/state.py"):
        for content in ("@kernel\n# one", "@kernel\n# two"):
            (tmp_path / name).write_text(content)
            fingerprints.add(fingerprint(tmp_path))
    assert len(fingerprints) == 6
