"""GRPO (arXiv 2402.03300): one advantage for the whole episode, from the reward of its last turn."""

from __future__ import annotations

import numpy as np

from mtdrive.training.advantages.config import AdvantageConfig
from mtdrive.training.advantages.group import carried_forward, relative


def grpo(rewards: np.ndarray, alive: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """Advantages (G, T); see the package docstring."""
    outcome = carried_forward(rewards, alive)[:, -1:]
    return np.where(alive, relative(outcome, config), 0.0)
