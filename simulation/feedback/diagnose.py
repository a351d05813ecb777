"""From scored plans to findings: what each sub-metric objects to, where and when.

The metrics themselves provide the facts (`Metric.facts`); `feedback.repair` adds the changes that help.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.feedback.structured import Finding
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import Scores


def diagnose(scene: Scene, scores: Scores, row: int) -> list[Finding]:
    """One finding for each sub-metric on a valid plan: the most important first, those that do not count last.

    Args:
        scene: whose observation is the traffic that the feedback may know.
        scores: of plans in that scene.
        row: of the plan, whose status must be "ok".
    """
    findings = []
    for metric in sorted(metrics_of(scores.metric), key=lambda metric: (not metric.counts, metric.rank)):
        value = float(scores.columns[metric.column][row])
        facts = {} if value == 1.0 else metric.facts(scene, scores, row)
        passed = not metric.violations(scores)[row]
        findings.append(Finding(metric=metric.column, passed=passed, value=value, **facts))
    return findings


def violated(scores: Scores) -> dict[str, np.ndarray]:
    """Which of N valid plans violate each sub-metric, as `diagnose` would find: (N,) bool by column."""
    return {metric.column: metric.violations(scores) for metric in metrics_of(scores.metric)}
