"""The result of measuring a metric."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Measurement(NamedTuple):
    """The values of one metric for N plans, and what was observed on the way."""

    values: np.ndarray
    """(N,) float64."""
    events: dict[str, np.ndarray]
    """Observations (N, ...) by name, as in `Metric.events`; they become `Scores.events`."""
