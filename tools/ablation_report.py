"""Table and plot of an ablation; `python tools/ablation.py --report-only --run ... --out ...` writes them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from mtdrive.evaluation.bootstrap import bootstrap_runs
from mtdrive.evaluation.evaluations import check_one_metric, open_evaluation
from mtdrive.evaluation.report.curves import moving_mean
from mtdrive.evaluation.rows import KEY_COLUMNS, PLANNER
from mtdrive.simulation.metrics.registry import short_name
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.stages.stage import finished_stages
from mtdrive.training.checkpoints import LOG_NAME
from mtdrive.visualization.style import BLACK, BLUE, GREEN, MUTED, ORANGE, PURPLE, SKY_BLUE, VERMILLION

STAGES = "stages"  # folder of the stages in that of a run
RESAMPLES = 4000
BLIND = "turn 1 (blind)"  # no feedback yet: the same with either source
REFERENCE = "mtgrpo"  # that the other arms are compared with
COLOURS = (MUTED, BLACK, ORANGE, BLUE, SKY_BLUE, GREEN, PURPLE, VERMILLION)
MARKS = {"privileged": "o", "perceived": "s", BLIND: "^"}


def write_report(out: Path, arms: Sequence[str], console: Console) -> None:
    """Write scores.csv, report.md and ablation.png of the finished runs under `out`, and print the table."""
    table = read_scores(out, arms)
    if table.empty:
        console.print("No run is finished yet.")
        return
    with atomic_path(out / "scores.csv") as path:
        table.to_csv(path, index=False)
    text = report(table)
    with atomic_path(out / "report.md") as path:
        path.write_text(text)
    with atomic_path(out / "ablation.png") as path, path.open("wb") as file:
        FigureCanvasAgg(draw(table, read_curves(out, arms))).print_png(file)
    console.print(text, markup=False)
    console.print(f"Report: {out / 'report.md'}, {out / 'ablation.png'}, {out / 'scores.csv'}")


def read_scores(out: Path, arms: Sequence[str]) -> pd.DataFrame:
    """Rows of all finished evaluations: `mtdrive evaluate`'s columns, with arm, seed and feedback.

    Raises:
        MTDriveError: they were not scored by one metric.
    """
    evaluations, found = [], []
    for arm in arms:
        for path in sorted((out / arm.replace(" ", "-")).glob("*/*/scores.csv")):
            evaluation, run = path.parent.name, path.parent.parent
            if evaluation in {stage.name for stage in finished_stages(run / STAGES)}:
                evaluations.append(open_evaluation(path.parent))
                found.append(evaluations[-1].table.assign(arm=arm, seed=int(run.name), feedback=evaluation))
    check_one_metric(evaluations)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def read_curves(out: Path, arms: Sequence[str]) -> dict[str, list[pd.DataFrame]]:
    """Training logs of every arm's runs, one row a step."""
    logs = {arm: sorted((out / arm.replace(" ", "-")).glob(f"*/rl/{LOG_NAME}")) for arm in arms}
    return {
        arm: [pd.read_json(path, lines=True).dropna(subset="generated_tokens") for path in paths]
        for arm, paths in logs.items()
        if paths
    }


def matrix(table: pd.DataFrame, arm: str, feedback: str, turn: int, column: str = "score") -> np.ndarray:
    """(runs, scenes) values of a column, of an arm's planner."""
    rows = table[(table.arm == arm) & (table.feedback == feedback) & (table.turn == turn) & (table.policy == PLANNER)]
    return rows.pivot(index="seed", columns="token", values=column).to_numpy()


def cells(table: pd.DataFrame) -> list[tuple[str, str, int]]:
    """(label, feedback source, turn) of what is reported of every arm."""
    turns = sorted(set(table.turn))
    seen = [(f"turn {turn}, {source}", source, turn) for source in MARKS for turn in turns[1:]]
    return [(BLIND, "privileged", 1), *((label, *rest) for label, *rest in seen if rest[0] in set(table.feedback))]


def report(table: pd.DataFrame) -> str:
    """The tables, in Markdown."""
    arms, last = list(dict.fromkeys(table.arm)), int(table.turn.max())
    columns = [name for name in table.columns if name not in (*KEY_COLUMNS, "arm", "seed", "feedback")]
    human = table[table.policy == "human"].groupby("token").score.first().mean()
    start = matrix(table, arms[0], "privileged", last).mean()
    scores, details, against = [], [], []
    for arm in arms:
        values = {label: matrix(table, arm, source, turn) for label, source, turn in cells(table)}
        final = values[f"turn {last}, privileged"]
        row = {"arm": arm, "runs": len(final)}
        row |= {label: cell(value) for label, value in values.items()}
        scores.append(row | {"gap to the human closed": f"{(final.mean() - start) / (human - start):.0%}"})
        means = {name: np.nanmean(matrix(table, arm, "privileged", last, name)) for name in columns}
        details.append({"arm": arm, **{short_name(name): f"{value:.3f}" for name, value in means.items()}})
        if arm != REFERENCE and REFERENCE in arms:
            row = {"arm": arm}
            for label, source, turn in cells(table):
                ours = matrix(table, REFERENCE, source, turn)
                # Paired over scenes; the runs of two arms have nothing in common and are drawn apart.
                row[label] = cell(ours, minus=values[label])
            against.append(row)
    parts = [
        f"Mean PDMS on {table.token.nunique()} test scenes, with 95 % bootstrap intervals over runs and scenes. "
        f"The recorded human scores {human:.3f}.",
        markdown(scores),
        f"Sub-metrics after turn {last} with privileged feedback:",
        markdown(details),
    ]
    if against:
        parts += [f"What {REFERENCE} gains over each arm, on the same scenes:", markdown(against)]
    return "\n\n".join(parts) + "\n"


def cell(values: np.ndarray, minus: np.ndarray | None = None) -> str:
    """Mean of (runs, scenes), less that of others, with its interval; empty where a run is not finished."""
    if not values.size or (minus is not None and not minus.size):
        return ""
    interval = bootstrap_runs(values, RESAMPLES, 0, minus=minus)
    form = ".3f" if minus is None else "+.3f"
    return f"{interval.mean:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def markdown(rows: list[dict]) -> str:
    """A pipe table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(table: pd.DataFrame, curves: dict[str, list[pd.DataFrame]]) -> Figure:
    """Left: held-out scores with intervals; right: what was sampled in training against generated tokens."""
    arms, last = list(dict.fromkeys(table.arm)), int(table.turn.max())
    colours = dict(zip(arms, COLOURS, strict=False))
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
        shown = [
            (BLIND, "privileged", 1),
            *((source, source, last) for source in MARKS if source in set(table.feedback)),
        ]
        for place, arm in enumerate(reversed(arms)):
            for offset, (label, source, turn) in zip((0.22, 0, -0.22), shown, strict=False):
                values = matrix(table, arm, source, turn)
                if not values.size:
                    continue
                found = bootstrap_runs(values, RESAMPLES, 0)
                error = np.maximum([[found.mean - found.low], [found.high - found.mean]], 0.0)
                name = (label if turn == 1 else f"turn {turn}, {label} feedback") if place == 0 else None
                style = {"marker": MARKS[label], "color": colours[arm], "markersize": 5, "capsize": 2}
                style |= {"linestyle": "none", "markerfacecolor": colours[arm] if label == "privileged" else "white"}
                left.errorbar(found.mean, place + offset, xerr=error, label=name, **style)
        human = table[table.policy == "human"].groupby("token").score.first().mean()
        left.axvline(human, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
        left.text(human, 1.0, "human ", transform=left.get_xaxis_transform(), ha="right", va="top", color=MUTED)
        left.set_yticks(range(len(arms)), reversed(arms))
        left.set_xlabel("PDMS on test scenes (95 % bootstrap intervals)")
        left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8, borderaxespad=0)
        for arm, runs in curves.items():
            if arm in colours:
                lines = [sampled(log) for log in runs]
                for tokens, score in lines:
                    right.plot(tokens, score, color=colours[arm], linewidth=0.7, alpha=0.25)
                shared = np.linspace(max(t[0] for t, _ in lines), min(t[-1] for t, _ in lines), 100)
                mean = np.mean([np.interp(shared, *line) for line in lines], axis=0)
                right.plot(shared, mean, color=colours[arm], linewidth=1.8, label=arm)
        right.set_xlabel("generated tokens [million]")
        right.set_ylabel("PDMS of sampled last turns, training scenes")
        right.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8, borderaxespad=0)
    return figure


def sampled(log: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """A run's curve: generated tokens [million], and the smoothed PDMS of its last turns."""
    score = log[max(name for name in log.columns if name.startswith("pdms/turn_"))]
    return log.generated_tokens.to_numpy() / 1e6, np.asarray(moving_mean(tuple(score)))
