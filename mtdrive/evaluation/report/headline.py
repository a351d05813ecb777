"""The numbers that a report opens with: paired differences with their intervals, and the sentence they allow."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mtdrive.evaluation.bootstrap import Interval, bootstrap_mean
from mtdrive.evaluation.report.data import RL, SFT
from mtdrive.evaluation.rows import STOPPED, UNPARSED

RESAMPLES, SEED = 10_000, 0  # of every bootstrap interval of a report


@dataclass(frozen=True)
class Plans:
    """Selects the plans of one policy after one turn from `ReportData.table`."""

    policy: str
    """As in the table."""
    feedback: str
    """As in the table."""
    turn: int
    """1, 2, ... or -1 for the last."""


@dataclass(frozen=True)
class Comparison:
    """Two sets of plans on the same scenes."""

    title: str
    """What is compared with what."""
    before: float
    """Mean score of the first set."""
    after: float
    """Mean score of the second set."""
    difference: Interval
    """Mean over scenes of the second score minus the first."""
    scenes: int
    """How many scenes both sets have."""
    sentence: str
    """What the interval allows to say."""


def scores(table: pd.DataFrame, plans: Plans) -> pd.Series:
    """Scores by scene token; empty if the table has no such plans."""
    rows = table[(table.policy == plans.policy) & (table.feedback == plans.feedback)]
    turn = rows.turn.max() if plans.turn == -1 else plans.turn
    return rows[rows.turn == turn].set_index("token").score


def verdict(difference: Interval) -> str:
    """What a 95 % interval of a difference lets one say."""
    if difference.low > 0:
        return "rises"
    return "falls" if difference.high < 0 else "does not clearly change"


def compare(table: pd.DataFrame, title: str, subject: str, before: Plans, after: Plans) -> Comparison | None:
    """The comparison of two sets of plans on the scenes that both have; None if there are none.

    Args:
        table: as `ReportData.table`.
        title: of the comparison.
        subject: what rises or falls, for instance "With RL the last turn's mean PDMS".
        before: the first set of plans.
        after: the second set.
    """
    paired = pd.concat([scores(table, before), scores(table, after)], axis=1, join="inner", keys=["before", "after"])
    if paired.empty:
        return None
    difference = bootstrap_mean((paired.after - paired.before).to_numpy(), RESAMPLES, SEED)
    mean = paired.mean()
    sentence = (
        f"{subject} {verdict(difference)}: {mean.before:.3f} to {mean.after:.3f} on {len(paired)} held-out scenes."
    )
    return Comparison(title, mean.before, mean.after, difference, len(paired), sentence)


def comparisons(table: pd.DataFrame) -> list[Comparison]:
    """What reinforcement learning changes, and what the turns do; without those whose plans the table lacks."""
    found = []
    for source in ("privileged", "perceived"):
        if source == "privileged":
            found.append(
                compare(
                    table,
                    "RL against SFT, last turn",
                    "With RL the last turn's mean PDMS",
                    Plans(SFT, source, -1),
                    Plans(RL, source, -1),
                )
            )
        found.append(
            compare(
                table,
                f"Last turn against first, {source} feedback",
                f"Over the turns, with {source} feedback, the RL planner's mean PDMS",
                Plans(RL, source, 1),
                Plans(RL, source, -1),
            )
        )
    return [comparison for comparison in found if comparison is not None]


def parse_rate(table: pd.DataFrame, policy: str) -> tuple[int, int]:
    """How many of a policy's answers parsed, and how many it gave, over all turns and feedback sources."""
    given = table[(table.policy == policy) & (table.status != STOPPED)]
    return int((given.status != UNPARSED).sum()), len(given)


def headlines(table: pd.DataFrame) -> list[str]:
    """The numbers that a report opens with, as lines of text."""
    lines = [
        f"{found.title}: {found.difference.mean:+.3f} ({found.difference.low:+.3f} to {found.difference.high:+.3f}). "
        f"{found.sentence}"
        for found in comparisons(table)
    ]
    parsed, given = parse_rate(table, SFT)
    return [*lines, f"Answers that parse after SFT: {parsed} of {given}."] if given else lines
