"""The report: its numbers follow from the table, its verdicts from the intervals, and the page stands alone."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from mtdrive.evaluation.bootstrap import Interval
from mtdrive.evaluation.report.curves import draw, moving_mean
from mtdrive.evaluation.report.data import RL, SFT, Panel, ReportData, SceneCard, Series
from mtdrive.evaluation.report.gallery import choose
from mtdrive.evaluation.report.headline import comparisons, parse_rate, verdict
from mtdrive.evaluation.report.page import duration, signed, size, write_report
from mtdrive.evaluation.rows import STOPPED, UNPARSED
from mtdrive.stages.stage import StageRun
from mtdrive.visualization.turns import DrawnTurn

PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(20)


def plans(policy: str, feedback: str, scores: np.ndarray, status: str = "ok") -> pd.DataFrame:
    """Rows for scores (scenes, turns); every second scene belongs to family "even"."""
    return pd.DataFrame(
        [
            {
                "token": f"{scene:04d}",
                "family": "even_scenes" if scene % 2 == 0 else "odd_scenes",
                "policy": policy,
                "feedback": feedback,
                "turn": turn + 1,
                "surprise": "none",
                "status": status,
                "score": score,
                "ego_progress": score,
            }
            for scene, row in enumerate(scores)
            for turn, score in enumerate(row)
        ]
    )


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    start = rng.uniform(0.2, 0.6, (40, 1))
    return pd.concat(
        [
            plans(SFT, "privileged", start + np.array([0.0, 0.05])),
            plans(RL, "privileged", start + np.array([0.1, 0.3]) + rng.normal(0, 0.02, (40, 2))),
            plans(RL, "perceived", start + rng.normal(0, 0.02, (40, 2))),
            plans("human", "", np.full((40, 1), 0.95)),
        ],
        ignore_index=True,
    )


def report(table: pd.DataFrame) -> ReportData:
    line = Series("turn 1", tuple(range(50)), tuple(np.linspace(0, 1, 50)))
    turn = DrawnTurn("[PT, <b>", "ok", 0.5, {"ego_progress": 0.5}, "Too slow & late.")
    return ReportData(
        title="A run",
        metric="pdms_v1",
        facts={"Seed": "7"},
        stages=(StageRun("synth", "mtdrive synth out=world", 75.0, 3 * 2**30),),
        table=table,
        panels=(Panel("rl", "Score", "step", (line,), "Mean."), Panel("sft", "Loss", "step", (line,), "Mean.")),
        cards=(SceneCard("0001", "odd_scenes", "gained most", PIXEL, PIXEL, (turn,)),),
    )


class Page(HTMLParser):
    """Collects what the page refers to and its ids, and checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.text = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[key] for key in ("href", "src", "xlink:href") if key in values]
        assert tag != "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_data(self, data):
        self.text.append(data)


def test_comparisons_pair_scenes_and_take_the_last_turn(table):
    against_sft, turns, perceived = comparisons(table.sample(frac=1.0, random_state=1))
    rl, sft = (
        table[(table.policy == policy) & (table.feedback == "privileged") & (table.turn == 2)].score.mean()
        for policy in (RL, SFT)
    )
    assert against_sft.difference.mean == pytest.approx(rl - sft)
    assert (against_sft.before, against_sft.after) == (pytest.approx(sft), pytest.approx(rl))
    assert against_sft.difference.high - against_sft.difference.low < 0.02  # paired: the scenes' own spread cancels
    assert "rises" in against_sft.sentence
    assert "rises" in turns.sentence
    assert "40 held-out scenes" in turns.sentence
    assert "does not clearly change" in perceived.sentence


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.2, "rises"), (-0.2, -0.01, "falls"), (-0.1, 0.1, "does not clearly change"), (0.0, 0.1, "does not")],
)
def test_a_verdict_says_no_more_than_the_interval(low, high, said):
    assert verdict(Interval((low + high) / 2, low, high)).startswith(said)


def test_parse_rate_counts_answers_that_were_given():
    table = pd.concat(
        [
            plans(SFT, "privileged", np.ones((7, 1))),
            plans(SFT, "privileged", np.zeros((2, 1)), UNPARSED),
            plans(SFT, "privileged", np.ones((5, 1)), STOPPED),
            plans(SFT, "perceived", np.ones((1, 1)), "invalid_trajectory"),
            plans(RL, "privileged", np.zeros((4, 1)), UNPARSED),
        ]
    )
    assert parse_rate(table, SFT) == (8, 10)


def test_gallery_shows_gains_losses_and_every_family():
    change = np.array([0.5, -0.4, 0.0, 0.3, -0.1, 0.001, 0.2, 0.0, 0.1, 0.05, 0.04, 0.03])
    table = plans(RL, "privileged", np.column_stack([np.full(12, 0.4), 0.4 + change]))
    table["family"] = np.repeat(list("aaaabbbbccde"), 2)
    chosen = choose(table.sample(frac=1.0, random_state=3))
    by_reason = {reason: [c.token for c in chosen if c.reason == reason] for reason in {c.reason for c in chosen}}
    assert by_reason["gained most"] == ["0000", "0006", "0008", "0010"]  # one of each family first
    assert by_reason["lost most"] == ["0001", "0004"]
    assert by_reason["unchanged, lowest score"] == ["0002", "0007", "0005"]
    assert by_reason["median of its family"] == ["0011"]
    assert len({choice.token for choice in chosen}) == len(chosen)


def test_page_stands_alone_and_shows_the_numbers(table, tmp_path):
    path = tmp_path / "report.html"
    write_report(report(table), path)
    text = path.read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)
    words = " ".join(" ".join(page.text).split())
    found = comparisons(table)[0]
    assert signed(found.difference.mean) in words
    assert found.sentence in words
    for expected in (
        "Odd scenes",
        "Recorded human driver",
        "0.950",
        "[PT, <b>",
        "Too slow & late.",
        "1 min 15 s",
        "3.00 GiB",
        "PDMS = NC · DAC · (5 EP + 5 TTC + 2 C) / 12.",
    ):
        assert expected in words, expected
    assert [name.name for name in tmp_path.iterdir()] == ["report.html"]


def test_page_without_planners_shows_the_baselines(table, tmp_path):
    bare = ReportData("A run", "pdms_v1", {}, (), table[table.policy == "human"], (), ())
    write_report(bare, tmp_path / "report.html")
    assert "Recorded human driver" in (tmp_path / "report.html").read_text()


def test_charts_keep_their_ids_apart_and_their_text_as_text():
    panel = report(pd.DataFrame()).panels[0]
    first, second = (set(re.findall(r'id="([^"]+)"', draw(panel, name))) for name in ("a", "b"))
    assert first
    assert not first & second
    assert ">step</text>" in draw(panel, "a")


def test_moving_mean_keeps_constants_and_averages_noise():
    assert moving_mean((2.0,) * 60) == pytest.approx(np.full(60, 2.0))
    noise = np.tile([0.0, 1.0], 100)
    assert np.abs(moving_mean(tuple(noise))[20:-20] - 0.5).max() < 0.05


def test_units():
    assert [duration(s) for s in (4.4, 61, 3725)] == ["4 s", "1 min 01 s", "1 h 02 min"]
    assert [size(b) for b in (5 * 2**20, 1.5 * 2**30)] == ["5 MiB", "1.50 GiB"]
    assert signed(-0.5) == "−0.500"
