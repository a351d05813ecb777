"""The conversation of an episode as a column of text: each turn's answer, its score in bars, and its feedback."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mtdrive.simulation.metrics.registry import short_name
from mtdrive.visualization import style
from mtdrive.visualization.turns import FAULT, DrawnTurn

WIDTH = 4.3  # [in], of the column
LINE, GAP = 0.145, 0.24  # [in] between lines of small print, and between turns
BAR_LINE = 0.165  # [in]
ANSWER, FEEDBACK = 84, 84  # characters in a line
HEAD, TAIL = 62, 52  # characters of an answer that are kept


def draw_conversation(axes: Axes, turns: Sequence[DrawnTurn], name: str) -> None:
    """Fill axes WIDTH inches wide; name: of the score, such as "PDMS"."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "A conversation is drawn into the axes of a figure."
    height = axes.get_window_extent().height / figure.dpi
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    top = 0.0
    for number, turn in enumerate(turns, start=1):
        top = _draw_turn(axes, turn, number, name, top) + GAP


def conversation_height(turns: Sequence[DrawnTurn]) -> float:
    """[in] that the column takes."""
    return sum(_height(turn) + GAP for turn in turns)


def abbreviated(text: str) -> str:
    """A text on one line, without its middle if it is long."""
    text = " ".join(text.split())
    return text if len(text) <= HEAD + TAIL + 3 else f"{text[:HEAD].rstrip(' ,')} … {text[-TAIL:].lstrip(' ,')}"


def _answer(turn: DrawnTurn) -> list[str]:
    return textwrap.wrap(abbreviated(turn.answer), ANSWER)


def _feedback(turn: DrawnTurn) -> list[str]:
    return textwrap.wrap(f"Told: {turn.feedback}", FEEDBACK) if turn.feedback else []


def _height(turn: DrawnTurn) -> float:
    lines = len(_answer(turn)) + len(_feedback(turn))
    return 0.3 + BAR_LINE * math.ceil(len(turn.columns) / 2) + LINE * lines + 0.12


def _draw_turn(axes: Axes, turn: DrawnTurn, number: int, name: str, top: float) -> float:
    """Draw one turn from `top` [in] down; returns where it ends."""
    colour = turn.colour or style.FAINT
    height = _height(turn)
    axes.add_patch(Rectangle((0, top), 0.045, height, color=colour, linewidth=0))
    text: dict[str, Any] = {"va": "center", **style.TEXT}
    y = top + 0.1
    badge = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colour, "linewidth": 1.6}
    axes.text(0.22, y, str(number), ha="center", fontsize=style.SMALL, bbox=badge, **text)
    axes.text(0.4, y, f"Turn {number}", fontsize=style.NORMAL, weight="bold", **text)
    scored = math.isfinite(turn.score)
    value = f"{name} {turn.score:.2f}" if scored else turn.status.replace("_", " ")
    axes.text(WIDTH, y, value, ha="right", fontsize=style.NORMAL, weight="bold", **text)
    y += 0.23
    for index, (column, part) in enumerate(turn.columns.items()):
        left = 0.12 + (index % 2) * 2.13
        _draw_bar(axes, short_name(column), part, colour, left, y + (index // 2) * BAR_LINE)
    y += BAR_LINE * math.ceil(len(turn.columns) / 2) + (0.04 if turn.columns else 0)
    for line in _answer(turn):
        axes.text(
            0.12, y, line, fontsize=6.3, family="DejaVu Sans Mono", va="center", color=style.MUTED, parse_math=False
        )
        y += LINE
    for line in _feedback(turn):
        axes.text(0.12, y + 0.02, line, fontsize=style.SMALL, **text)
        y += LINE
    return top + height


def _draw_bar(axes: Axes, label: str, value: float, colour: str, left: float, y: float) -> None:
    """A bar of full length for 1, with its name before and its value behind it; faults in bold and in colour."""
    start, length, thick = left + 0.34, 1.25, 0.085
    fault = value < FAULT
    axes.text(left, y, label, fontsize=6.8, va="center", **style.TEXT)
    axes.add_patch(Rectangle((start, y - thick / 2), length, thick, color=style.TRACK, linewidth=0))
    axes.add_patch(Rectangle((start, y - thick / 2), length * value, thick, color=colour, linewidth=0))
    colour = style.VIOLATION_TEXT if fault else style.TEXT["color"]
    axes.text(start + length + 0.05, y, f"{value:.2f}", fontsize=6.8, va="center", family="DejaVu Sans",
              weight="bold" if fault else "normal", color=colour)  # fmt: skip
