"""Evaluation: rows per turn, bootstrap, differences on the same scenes."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from mtdrive.cli import main
from mtdrive.evaluation.bootstrap import bootstrap_mean
from mtdrive.evaluation.families import read_families
from mtdrive.evaluation.planner_episodes import planner_episodes
from mtdrive.evaluation.rows import PlanRow, as_table, baseline_rows, episode_rows
from mtdrive.evaluation.summary import as_rich_table, summarise
from mtdrive.planner.answer import Parsed
from mtdrive.planner.models import load_planner
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.episode_file import read_episodes
from mtdrive.rollout.multi_turn import Task
from mtdrive.settings import load_settings, planner_settings
from mtdrive.simulation.baselines import constant_velocity_plan
from mtdrive.simulation.errors import MTDriveError
from support.scenes import RoadObject, straight_scene
from support.stores import save_store


def answer(status: TurnStatus, score: float = np.nan) -> Turn:
    nothing = np.zeros(0)
    columns = {} if np.isnan(score) else {"comfort": score}
    return Turn(nothing, nothing, nothing, "", status, 0.0, "", score=score, scores=columns)


def test_a_stopped_episode_keeps_its_plan_and_a_failed_answer_the_one_before():
    answers = (answer(TurnStatus.OK, 0.4), answer(TurnStatus.PARSE_ERROR), answer(TurnStatus.OK, 0.9))
    rows = episode_rows(Episode("a", "", answers, EpisodeStatus.COMPLETED), "", 4)
    assert [row.score for row in rows] == [0.4, 0.4, 0.9, 0.9]
    assert [row.status for row in rows] == ["ok", "parse_error", "ok", "stopped"]
    assert [row.turn for row in rows] == [1, 2, 3, 4]
    never = episode_rows(Episode("a", "", answers[1:2], EpisodeStatus.TRUNCATED), "", 1)[0]
    assert (never.score, never.status, never.columns) == (0.0, "parse_error", {})
    with pytest.raises(RuntimeError, match="scorer"):
        episode_rows(Episode("a", "", (answer(TurnStatus.SCORER_ERROR),), EpisodeStatus.ERROR), "", 3)


def test_bootstrap_interval_is_seeded_and_covers_the_mean():
    values = np.random.default_rng(1).normal(0.6, 0.2, 80)
    interval = bootstrap_mean(values, 4000, seed=3)
    assert interval == bootstrap_mean(values, 4000, seed=3)
    assert interval != bootstrap_mean(values, 4000, seed=4)
    error = values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.01)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.01)


def test_bootstrap_interval_is_that_of_scipy():
    values = np.random.default_rng(1).uniform(size=50)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=999, method="percentile", rng=np.random.default_rng(3))
    ours = bootstrap_mean(values, 999, seed=3)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), rel=1e-12)
    assert bootstrap_mean(values[:1], 999, seed=3).low == values[0]  # scipy refuses a single scene


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


def test_a_summary_says_over_which_rows_each_column_is_a_mean():
    """The score is a mean over all scenes, the sub-metrics over those with a plan."""
    rows = [PlanRow(f"t{index}", "", "planner", 1, "ok", 0.9, {"comfort": 1.0}) for index in range(3)]
    rows.append(PlanRow("t3", "", "planner", 1, "parse_error", 0.0))
    summary = summarise(as_table(rows), 50, seed=0)
    (turn,) = summary["policies"]["planner"]
    assert turn["rows"] == {"score": 4, "comfort": 3}
    shown = Console(width=120)
    with shown.capture() as text:
        shown.print(as_rich_table(summary, "title"))
    assert re.search(r"planner +1 +0.675 .* 4 +1.000 +3 +1", text.get())


def test_baselines_are_scored_as_one_turn():
    rows = baseline_rows(straight_scene(), "plain", ["constant_velocity", "standstill"], "pdms_v1")
    table = as_table(rows)
    assert list(table.policy) == ["constant_velocity", "standstill"]
    assert table.score[0] == pytest.approx(1.0)
    assert table.score[1] < 0.7


@pytest.fixture
def split(tmp_path):
    """Two compiled scenes of a split `test`, with images."""
    image = tmp_path / "sensor_blobs" / "test" / "front.jpg"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (252, 140), "grey").save(image)
    scenes = [
        straight_scene(token="a" * 16),
        straight_scene([RoadObject(24.0)], token="b" * 16, reference_distance=12.0),
    ]
    seen = [replace(scene, camera=replace(scene.camera, image="front.jpg")) for scene in scenes]
    save_store(tmp_path / "scene_cache", "test", *seen)
    return tmp_path


def test_epdms_of_an_evaluation_says_that_extended_comfort_is_not_in_it(split, capsys):
    keys = [f"navsim_exp_root={split}", f"out={split / 'results'}", "resamples=50", "baselines=[human]"]
    for metric, rows in (("epdms_v2", 0), ("pdms_v1", None)):
        assert main(["evaluate", *keys, f"metric={metric}"]) == 0
        summary = json.loads((split / "results" / "summary.json").read_text())
        assert summary["provenance"]["extended_comfort_rows"] == rows
        told = "two-frame extended comfort in none of the scores" in capsys.readouterr().out
        assert told == (metric == "epdms_v2")


def test_feedback_tells_changes_second_by_second_if_asked_to():
    scene = straight_scene([RoadObject(24.0)], reference_distance=12.0)
    plan = constant_velocity_plan(straight_scene(speed=8.0))
    planner = load_planner(planner_settings("tiny"))
    planner = replace(planner, max_new_tokens=2, parse_answer=lambda text: Parsed(plan, None))
    task = Task.from_scene(planner, scene, np.zeros((140, 252, 3), np.uint8))
    keys = {"turns": 1, "metric": "pdms_v1", "source": "privileged", "temperature": 0.0, "batch_size": 1, "seed": 0}
    for steps in (False, True):
        (episode,) = planner_episodes(planner, ["a"], {"a": task}.__getitem__, steps=steps, **keys)
        assert (" by +01.00." in episode.turns[0].feedback_text) == steps


def test_the_verb_scores_baselines_and_a_planner(split, capsys):
    keys = [f"navsim_exp_root={split}", f"openscene_data_root={split}", f"out={split / 'results'}", "resamples=50"]
    (split / "families.csv").write_text(f"token,family\n{'a' * 16},cut_in\n")
    keys.append(f"families={split / 'families.csv'}")
    assert main(["evaluate", *keys, "planner=tiny", "turns=2", "baselines=[human,constant_velocity]"]) == 0
    table = pd.read_csv(split / "results" / "scores.csv")
    assert len(table) == 2 * (2 + 2)
    scores = table.set_index(["token", "policy", "turn"]).score
    assert scores["a" * 16, "constant_velocity", 1] == pytest.approx(1.0)
    assert scores["b" * 16, "constant_velocity", 1] == 0.0
    assert scores["b" * 16, "human", 1] > 0.9
    summary = json.loads((split / "results" / "summary.json").read_text())
    assert summary["provenance"]["feedback"] == "privileged"
    assert summary["policies"]["planner"][1]["scenes"] == 2
    header, episodes = read_episodes(split / "results" / "episodes.jsonl")
    assert (header.planner, str(header.scene_set), header.turns, header.scenes) == ("tiny", "test, all windows", 2, 2)
    assert [(episode.scene_token, episode.family) for episode in episodes] == [("a" * 16, "cut_in"), ("b" * 16, "")]
    assert all(turn.feedback_text for episode in episodes for turn in episode.turns)
    assert "constant_velocity" in capsys.readouterr().out


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(MTDriveError, match="nothing to evaluate"):
        load_settings("evaluate", ["baselines=[]"])
    for name, content in {"families.csv": "token;family\n", "manifest.json": "[1]"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(MTDriveError, match=r"families=.* is neither a CSV"):
            read_families(str(tmp_path / name))


def test_families_come_from_a_table_or_a_worlds_manifest(tmp_path):
    (tmp_path / "families.csv").write_text("token,family\na,cut_in\n")
    (tmp_path / "manifest.json").write_text(json.dumps({"scenes": [{"token": "a", "family": "cut_in"}]}))
    for name in ("families.csv", "manifest.json"):
        assert read_families(str(tmp_path / name)) == {"a": "cut_in"}
