"""Bootstrap intervals over scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over scenes and its percentile bootstrap interval at 95 %."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: np.ndarray, resamples: int, seed: int) -> Interval:
    """Interval of the mean of values (N,), one per scene; scenes are drawn with replacement.

    For a difference of two policies pass the N differences on the same scenes: the draws are then paired.
    """
    values = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))
