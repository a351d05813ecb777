"""Writing navsim's submission pickles, for its leaderboards, without navsim.

What `run_create_submission_pickle.py` of navsim v1.1 and v2.2 writes: the team, and a `Trajectory` by scene token. The
classes of navsim and nuPlan are written by name. numpy's functions are written by the names of numpy 1, which numpy 2
reads as well: the leaderboards run navsim's requirements, which pin NumPy 1.23, and a file with numpy 2's names
(`numpy._core`) does not load there.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtdrive.simulation.baselines import INTERVAL
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.submission.files import CLASSES, PREDICTIONS, STAGES, Trajectory, TrajectorySampling

KEYS_OF_VERSION = {"v1.1": (PREDICTIONS,), "v2.2": STAGES}  # keys of the predictions, a key a stage
_NAMES = {stand_in: name for name, stand_in in CLASSES.items()}
_PROTOCOL = 4  # what Python 3.9, on which navsim runs, writes itself


@dataclass(frozen=True)
class Team:
    """Who hands a submission in; the leaderboard shows it."""

    team_name: str
    """Name of the team; the leaderboard of v1.1 wants a link to the code around it."""

    authors: str
    """Members of the team."""

    email: str
    """Address to write to."""

    institution: str
    """Where the team is."""

    country: str
    """Country or region."""


def write_submission(path: Path, version: str, team: Team, stages: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write a submission pickle.

    Args:
        version: navsim's, a key of KEYS_OF_VERSION.
        team: who hands it in.
        stages: plans by scene token, poses (T, 3) x [m], y [m], heading [rad] at 0.5 s; one mapping for v1.1, two for
            v2.2: recorded scenes, then synthetic ones.
    """
    content: dict[str, Any] = {
        "team_name": team.team_name,
        "authors": team.authors,
        "email": team.email,
        "institution": team.institution,
        "country / region": team.country,
    }
    for key, plans in zip(KEYS_OF_VERSION[version], stages, strict=True):
        content[key] = [{token: _trajectory(poses) for token, poses in plans.items()}]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        _Pickler(file, _PROTOCOL).dump(content)


def _trajectory(poses: np.ndarray) -> Trajectory:
    sampling, trajectory = TrajectorySampling(), Trajectory()
    vars(sampling).update(num_poses=len(poses), time_horizon=len(poses) * INTERVAL, interval_length=INTERVAL)
    vars(trajectory).update(poses=np.asarray(poses, dtype=np.float64), trajectory_sampling=sampling)
    return trajectory


class _Pickler(pickle._Pickler):  # the one written in Python: how it names classes and functions can be changed
    write: Any
    save: Any
    memoize: Any

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Name a class or function: a stand-in by the class that it stands for."""
        module, name = _NAMES.get(obj, (obj.__module__, name or obj.__qualname__))
        self.save(module.replace("numpy._core", "numpy.core"))
        self.save(name)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)
