"""GiGPO (arXiv 2505.10978): the episode's advantage plus one among the episodes that were in the same state.

Before its first turn every episode is in the same state, the scene. Later, what tells the states apart is how good the
plan in force is: episodes whose rewards before the turn lie in one bin of `anchor_width`, counted from the group's
lowest, share an anchor state. Among them returns to go are compared; an episode that has stopped stays in its state
and gains nothing. One alone in its state has only the episode's advantage.
"""

from __future__ import annotations

import numpy as np

from mtdrive.training.advantages.config import AdvantageConfig
from mtdrive.training.advantages.group import carried_forward, gains_to_go, relative
from mtdrive.training.advantages.grpo import grpo

BORDER = 1e-6  # of a bin, so that rounding of the rewards moves nobody over its border


def gigpo(rewards: np.ndarray, alive: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    """Advantages (G, T); see the package docstring."""
    carried_rewards = carried_forward(rewards, alive)
    returns = gains_to_go(carried_rewards, config.discount)
    among_equals = np.zeros(rewards.shape)
    for turn, states in enumerate(_states(carried_rewards, config.anchor_width).T):
        for state in np.unique(states[states >= 0]):
            members = states == state
            among_equals[members, turn] = relative(returns[members, turn], config, carried_rewards)
    return np.where(alive, grpo(rewards, alive, config) + config.anchor_weight * among_equals, 0.0)


def _states(carried_rewards: np.ndarray, width: float) -> np.ndarray:
    """Anchor state (G, T) before every turn, from the rewards in force after it; -1 for an episode without turns."""
    counted = np.isfinite(carried_rewards[:, :1])
    before = np.where(counted, carried_rewards, 0.0)[:, :-1]
    lowest = np.min(before, axis=0, where=counted, initial=np.inf)
    bins = np.floor((before - lowest) / width + BORDER)
    return np.where(counted, np.concatenate([np.zeros(counted.shape), bins], axis=1), -1)
