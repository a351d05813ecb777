"""Assessing plans in worker processes gives the same numbers and raises the same errors."""

import os
import signal
import sys
from functools import partial

import numpy as np
import pytest

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import open_assessor
from mtdrive.simulation.scene_cache.store import SceneStore

PLANS = np.linspace(0.0, 12.0, 5)[:, None, None] * np.arange(1, 9)[:, None] * [0.5, 0.0, 0.0]  # 0 to 12 m/s


@pytest.fixture
def store(world):
    return SceneStore(world.exp_root / "scene_cache", "train")


def test_workers_assess_as_this_process_does(store):
    scenes = [store.load(token) for token in store.tokens]
    scorer = partial(assess, metric="epdms_v2", source="perceived")
    with open_assessor(scorer, store, 2) as workers, open_assessor(scorer, store, 0) as here:
        theirs, ours = ([each.submit(scene, PLANS) for scene in scenes] for each in (workers, here))
        for mine, other in zip(ours, theirs, strict=True):
            for left, right in zip(mine.result(), other.result(), strict=True):
                np.testing.assert_array_equal(left.states, right.states)
                assert (left.score, left.scores, left.clean, left.feedback) == (
                    right.score,
                    right.scores,
                    right.clean,
                    right.feedback,
                )


def what_goes_wrong(scene, poses):
    """In a worker: what the number of plans asks for."""
    match len(poses):
        case 2:
            raise MTDriveError("The cache is damaged.")
        case 3:
            raise ZeroDivisionError("no lane")
        case 4:
            os.kill(os.getpid(), signal.SIGKILL)
    return [name for name in sys.modules if name in ("torch", "transformers")]


def test_errors_of_a_worker_are_raised_here(store):
    scene = store.load(store.tokens[0])
    with open_assessor(what_goes_wrong, store, 1) as workers:
        assert workers.submit(scene, PLANS[:1]).result() == []  # a worker needs no deep-learning stack
        with pytest.raises(MTDriveError, match="damaged"):
            workers.submit(scene, PLANS[:2]).result()
        with pytest.raises(ZeroDivisionError, match="no lane"):
            workers.submit(scene, PLANS[:3]).result()
        with pytest.raises(MTDriveError, match=r"was killed .* scoring_workers"):
            workers.submit(scene, PLANS[:4]).result()
        with pytest.raises(MTDriveError, match=r"was killed .* scoring_workers"):
            workers.submit(scene, PLANS[:1])
