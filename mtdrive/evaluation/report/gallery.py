"""Which test scenes a report shows: by rule, never by eye."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mtdrive.visualization.turns import SAME

EACH = 4  # scenes: of those that gained most, of those that lost most, of those that stayed the same


@dataclass(frozen=True)
class Choice:
    """A scene that is shown."""

    token: str
    """Token of the scene."""
    reason: str
    """Why it is shown, in a few words."""


def choose(table: pd.DataFrame) -> list[Choice]:
    """Scenes of one policy's table (see `rows.as_table`), by the change of the score from its first to last turn.

    Those that gained most, those that lost most and those that stayed at the lowest scores, each from different
    families where there are enough; then the median scene of every family that is still missing. Ties go to the
    smaller token, so the same table gives the same scenes.
    """
    scores = table.pivot(index="token", columns="turn", values="score").sort_index()
    scenes = pd.DataFrame({"last": scores.iloc[:, -1], "change": scores.iloc[:, -1] - scores.iloc[:, 0]})
    scenes["family"] = table.groupby("token").family.first()
    gained = scenes[scenes.change >= SAME].sort_values("change", ascending=False, kind="stable")
    lost = scenes[scenes.change <= -SAME].sort_values("change", kind="stable")
    same = scenes[scenes.change.abs() < SAME].sort_values("last", kind="stable")
    chosen: list[Choice] = []
    for reason, pool in (("gained most", gained), ("lost most", lost), ("unchanged, lowest score", same)):
        chosen += [Choice(token, reason) for token in _spread(pool.family)]
    shown = set(scenes.family[[choice.token for choice in chosen]])
    for family, group in scenes.groupby("family"):
        if family not in shown:
            middle = group.sort_values("change", kind="stable").index[(len(group) - 1) // 2]
            chosen.append(Choice(middle, "median of its family"))
    return chosen


def _spread(families: pd.Series) -> list[str]:
    """The first tokens of an ordered pool, at most EACH: one of each family before a second of any."""
    rank = families.groupby(families).cumcount()
    return list(rank.sort_values(kind="stable").index[:EACH])
