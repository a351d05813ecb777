"""A report as one HTML file that stands alone: no script, every picture inside."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mtdrive import visualization
from mtdrive.evaluation.bootstrap import Interval, bootstrap_mean
from mtdrive.evaluation.report import curves, headline
from mtdrive.evaluation.report.data import RL, SFT, ReportData
from mtdrive.evaluation.report.headline import RESAMPLES, SEED, Plans
from mtdrive.evaluation.rows import KEY_COLUMNS, OK, STOPPED
from mtdrive.evaluation.summary import counts
from mtdrive.simulation.metrics.registry import all_metrics, score_version, short_name
from mtdrive.simulation.runtime.files import atomic_path

FOLDER = Path(__file__).parent
PAGE_STYLE = Path(visualization.__file__).parent / "page.css"
BASELINE_NAMES = {
    "human": "Recorded human driver",
    "pdm_closed": "PDM-Closed (rule-based, knows the map)",
    "constant_velocity": "Constant velocity",
    "standstill": "Standstill",
}

SURPRISE_NAMES = {
    "none": "Nothing hidden at t0",
    "close_call": "A hidden danger, close call",
    "collision": "A hidden danger, collision",
}


@dataclass(frozen=True)
class Row:
    """One line of the evaluation table: a policy after one turn."""

    policy: str
    """Name of the policy as the page shows it."""
    turn: int
    """1, 2, ...; 0 for a baseline."""
    last: bool
    """Whether it is a planner's last turn."""
    score: Interval
    """Mean score."""
    scenes: int
    """Scenes that the score is a mean of; 0 counts where there is no plan."""
    metrics: dict[str, float]
    """Mean sub-metrics by column."""
    plans: str
    """How many plans the sub-metrics are means of."""
    failed: float
    """Share of the turn's answers that gave no plan."""


@dataclass(frozen=True)
class GroupRow:
    """Mean scores in one group of scenes, with privileged feedback."""

    name: str
    """What the scenes of the group have in common."""
    scenes: int
    """How many scenes it has."""
    sft: float
    """Mean score of SFT's last turn."""
    first: float
    """Mean score of RL's first turn."""
    last: float
    """Mean score of RL's last turn."""
    change: Interval
    """From SFT's last turn to RL's, on the same scenes."""


@dataclass(frozen=True)
class Axis:
    """The axis of the small pictures of intervals in tables."""

    low: float
    """Value at its left end."""
    high: float
    """Value at its right end."""
    length: int = 130
    """[px]"""

    def at(self, value: float) -> float:
        """Where a value stands [px]."""
        return round(self.length * (value - self.low) / (self.high - self.low), 1)

    @property
    def label(self) -> str:
        """Its range, to head a column."""
        return f"{self.low:.1f} to {self.high:.1f}".replace("-", "−")


def write_report(data: ReportData, path: Path) -> None:
    """Write the page."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=score, signed=signed, percent=percent, duration=duration, size=size, picture=picture, title=family_title
    )
    metrics = [column for column in data.table.columns if column not in {*KEY_COLUMNS, "feedback", "surprise"}]
    scenes = data.table.token.nunique()
    groups = evaluation_groups(data.table, metrics)
    families, surprises = group_rows(data.table, "family"), group_rows(data.table, "surprise")
    page = environment.get_template("page.html").render(
        data=data,
        style=Markup(PAGE_STYLE.read_text() + (FOLDER / "style.css").read_text()),
        scenes=scenes,
        comparisons=headline.comparisons(data.table),
        parsed=headline.parse_rate(data.table, SFT),
        panels={
            stage: [
                (panel, Markup(curves.draw(panel, f"{stage}{index}")))
                for index, panel in enumerate(data.panels)
                if panel.stage == stage
            ]
            for stage in ("sft", "rl")
        },
        groups=groups,
        metrics=metrics,
        short=short_name,
        score_title=score_version(data.metric).title,
        is_metric=all_metrics().__contains__,
        families=families,
        surprises=surprises,
        surprise_names=SURPRISE_NAMES,
        abbreviations=abbreviations(data.metric),
        formula=formula(data.metric),
        score_axis=axis_of([row.score for _, rows in groups for row in rows]),
        change_axis=axis_of([row.change for row in (*families, *surprises)]),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def evaluation_groups(table: pd.DataFrame, metrics: list[str]) -> list[tuple[str, list[Row]]]:
    """The evaluation table in groups: planners with privileged and perceived feedback, then baselines."""
    groups = []
    for feedback, heading in (
        ("privileged", "Planner, feedback from the log's own future (privileged)"),
        ("perceived", "Planner, feedback from what is known at t0 (perceived)"),
        ("", "Baselines, no feedback"),
    ):
        rows = []
        for policy, turns in table[table.feedback == feedback].groupby("policy", sort=False):
            for turn, group in turns.groupby("turn"):
                answers = group[group.status != STOPPED]
                rows.append(
                    Row(
                        policy=BASELINE_NAMES.get(policy, policy),
                        turn=int(turn) if feedback else 0,
                        last=bool(feedback) and turn == turns.turn.max(),
                        score=bootstrap_mean(group.score.to_numpy(), RESAMPLES, SEED),
                        scenes=len(group),
                        metrics={name: float(group[name].mean()) for name in metrics},
                        plans=counts(int(group[name].notna().sum()) for name in metrics),
                        failed=float((answers.status != OK).mean()) if len(answers) else 0.0,
                    )
                )
        if rows:
            groups.append((heading, rows))
    return groups


def group_rows(table: pd.DataFrame, column: str) -> list[GroupRow]:
    """Groups by a column, in the order of the change, privileged feedback; empty if SFT or RL is missing."""
    rows = []
    for name, group in table.groupby(column):
        sft, first, last = (
            headline.scores(group, Plans(policy, "privileged", turn)) for policy, turn in ((SFT, -1), (RL, 1), (RL, -1))
        )
        if len(sft) and len(last):
            change = bootstrap_mean((last - sft).to_numpy(), RESAMPLES, SEED)
            rows.append(GroupRow(name, len(last), sft.mean(), first.mean(), last.mean(), change))
    return sorted(rows, key=lambda row: -row.change.mean)


def abbreviations(metric: str) -> str:
    """What the short names of a score version's metrics stand for."""
    return ", ".join(f"{m.short} {m.column.replace('_', ' ')}" for m in score_version(metric).metrics)


def formula(metric: str) -> str:
    """How a score version combines its metrics, two-frame extended comfort left out."""
    version = score_version(metric)
    factors = [m.short for m in version.metrics if m.weight is None]
    weighted = [(m.weight, m.short) for m in version.metrics if m.weight]
    mean = f"({' + '.join(f'{weight:g} {name}' for weight, name in weighted)})"
    return f"{version.title} = {' · '.join([*factors, mean])} / {sum(weight for weight, _ in weighted):g}"


def axis_of(intervals: list[Interval]) -> Axis:
    """The narrowest axis with ends at multiples of 0.1 that holds all intervals."""
    low = min((interval.low for interval in intervals), default=0.0)
    high = max((interval.high for interval in intervals), default=1.0)
    return Axis(math.floor(10 * low) / 10, max(math.ceil(10 * high), math.floor(10 * low) + 1) / 10)


def score(value: float) -> str:
    """With three digits; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """With three digits, always with a sign, and a true minus."""
    return f"{value:+.3f}".replace("-", "−")


def percent(share: float) -> str:
    """A share in percent, with one digit."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """A time [s] in hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def picture(data: bytes) -> str:
    """An encoded PNG or JPEG as a data URL."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def family_title(family: str) -> str:
    """The name of a family of scenes, to head a card."""
    return family.replace("_", " ").capitalize() if family else "No family"
