"""Evaluations side by side: differences on the same scenes by turn, family and sub-metric, with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
from rich.box import SIMPLE
from rich.table import Column, Table

from mtdrive.evaluation.bootstrap import bootstrap_mean
from mtdrive.evaluation.rows import KEY_COLUMNS, PLANNER
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.registry import short_name

SCORE = "score"
LAST = "last"  # the last turn of each run, where they have different numbers of turns
ALL = ""  # family of the rows over all scenes


def plans_by_turn(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The planner's rows of an evaluation by turn, "1", "2", ..., and LAST; each with one row per scene, by token.

    Raises:
        MTDriveError: it has none, or two of a scene and turn.
    """
    rows = table[table.policy == PLANNER].set_index("token")
    turns = {str(turn): group for turn, group in rows.groupby("turn")}
    if not turns:
        raise MTDriveError("there is no planner in it, only baselines")
    if not all(group.index.is_unique for group in turns.values()):
        raise MTDriveError("it has two rows of a scene and turn")
    return turns | {LAST: turns[str(rows.turn.max())]}


def compare(tables: Mapping[str, pd.DataFrame], resamples: int, seed: int) -> pd.DataFrame:
    """Every other run minus the first, paired by scene.

    Args:
        tables: of at least two evaluations by the name of the run, as `rows.as_table`; their scores are of one metric.
        resamples, seed: of the bootstrap over scenes.

    Returns:
        One row per run, turn, family (ALL for all scenes) and column (SCORE or a sub-metric): `scenes` that both runs
        have a value for, the means `first` and `run_mean` over these scenes, and their `difference` with its interval
        `low` to `high`. A scene without a plan has the score 0 and no sub-metrics.

    Raises:
        MTDriveError: a run holds no planner, or shares no scene or turn with the first.
    """
    turns = {}
    for name, table in tables.items():
        try:
            turns[name] = plans_by_turn(table)
        except MTDriveError as error:
            raise MTDriveError(f"{name} cannot be compared: {error}.") from None
    base, *others = turns
    found = []
    for name in others:
        shared = [turn for turn in turns[base] if turn in turns[name] and turn != LAST]
        same_end = turns[base][LAST].turn.max() == turns[name][LAST].turn.max()
        for turn in shared if same_end else [*shared, LAST]:
            pairs = paired(turns[base][turn], turns[name][turn])
            if pairs.empty:
                raise MTDriveError(f"{name} and {base} share no scene.")
            for family, column, group in _groups(pairs):
                interval = bootstrap_mean((group.run - group.base).to_numpy(), resamples, seed)
                found.append(
                    {
                        "run": name,
                        "turn": turn,
                        "family": family,
                        "column": column,
                        "scenes": len(group),
                        "first": group.base.mean(),
                        "run_mean": group.run.mean(),
                        "difference": interval.mean,
                        "low": interval.low,
                        "high": interval.high,
                    }
                )
    return pd.DataFrame(found)


def paired(base: pd.DataFrame, run: pd.DataFrame) -> pd.DataFrame:
    """One row per scene and column that both tables (see `plans_by_turn`) hold: token, family, column, base, run."""
    columns = [name for name in base.columns if name in run.columns and (name == SCORE or name not in KEY_COLUMNS)]
    shared = base.index.intersection(run.index).sort_values()
    parts = [
        pd.DataFrame(
            {
                "token": shared,
                "family": base.family.loc[shared].to_numpy(),
                "column": column,
                "base": base[column].loc[shared].to_numpy(),
                "run": run[column].loc[shared].to_numpy(),
            }
        ).dropna()
        for column in columns
    ]
    return pd.concat(parts, ignore_index=True)


def _groups(pairs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for column, group in pairs.groupby("column", sort=False):
        yield ALL, str(column), group
        for family, part in group.groupby("family"):
            if family:
                yield str(family), str(column), part


def scene_scores(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Scores of the scenes that all runs have, after the last turn of each: family, a column per run, and `apart`.

    `apart` is the largest difference from the first run. Most apart first; ties by token.
    """
    last = {name: plans_by_turn(table)[LAST] for name, table in tables.items()}
    base = next(iter(last.values()))
    scores = pd.concat({name: rows.score for name, rows in last.items()}, axis=1, join="inner").sort_index()
    scores["apart"] = scores.sub(scores.iloc[:, 0], axis=0).abs().max(axis=1)
    scores.insert(0, "family", base.family)
    return scores.sort_values("apart", ascending=False, kind="stable").rename_axis("token")


def comparison_tables(differences: pd.DataFrame, base: str) -> Iterator[Table]:
    """The differences for the terminal: of the score by turn, and after the last turn by sub-metric and by family."""
    last = differences.turn == differences.groupby("run").turn.transform("last")
    whole, score = differences.family == ALL, differences.column == SCORE
    yield _table(f"score, minus {base}", differences[whole & score], ["run", "turn"])
    if len(metrics := differences[last & whole & ~score]):
        yield _table("sub-metrics after the last turn", metrics, ["run", "column"])
    if len(families := differences[last & ~whole & score]):
        yield _table("score after the last turn, by family", families, ["run", "family"])


def _table(title: str, rows: pd.DataFrame, keys: list[str]) -> Table:
    heads = [Column(head, no_wrap=True) for head in [*keys, "scenes", "first", "run", "difference", "95 % interval"]]
    table = Table(*heads, title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows.itertuples():
        table.add_row(
            *(short_name(str(getattr(row, key))) for key in keys),
            str(row.scenes),
            f"{row.first:.3f}",
            f"{row.run_mean:.3f}",
            f"{row.difference:+.3f}",
            f"{row.low:+.3f} .. {row.high:+.3f}",
        )
    return table
