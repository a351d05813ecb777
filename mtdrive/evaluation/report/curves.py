"""Small charts as SVG, to stand inline in a page."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mtdrive.evaluation.report.data import Panel, Series
from mtdrive.visualization.style import BLUE, GREEN, PURPLE, VERMILLION

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

SIZE = (3.1, 2.15)  # [inch]
INK, MUTED, GRID = "#1c2733", "#5c6975", "#e4e8ec"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE)  # told apart by colour-blind readers
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))  # and in print
XLINK = "http://www.w3.org/1999/xlink"
SMOOTHING = 20  # points; a line of more is drawn pale, with its moving mean in front
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "mtdrive",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def draw(panel: Panel, name: str) -> str:
    """The panel as an `<svg>` element.

    Args:
        panel: what is drawn.
        name: unique in the page; the ids within the element begin with it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        for series, colour, dash in zip(panel.series, COLOURS, DASHES, strict=False):
            _line(axes, series, colour, dash)
        axes.set_xlabel(panel.x_label)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.margins(x=0.02, y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if len(panel.series) > 1:
            axes.legend(
                frameon=False,
                ncols=len(panel.series),
                loc="lower left",
                bbox_to_anchor=(-0.02, 1.0),
                borderaxespad=0,
                handlelength=1.8,
                columnspacing=1.2,
                fontsize=8.5,
            )
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{html.escape(panel.title)}" xmlns:xlink="{XLINK}">',
        svg,
        count=1,
    )


def _line(axes, series: Series, colour: str, dash) -> None:
    if len(series.x) <= SMOOTHING:
        marks = {"marker": "o", "markersize": 3}
        axes.plot(series.x, series.y, color=colour, linestyle=dash, linewidth=1.7, label=series.name, **marks)
        return
    axes.plot(series.x, series.y, color=colour, linewidth=0.8, alpha=0.25)
    axes.plot(series.x, moving_mean(series.y), color=colour, linestyle=dash, linewidth=1.7, label=series.name)


def moving_mean(values: tuple[float, ...]) -> np.ndarray:
    """Centred moving mean (N,) over a tenth of the values (N,), over fewer at the ends."""
    window = 2 * (len(values) // 20) + 1
    return pd.Series(values).rolling(window, center=True, min_periods=1).mean().to_numpy()
