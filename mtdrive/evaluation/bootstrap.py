"""Percentile bootstrap intervals over scenes, and over training runs.

`scipy.stats.bootstrap` gives the same intervals over scenes, bit for bit, but it refuses a single scene and cannot draw
runs and scenes together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Interval:
    """A mean over scenes and its percentile bootstrap interval at 95 %."""

    mean: float
    """The mean itself, not that of the resamples."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


def bootstrap_mean(values: np.ndarray, resamples: int, seed: int) -> Interval:
    """Interval of the mean over scenes, which are drawn with replacement.

    Args:
        values: (N,), one per scene. For the difference of two policies pass the N differences on the same scenes: the
            draws are then paired.
        resamples: how often N scenes are drawn.
        seed: of the draws.
    """
    values = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_runs(values: np.ndarray, resamples: int, seed: int, minus: np.ndarray | None = None) -> Interval:
    """Interval of the mean over training runs and scenes, both drawn with replacement.

    Args:
        values: (R, N), one row per run, over the same N scenes.
        resamples: how often R runs and N scenes are drawn.
        seed: of the draws.
        minus: (Q, N), runs of another method over these scenes, whose mean is subtracted. Its runs are drawn
            independently; the scenes are drawn together.
    """
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, values.shape[1], (resamples, values.shape[1]))

    def drawn_means(runs: np.ndarray) -> np.ndarray:
        rows = rng.integers(0, len(runs), (resamples, len(runs)))
        return np.array([runs[row].mean(0)[scene].mean() for row, scene in zip(rows, scenes, strict=True)])

    drawn, mean = drawn_means(values), float(values.mean())
    if minus is not None:
        drawn, mean = drawn - drawn_means(minus), mean - float(minus.mean())
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))
