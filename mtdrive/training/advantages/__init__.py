"""Advantage estimators: `(rewards, alive, config) -> advantages` over the episodes of one scene, by name.

rewards: (G, T) float64, the reward of each episode's turns; entries of turns not taken are ignored.
alive: (G, T) bool, True where the episode took the turn: an unbroken run from the first turn on, or no turn at all for
an episode that failed and must not count. The result (G, T) is 0 where not alive; a turn's value is put on all tokens
that the model wrote in it. A new estimator is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.advantages.config import AdvantageConfig
from mtdrive.training.advantages.gigpo import gigpo
from mtdrive.training.advantages.grpo import grpo
from mtdrive.training.advantages.mtgrpo import mtgrpo
from mtdrive.training.advantages.mtgrpo_outcome import mtgrpo_outcome
from mtdrive.training.advantages.return_to_go import return_to_go

Estimator = Callable[[np.ndarray, np.ndarray, AdvantageConfig], np.ndarray]

ESTIMATORS: dict[str, Estimator] = {
    "grpo": grpo,
    "mtgrpo": mtgrpo,
    "mtgrpo_outcome": mtgrpo_outcome,
    "return_to_go": return_to_go,
    "gigpo": gigpo,
}


def estimator(name: str) -> Estimator:
    """The estimator of that name.

    Raises:
        MTDriveError: unknown name.
    """
    if name not in ESTIMATORS:
        raise MTDriveError(f"There is no estimator {name!r}; choose from {', '.join(ESTIMATORS)}.")
    return ESTIMATORS[name]


__all__ = ["ESTIMATORS", "AdvantageConfig", "Estimator", "estimator"]
