"""Statistics over the episodes of one group, in which every episode counts once."""

from __future__ import annotations

import numpy as np

from mtdrive.training.advantages.config import AdvantageConfig

# Of the largest reward: what differs by less is equal up to rounding. Far above float64's rounding of a score and of
# sums over a group, far below `epsilon`, so that no difference that could teach anything is lost.
ROUNDING = 1e-9


def carried_forward(rewards: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Rewards (G, T) in which an episode that has stopped keeps its last reward; NaN for an episode without turns.

    Early stopping would otherwise bias the statistics of a later turn: the siblings still there are the bad ones.
    """
    last = np.maximum(alive.sum(1) - 1, 0)
    steps = np.minimum(np.arange(rewards.shape[1]), last[:, None])
    return np.where(alive[:, :1], np.take_along_axis(rewards, steps, 1), np.nan)


def relative(values: np.ndarray, config: AdvantageConfig, rewards: np.ndarray | None = None) -> np.ndarray:
    """Values (G, ...) as deviations from the group's mean, in its standard deviations.

    NaN entries do not count and deviate by 0, as does exactly what equals the mean up to rounding: equal rewards are no
    signal. rewards: whose size decides what is rounding, where `values` are what is left of their differences.
    """
    counted = np.isfinite(values)
    number = np.maximum(counted.sum(0), 1)
    deviation = np.where(counted, values - np.where(counted, values, 0.0).sum(0) / number, 0.0)
    sizes = np.abs(values if rewards is None else rewards)
    largest = np.max(sizes, where=np.isfinite(sizes), initial=0.0)
    deviation[np.abs(deviation) <= ROUNDING * largest] = 0.0
    if not config.scale:
        return deviation
    return deviation / (np.sqrt((deviation**2).sum(0) / number) + config.epsilon)


def gains_to_go(carried_rewards: np.ndarray, discount: float) -> np.ndarray:
    """Discounted sums (G, T) of the gains from each turn on, for rewards carried forward (G, T). See `return_to_go`."""
    gains = np.diff(carried_rewards, axis=1, prepend=0.0)
    for turn in range(gains.shape[1] - 2, -1, -1):
        gains[:, turn] += discount * gains[:, turn + 1]
    return gains
