"""Mean scores by policy and turn with bootstrap intervals, and differences on the same scenes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE
from rich.table import Column, Table

from mtdrive.evaluation.bootstrap import bootstrap_mean
from mtdrive.evaluation.rows import KEY_COLUMNS, OK, STOPPED
from mtdrive.simulation.metrics.registry import short_name

ROWS = "rows: scenes that the score, and plans that the sub-metrics are means of; a scene without a plan scores 0"


def summarise(table: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """Aggregate a table of rows (see `rows.as_table`) into a summary that can be written as JSON.

    `policies`: per policy and turn the number of scenes, the mean `score` with its interval, the means of the
    sub-metrics, over how many rows (`rows`) each of these is a mean, and how often each status occurred. A scene
    without a plan that could be scored counts 0 in the score and is no row of a sub-metric. `differences`: the last
    turn of each policy minus its first turn, and of the policy with most turns minus each other policy. `families`:
    mean score per family.
    """
    metrics = [column for column in table.columns if column not in KEY_COLUMNS]
    policies: dict[str, list[dict[str, Any]]] = {}
    for (policy, turn), group in table.groupby(["policy", "turn"], sort=False):
        policies.setdefault(policy, []).append(
            {
                "turn": int(turn),
                "scenes": len(group),
                "score": asdict(bootstrap_mean(group.score.to_numpy(), resamples, seed)),
                "metrics": {name: float(group[name].mean()) for name in metrics if group[name].notna().any()},
                "rows": {name: int(group[name].notna().sum()) for name in ("score", *metrics)},
                "status": group.status.value_counts().to_dict(),
            }
        )
    families = table.groupby(["family", "policy", "turn"], sort=False).score.agg(["mean", "size"]).reset_index()
    return {
        "policies": policies,
        "differences": _differences(table, resamples, seed),
        "families": [
            {"family": row.family, "policy": row.policy, "turn": int(row.turn), "score": row.mean_, "scenes": row.size_}
            for row in families.rename(columns={"mean": "mean_", "size": "size_"}).itertuples()
            if row.family
        ],
    }


def _differences(table: pd.DataFrame, resamples: int, seed: int) -> list[dict[str, Any]]:
    scores = table.pivot(index="token", columns=["policy", "turn"], values="score")
    last = table.groupby("policy", sort=False).turn.max()
    pairs = [((policy, turn), (policy, 1)) for policy, turn in last.items() if turn > 1]
    longest = last.idxmax()
    if last[longest] > 1:
        pairs += [((longest, last[longest]), (policy, turn)) for policy, turn in last.items() if policy != longest]
    return [
        {
            "minuend": {"policy": a[0], "turn": int(a[1])},
            "subtrahend": {"policy": b[0], "turn": int(b[1])},
            **asdict(bootstrap_mean((scores[a] - scores[b]).to_numpy(), resamples, seed)),
        }
        for a, b in pairs
    ]


def as_rich_table(summary: dict[str, Any], title: str) -> Table:
    """The summary's policies as a table for the terminal."""
    names = list(dict.fromkeys(name for turns in summary["policies"].values() for t in turns for name in t["metrics"]))
    heads = ["policy", "turn", "score", "95 % interval", "rows", *map(short_name, names), "rows", "failed"]
    table = Table(
        *(Column(head, no_wrap=True) for head in heads), title=title, caption=ROWS, box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for policy, turns in summary["policies"].items():
        for turn in turns:
            score = turn["score"]
            failed = sum(count for status, count in turn["status"].items() if status not in (OK, STOPPED))
            table.add_row(
                policy,
                str(turn["turn"]),
                f"{score['mean']:.3f}",
                f"{score['low']:.3f} .. {score['high']:.3f}",
                str(turn["rows"]["score"]),
                *(f"{turn['metrics'].get(name, np.nan):.3f}" for name in names),
                counts(turn["rows"][name] for name in names),
                str(failed),
            )
    return table


def counts(rows: Iterable[int]) -> str:
    """Over how many rows several columns are means: one number where it is the same for all."""
    return " to ".join(map(str, dict.fromkeys((min(found), max(found))))) if (found := list(rows)) else "0"


def difference_lines(summary: dict[str, Any]) -> list[str]:
    """The differences as lines of text."""
    return [
        f"{d['minuend']['policy']} turn {d['minuend']['turn']} minus {d['subtrahend']['policy']} "
        f"turn {d['subtrahend']['turn']}: {d['mean']:+.3f} ({d['low']:+.3f} .. {d['high']:+.3f})"
        for d in summary["differences"]
    ]
