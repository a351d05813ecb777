"""The definitions of a PDM score that published numbers follow, so that one set of plans can be scored by each.

EPDMS has two. Since 2025-09-29 (navsim issue #151, v2.2) the human penalty filter counts in the score. In v2.1 to
v2.1.2 it changed the columns of the sub-metrics alone: `pdm_score` replaced them after the product and the weighted
metrics had been computed, and `compute_final_scores` takes these. Such a score is that without any filter, beside
filtered columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.registry import VERSIONS
from mtdrive.simulation.scoring import IDM
from mtdrive.simulation.submission.one_stage import with_extended_comfort
from mtdrive.simulation.submission.scoring import SubmissionScores
from mtdrive.simulation.submission.two_stage import SCORE, Group, TwoStageScores, aggregate


@dataclass(frozen=True)
class Definition:
    """One way to compute the score of plans."""

    name: str
    """In names of files, and in the column `metric` of tables."""
    metric: str
    """Score version."""
    human_penalty_filter: bool | None
    """Of the score, as in `scoring.score`."""
    filtered_columns: bool = False
    """Whether the filter, which the score goes without, has changed the columns of the sub-metrics."""


DEFINITIONS = tuple(Definition(name, name, None) for name in VERSIONS) + tuple(
    Definition(f"{name}_before_fix", name, False, filtered_columns=True)
    for name, version in VERSIONS.items()
    if version.human_filter
)
ScoreBy = Callable[[str, bool | None], SubmissionScores]
"""(score version, human penalty filter) -> scores of the plans."""


def definitions_for(traffic: str, two_stages: bool) -> tuple[Definition, ...]:
    """All definitions that support a kind of traffic and, if asked for, two stages.

    Raises:
        MTDriveError: there is none.
    """
    able = tuple(
        definition
        for definition in DEFINITIONS
        for version in [VERSIONS[definition.metric]]
        if (traffic != IDM or version.reactive) and (version.has_extended_comfort or not two_stages)
    )
    if not able:
        raise MTDriveError(f"No score has traffic={traffic}{' and two stages' if two_stages else ''}.")
    return able


def scores_by_definition(
    definitions: Sequence[Definition], score_by: ScoreBy, groups: Sequence[Group] | None
) -> Iterator[tuple[Definition, SubmissionScores, TwoStageScores | None]]:
    """Final scores of the same plans by each definition, with two-frame extended comfort where it is known.

    Args:
        definitions: what they are scored by.
        score_by: scores the plans; called once for each score version and filter that is needed.
        groups: of two stages, which are then aggregated; None for one stage.
    """
    known: dict[tuple[str, bool | None], SubmissionScores] = {}

    def scored(metric: str, human_filter: bool | None) -> tuple[SubmissionScores, TwoStageScores | None]:
        if (metric, human_filter) not in known:
            known[metric, human_filter] = score_by(metric, human_filter)
        if groups is None:
            return with_extended_comfort(known[metric, human_filter]), None
        stages = aggregate(known[metric, human_filter], groups)
        return stages.frames, stages

    for definition in definitions:
        scores, stages = scored(definition.metric, definition.human_penalty_filter)
        if definition.filtered_columns:
            columns, filtered = scored(definition.metric, None)
            scores = replace(scores, columns=columns.columns)
            if stages is not None and filtered is not None:
                stages = _with_columns(stages, scores, filtered)
        yield definition, scores, stages


def _with_columns(stages: TwoStageScores, frames: SubmissionScores, filtered: TwoStageScores) -> TwoStageScores:
    """The scores of one aggregation beside the sub-metrics of another."""
    return replace(
        stages,
        frames=frames,
        stage_one=filtered.stage_one | {SCORE: stages.stage_one[SCORE]},
        stage_two=filtered.stage_two | {SCORE: stages.stage_two[SCORE]},
    )
