"""Evaluation: rows per turn, bootstrap, differences on the same scenes."""

from __future__ import annotations

import numpy as np
import pytest
from factories import straight_scene
from omegaconf import OmegaConf

from mtdrive.commands.evaluate import check, read_families
from mtdrive.evaluation.bootstrap import bootstrap_mean
from mtdrive.evaluation.rows import PlanRow, ScoredAnswer, as_table, baseline_rows, rows_in_force
from mtdrive.evaluation.summary import as_rich_table, summarise
from mtdrive.simulation.errors import MTDriveError


def test_a_stopped_episode_keeps_its_plan_and_a_failed_answer_the_one_before():
    answers = [
        ScoredAnswer("ok", 0.4, {"comfort": 0.0}),
        ScoredAnswer("unparsed", np.nan, None),
        ScoredAnswer("ok", 0.9, {"comfort": 1.0}),
    ]
    rows = rows_in_force("a", "", "planner", answers, 4)
    assert [row.score for row in rows] == [0.4, 0.4, 0.9, 0.9]
    assert [row.status for row in rows] == ["ok", "unparsed", "ok", "stopped"]
    assert [row.turn for row in rows] == [1, 2, 3, 4]
    never = rows_in_force("a", "", "planner", answers[1:2], 1)[0]
    assert (never.score, never.status, never.columns) == (0.0, "unparsed", {})


def test_bootstrap_interval_is_seeded_and_covers_the_mean():
    values = np.random.default_rng(1).normal(0.6, 0.2, 80)
    interval = bootstrap_mean(values, 4000, seed=3)
    assert interval == bootstrap_mean(values, 4000, seed=3)
    assert interval != bootstrap_mean(values, 4000, seed=4)
    error = values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.01)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.01)


def test_differences_are_paired_over_scenes():
    """A constant gain over very different scenes has an interval without width."""
    rows = []
    for index, base in enumerate(np.linspace(0.0, 0.8, 20)):
        token, family = f"t{index}", "odd" if index % 2 else "even"
        rows += [PlanRow(token, family, "planner", turn, "ok", base + 0.1 * turn, {"comfort": 1.0}) for turn in (1, 2)]
        rows.append(PlanRow(token, family, "human", 1, "ok", base, {"comfort": 1.0}))
    summary = summarise(as_table(rows), 500, seed=0)
    gain, over_human = summary["differences"]
    assert (gain["minuend"]["turn"], gain["subtrahend"]["turn"]) == (2, 1)
    assert [gain[key] for key in ("mean", "low", "high")] == pytest.approx([0.1] * 3)
    assert over_human["subtrahend"]["policy"] == "human"
    assert over_human["mean"] == pytest.approx(0.2)
    turns = summary["policies"]["planner"]
    assert turns[1]["score"]["high"] - turns[1]["score"]["low"] > 0.1
    families = {(row["family"], row["policy"], row["turn"]): row["scenes"] for row in summary["families"]}
    assert families["even", "human", 1] == 10
    assert as_rich_table(summary, "title").row_count == 3


def test_baselines_are_scored_as_one_turn():
    rows = baseline_rows(straight_scene(), "plain", ["constant_velocity", "standstill"], "pdms_v1")
    table = as_table(rows)
    assert list(table.policy) == ["constant_velocity", "standstill"]
    assert table.score[0] == pytest.approx(1.0)
    assert table.score[1] < 0.7


def test_bad_requests_are_refused(tmp_path):
    good = {"baselines": ["human"], "feedback": "privileged", "planner": None, "turns": 3, "resamples": 10}
    for key, value in {"baselines": ["robot"], "feedback": "guessed", "turns": 0}.items():
        with pytest.raises(MTDriveError, match=str(value[0] if key == "baselines" else value)):
            check(OmegaConf.create({**good, key: value}))
    (tmp_path / "families.csv").write_text("token;family\n")
    with pytest.raises(MTDriveError, match=r"families=.* is not a CSV"):
        read_families(str(tmp_path / "families.csv"))
