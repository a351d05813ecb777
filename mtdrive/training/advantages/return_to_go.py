"""Return to go: what is gained from a turn on, discounted, against the same turn of the group.

A turn's gain is the change of the reward in force, the first turn's the reward itself; so gains add up to the outcome,
and what earlier turns have won is no merit of later ones. An episode that has stopped gains nothing more.
"""

from __future__ import annotations

import numpy as np

from mtdrive.training.advantages.config import AdvantageConfig
from mtdrive.training.advantages.group import carried_forward, gains_to_go, relative


def return_to_go(rewards: np.ndarray, alive: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """Advantages (G, T); see the package docstring."""
    return np.where(alive, relative(gains_to_go(carried_forward(rewards, alive), config.discount), config), 0.0)
