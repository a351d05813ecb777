"""Plans that break one named sub-metric, found by search with the scorer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtdrive.datasets.plans import expert_path, swept
from mtdrive.simulation.feedback.diagnose import violated
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import OK, score

# Wider than the search for corrections: a flaw may be harsh.
FIRST = np.array([-7.0, -4.0, -2.0, -0.8, 0.0, 0.8, 2.0, 3.5])  # [m/s^2] up to 2 s
SECOND = np.array([-6.0, -3.0, -1.0, 0.0, 1.0, 2.5])  # [m/s^2] from 2 s on
OFFSETS = (-6.0, -4.4, -3.2, -1.6, 0.0, 1.6, 3.2, 4.4, 6.0)  # [m]


@dataclass(frozen=True)
class BrokenPlans:
    """Valid plans for a scene, and which sub-metrics each of them violates."""

    poses: np.ndarray
    """(M, 8, 3) plans."""

    violated: dict[str, np.ndarray]
    """Column of each sub-metric that counts in the score -> (M,) bool, whether the plan violates it."""

    def breaking(self, column: str) -> np.ndarray:
        """Plans (K, 8, 3) that violate a sub-metric and as few others as possible; K is 0 if no plan does."""
        others = np.sum([self.violated[name] for name in self.violated if name != column], axis=0)
        breaks = self.violated[column]
        return self.poses[breaks & (others == others.min(where=breaks, initial=len(self.violated)))]


def find_broken(scene: Scene, poses: np.ndarray, metric: str) -> BrokenPlans:
    """The valid ones of plans (M, 8, 3), and which of the sub-metrics that count in the score each of them violates."""
    scores = score(scene, poses, metric=metric)
    valid = scores.status == OK
    violations = violated(scores)
    counted = [sub_metric.column for sub_metric in metrics_of(metric) if sub_metric.counts]
    return BrokenPlans(poses[valid], {name: violations[name][valid] for name in counted})


def wide_plans(scene: Scene) -> np.ndarray:
    """Plans (M, 8, 3) around the expert's path, most of them flawed."""
    return swept(scene, expert_path(scene), FIRST, SECOND, OFFSETS, start=0.0, length=12.0)
