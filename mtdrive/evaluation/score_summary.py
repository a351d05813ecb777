"""What `mtdrive score` prints: means of the sub-metrics, and how the score is distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from rich.bar import Bar
from rich.table import Table

from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT
from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.submission.scoring import SubmissionScores
from mtdrive.simulation.submission.two_stage import TwoStageScores

EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the bins of the score; exactly 0 and exactly 1 have their own
BAR_WIDTH = 30  # [characters]


def comfort_note(metric: str, known: int, rows: int) -> str:
    """Whether two-frame extended comfort is part of the scores, for titles; empty where the version has none.

    Args:
        metric: score version.
        known: rows in whose score it counts.
        rows: all rows with a score.
    """
    if not score_version(metric).has_extended_comfort:
        return ""
    return f", two-frame extended comfort in {f'{known} of {rows}' if known else 'none of the'} scores"


def summary_tables(columns: Mapping[str, np.ndarray], score: np.ndarray, title: str) -> Iterator[Table]:
    """Tables over the rows with a score: each sub-metric's mean and extremes, and how the score is distributed.

    Args:
        columns: (N,) sub-metrics by name, NaN where a row has none.
        score: (N,), NaN where a row has none.
        title: of the first table.
    """
    known = ~np.isnan(score)
    table = Table(title=title, title_justify="left")
    table.add_column(f"{known.sum()} ok rows")
    for head in ("mean", "share of 1", "share of 0", "rows"):
        table.add_column(head, justify="right")
    for name, values in {**columns, "score": score}.items():
        values = values[known & ~np.isnan(values)]
        cells = [values.mean(), np.mean(values == 1.0), np.mean(values == 0.0)] if len(values) else []
        numbers = [f"{cells[0]:.4f}", f"{cells[1]:.1%}", f"{cells[2]:.1%}"] if cells else ["-"] * 3
        table.add_row(name, *numbers, str(len(values)))
    yield table
    if known.any():
        yield _distribution(score[known])


def _distribution(score: np.ndarray) -> Table:
    table = Table()
    table.add_column("score")
    table.add_column("rows", justify="right")
    table.add_column("", width=BAR_WIDTH)
    inner = score[(score > 0.0) & (score < 1.0)]
    counts = {"0": np.sum(score <= 0.0)}
    for low, high, count in zip(EDGES, EDGES[1:], np.histogram(inner, EDGES)[0], strict=False):
        counts[f"{low:.1f} .. {high:.1f}"] = count
    counts["1"] = np.sum(score >= 1.0)
    for name, count in counts.items():
        table.add_row(name, str(count), Bar(size=len(score), begin=0, end=int(count), width=BAR_WIDTH))
    return table


def two_stage_summary(result: TwoStageScores) -> Table:
    """The means of both stages, and the score that they combine to."""
    table = Table(title=f"two stages: extended PDM score {result.combined:.4f}", title_justify="left")
    table.add_column("mean over the groups")
    for head in ("stage one", "stage two"):
        table.add_column(head, justify="right")
    for name, value in result.stage_one.items():
        table.add_row(name, f"{value:.4f}", f"{result.stage_two[name]:.4f}")
    return table


def extended_comfort_rows(scores: SubmissionScores) -> int | None:
    """In how many scores two-frame extended comfort counts; None where the score version has none."""
    if not score_version(scores.metric).has_extended_comfort:
        return None
    return int((~np.isnan(scores.columns[EXTENDED_COMFORT])).sum())


def means_side_by_side(results: Mapping[str, tuple[SubmissionScores, TwoStageScores | None]]) -> pd.DataFrame:
    """Means of the same plans by different definitions or after different turns: a column for each.

    Rows are the sub-metrics and the score, of both stages where there are two, and how many rows they are means of. A
    column holds numbers of one definition alone. Rows without a score, as of scenes without a plan, are left out of the
    means; `score, 0 without a plan` counts them.
    """
    columns: dict[str, dict[str, float]] = {}
    for name, (scores, stages) in results.items():
        if stages is None:
            means = {column: _mean(values) for column, values in scores.columns.items()} | {
                "score": _mean(scores.score)
            }
            if np.isnan(scores.score).any():
                means["score, 0 without a plan"] = float(np.nan_to_num(scores.score).mean())
        else:
            means = {f"{column}, stage one": value for column, value in stages.stage_one.items()}
            means |= {f"{column}, stage two": value for column, value in stages.stage_two.items()}
            means["extended PDM score"] = stages.combined
        means["rows with a score"] = int((~np.isnan(scores.score)).sum())
        if (comfort := extended_comfort_rows(scores)) is not None:
            means["rows with two-frame extended comfort"] = comfort
        columns[name] = means
    order = dict.fromkeys(row for means in columns.values() for row in means)
    last = [row for row in order if row.startswith(("score", "extended PDM score", "rows"))]
    return pd.DataFrame(columns).reindex([*(row for row in order if row not in last), *last]).rename_axis("mean")


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def means_table(means: pd.DataFrame, title: str) -> Table:
    """What `means_side_by_side` gives, for the terminal."""
    table = Table(title=title, title_justify="left")
    for name in ("mean", *means.columns):
        table.add_column(name, justify="left" if name == "mean" else "right")
    for name, values in means.iterrows():
        form = "{:.0f}" if str(name).startswith("rows") else "{:.4f}"
        table.add_row(str(name), *("-" if np.isnan(value) else form.format(value) for value in values))
    return table
