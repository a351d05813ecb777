"""mtGRPO (arXiv 2601.22930): each turn's reward against the same turn of the group.

Episodes that have stopped keep contributing their final reward to the later turns' statistics (absorbing state).
"""

from __future__ import annotations

import numpy as np

from mtdrive.training.advantages.config import AdvantageConfig
from mtdrive.training.advantages.group import carried_forward, relative


def mtgrpo(rewards: np.ndarray, alive: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """Advantages (G, T); see the package docstring."""
    return np.where(alive, relative(carried_forward(rewards, alive), config), 0.0)
