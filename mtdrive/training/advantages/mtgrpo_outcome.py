"""mtGRPO with a share of the outcome: the turn's advantage plus `outcome_weight` times the episode's.

A turn is then also credited for what it made possible later, which its own reward does not show.
"""

from __future__ import annotations

import numpy as np

from mtdrive.training.advantages.config import AdvantageConfig
from mtdrive.training.advantages.grpo import grpo
from mtdrive.training.advantages.mtgrpo import mtgrpo


def mtgrpo_outcome(rewards: np.ndarray, alive: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """Advantages (G, T); see the package docstring."""
    return mtgrpo(rewards, alive, config) + config.outcome_weight * grpo(rewards, alive, config)
