"""What a metric returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Measurement(NamedTuple):
    """values: (N,) float64, one per plan. events: fields of `scoring.Events` that this metric observes."""

    values: np.ndarray
    events: dict[str, np.ndarray]
