"""From scored plans to findings: what each sub-metric objects to, where and when.

The metrics themselves know the facts; `feedback.repair` adds what must change.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.feedback.structured import Finding
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import Scores


def diagnose(scene: Scene, scores: Scores, row: int) -> list[Finding]:
    """Findings on the valid plan in one row of scores, most important first, what the score ignores last.

    scores: of plans in `scene`, whose observation is the traffic that the feedback may know.
    """
    findings = []
    for metric in sorted(metrics_of(scores.metric), key=lambda metric: (not metric.counts, metric.rank)):
        value = float(scores.columns[metric.column][row])
        facts = {} if value == 1.0 else metric.facts(scene, scores, row)
        passed = not metric.violations(scores)[row]
        findings.append(Finding(metric=metric.column, passed=passed, value=value, **facts))
    return findings


def violated(scores: Scores) -> dict[str, np.ndarray]:
    """Which of N valid plans a finding of `diagnose` would object to: sub-metric -> (N,) bool."""
    return {metric.column: metric.violations(scores) for metric in metrics_of(scores.metric)}
