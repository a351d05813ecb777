"""Why a trajectory has its score: its sub-metrics and violations, beside those of PDM-Closed and of the human."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from mtdrive.simulation.baselines import INTERVAL, NUM_POSES, human_plan, pdm_closed_plan
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import Assessment, assess
from mtdrive.simulation.feedback.structured import Finding
from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT, LIMITS, QUANTITIES, differences
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import OK
from mtdrive.simulation.submission.one_stage import adjacent_rows
from mtdrive.simulation.submission.scoring import SubmissionScores
from mtdrive.visualization import Plan, Role, assessed_plan, bird_view_png, figure_scene

BIRD_VIEW = (720, 960)  # [px] of a picture without camera image
PLAN = "plan"


@dataclass(frozen=True)
class Explanation:
    """One plan of a scene beside those of PDM-Closed and, if the scene has one, of the human."""

    scene: Scene
    """The scene that all plans are of."""
    metric: str
    """Name of the score version."""
    assessments: dict[str, Assessment]
    """Score and feedback by name: "plan", "PDM-Closed", "human"."""
    plans: list[Plan]
    """The same plans, in the order in which they are drawn; "plan" is last, on top."""


def row_of(explain: str | int, tokens: np.ndarray) -> int:
    """The row of a file of trajectories that `explain` names.

    Args:
        explain: a token, or the number of the row from 0, which is needed where a token has several trajectories.
        tokens: (N,) of the file.

    Raises:
        MTDriveError: it names none, or several.
    """
    rows = np.flatnonzero(tokens == str(explain))
    if len(rows) == 1:
        return int(rows[0])
    if len(rows):
        raise MTDriveError(f"{explain} has {len(rows)} trajectories; give the row, such as explain={rows[0]}.")
    if str(explain).isdigit() and int(explain) < len(tokens):
        return int(explain)
    raise MTDriveError(f"explain={explain} is neither a token in the file nor a row from 0 to {len(tokens) - 1}.")


def explain(
    scene: Scene, poses: np.ndarray, interval: float, metric: str, human_penalty_filter: bool | None
) -> Explanation:
    """Score and assess one trajectory, PDM-Closed's and the human's.

    Args:
        scene: the scene.
        poses: (T, 3) x [m], y [m], heading [rad] in the ego frame at t0.
        interval: time between two poses [s].
        metric: name of the score version.
        human_penalty_filter: as in `scoring.score`.
    """
    candidates = {PLAN: (poses, interval, Role.TURN)}
    candidates["PDM-Closed"] = (pdm_closed_plan(scene, metric), INTERVAL, Role.PDM_CLOSED)
    if len(scene.human_poses) >= NUM_POSES:
        candidates["human"] = (human_plan(scene), INTERVAL, Role.HUMAN)
    assessments, plans = {}, []
    for name, (plan, step, role) in candidates.items():
        (assessments[name],) = assess(
            scene, plan[None], interval=step, metric=metric, suggest=False, human_penalty_filter=human_penalty_filter
        )
        plans.append(assessed_plan(name, plan, assessments[name], role))
    return Explanation(scene, metric, assessments, plans[1:] + plans[:1])  # the plan is drawn over the others


def explanation_tables(explanation: Explanation, scores: SubmissionScores, row: int) -> Iterator[Table]:
    """A table of all sub-metrics of all plans, and one of their violations: when, with what, where, by how much.

    Args:
        explanation: of the row.
        scores: of the whole submission, for the row's score and its two-frame extended comfort.
        row: the row that is explained.
    """
    others = [assessment for name, assessment in explanation.assessments.items() if name != PLAN]
    table = Table("", *explanation.assessments, title=f"row {row}, {scores.tokens[row]}", title_justify="left")
    for name, values in scores.columns.items():
        table.add_row(name, _number(values[row]), *(_number(other.scores.get(name, np.nan)) for other in others))
    table.add_row("score", _number(scores.score[row]), *(_number(other.score) for other in others))
    yield table

    table = Table("violation", "by", "at [s]", "with", "place x, y [m]", "what", "measured", "limit")
    for name, assessment in explanation.assessments.items():
        if assessment.status != OK:
            table.add_row(assessment.status, name, *[""] * 3, assessment.feedback.problem)
        for finding in assessment.feedback.violations:
            table.add_row(finding.metric, name, *_facts(finding))
    for facts in _discontinuities(scores, row):
        table.add_row(EXTENDED_COMFORT, PLAN, *[""] * 3, *facts)
    if table.rows:
        yield table


def _facts(finding: Finding) -> list[str]:
    place = finding.object_position or finding.ego_position
    what = " ".join(filter(None, [finding.quantity, finding.side and f"on the {finding.side}"]))
    return [
        "" if finding.time is None else f"{finding.time:.1f}",
        finding.object_class or "",
        "" if place is None else f"{place[0]:+.2f}, {place[1]:+.2f}",
        what,
        "" if finding.measured is None else f"{finding.measured:.2f}",
        "" if finding.limit is None else f"{finding.limit:.2f}",
    ]


def _discontinuities(scores: SubmissionScores, row: int) -> Iterator[tuple[str, str, str]]:
    """Where a plan differs from that of the frame before by more than extended comfort allows: what, value, limit."""
    if EXTENDED_COMFORT not in scores.columns or scores.driven is None:
        return
    states, times = scores.driven.states, scores.driven.times
    for now, previous in adjacent_rows(scores, scores.driven):
        if now == row:
            apart = differences(states[[now]], states[[previous]], times[[now]] - times[[previous]])[0]
            for quantity, measured, limit in zip(QUANTITIES, apart, LIMITS, strict=True):
                if measured > limit:
                    yield f"{quantity} unlike the plan of {scores.tokens[previous]}", f"{measured:.2f}", f"{limit:.2f}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"


def draw(explanation: Explanation, data_root: Path, split: str, path: Path) -> str | None:
    """Write a picture of the scene and the plans as PNG; returns why it lacks the camera image, or None if it has it.

    Args:
        explanation: what is drawn.
        data_root: OPENSCENE_DATA_ROOT, which holds the images.
        split: the scene's split.
        path: file to write.
    """
    scene, plans, metric = explanation.scene, explanation.plans, explanation.metric
    try:
        image = read_image(data_root, split, scene.camera.image)
    except MTDriveError as error:
        with atomic_path(path) as temporary:
            temporary.write_bytes(bird_view_png(scene, plans, *BIRD_VIEW, metric=metric))
        return str(error)
    title = f"{scene.token}  {scene.log_name}  {scene.map_name}"
    with atomic_path(path) as temporary:
        figure_scene(scene, image, plans, title, metric).savefig(temporary, format="png")
    return None
