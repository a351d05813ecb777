"""What reinforcement learning puts on every token of a group of episodes, as heat maps beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtdrive.rollout.episode import Episode
from mtdrive.visualization import style

COLOURS = "PuOr"  # diverging, safe for the colour-blind; grey is kept for what has no advantage
DPI = 90


def figure_advantages(episodes: Sequence[Episode], values: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """One heat map per estimator, a row per episode, a column per token after the prompt.

    values: by the estimator's name, for each episode the (n,) advantages of the planner's own tokens, turn after turn.
    Grey tokens are feedback, which is no action; every turn shows its reward.
    """
    figure = Figure(figsize=(10.5, 0.9 + len(values) * (0.75 + 0.27 * len(episodes))), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    maps = {name: [token_row(*pair) for pair in zip(episodes, rows, strict=True)] for name, rows in values.items()}
    top = max((np.nanmax(np.abs(row), initial=0.0) for rows in maps.values() for row in rows), default=0.0) or 1.0
    plots = figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, rows) in zip(plots, maps.items(), strict=True):
        picture = _draw(axes, episodes, rows, top)
        axes.set_title(name, fontsize=style.LARGE, weight="bold", loc="left", **style.TEXT)
    plots[-1].set_xlabel("token after the prompt; grey: feedback, not written by the planner", fontsize=style.NORMAL)
    figure.subplots_adjust(left=0.09, right=0.9, top=1 - 0.4 / figure.get_figheight(), hspace=0.22,
                           bottom=0.5 / figure.get_figheight())  # fmt: skip
    bar = figure.colorbar(picture, ax=list(plots), fraction=0.03, pad=0.02)
    bar.set_label("advantage", fontsize=style.NORMAL)
    bar.ax.tick_params(labelsize=style.SMALL)
    return figure


def token_row(episode: Episode, advantages: np.ndarray) -> np.ndarray:
    """One value per token after the prompt: (L,) NaN for feedback, the advantage for the planner's own tokens.

    advantages: (n,) of the planner's own tokens, turn after turn.
    """
    ends = np.cumsum([len(turn.completion_ids) for turn in episode.turns])
    parts = []
    for number, (turn, values) in enumerate(zip(episode.turns, np.split(advantages, ends[:-1]), strict=True)):
        feedback = len(turn.delta_ids) if number else 0  # the first turn's is the prompt
        parts += [np.full(feedback, np.nan), values]
    return np.concatenate(parts)


def _draw(axes: Axes, episodes: Sequence[Episode], rows: Sequence[np.ndarray], top: float):
    length = max(map(len, rows))
    grid = np.full((len(rows), length), np.nan)
    there = np.zeros((len(rows), length), dtype=bool)
    for index, row in enumerate(rows):
        grid[index, : len(row)], there[index, : len(row)] = row, True
    axes.set_facecolor("white")
    axes.imshow(np.where(there & np.isnan(grid), 1.0, np.nan), cmap="Greys", vmin=0, vmax=4, aspect="auto")
    picture = axes.imshow(grid, cmap=COLOURS, vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    for index, episode in enumerate(episodes):
        end = 0
        for number, turn in enumerate(episode.turns):
            end += (len(turn.delta_ids) if number else 0) + len(turn.completion_ids)
            value = rows[index][end - 1]
            axes.text(end - len(turn.completion_ids) / 2 - 0.5, index, f"reward {turn.reward:.2f}", ha="center",
                      va="center", fontsize=style.SMALL, color="white" if abs(value) > 0.65 * top else style.EGO,
                      family="DejaVu Sans")  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"episode {index + 1}" for index in range(len(rows))], fontsize=style.SMALL)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", axis="y", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.tick_params(axis="x", labelsize=style.SMALL)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return picture
