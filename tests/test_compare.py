"""`mtdrive compare`: what it pairs, what it refuses, and the page of the scenes that differ most."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdrive.cli import main
from mtdrive.evaluation.comparison import ALL, SCORE, compare, scene_scores
from mtdrive.evaluation.evaluations import Evaluation, check_comparable, check_one_metric, open_evaluation, short_names
from mtdrive.evaluation.rows import PlanRow, as_table, episode_rows
from mtdrive.rollout.episode import TurnStatus
from mtdrive.rollout.episode_file import read_episodes, write_episodes
from mtdrive.settings import load_settings
from mtdrive.simulation.baselines import BASELINES
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import score

PROVENANCE = {
    "scene_set.name": "navtest",
    "scene_set.data_split": "test",
    "scene_set.filter": "a",
    "metric": "pdms_v1",
    "metric_version": 1,
    "planner": "a",
    "feedback": "privileged",
    "turns": 2,
}


def evaluation(name: str, **changes: object) -> Evaluation:
    return Evaluation(Path(name), {**PROVENANCE, **changes}, pd.DataFrame())


def planner_table(scores: dict[str, list[float]], comfort: float = 1.0) -> pd.DataFrame:
    """Rows of a planner: scores by turn of each scene; a score of 0 is an answer without a plan."""
    return as_table(
        [
            PlanRow(token, f"family_{token[0]}", "planner", turn, "ok", value, {"comfort": comfort} if value else {})
            for token, values in scores.items()
            for turn, value in enumerate(values, 1)
        ]
    )


def test_differences_are_of_the_same_scenes_by_turn_family_and_sub_metric():
    base = planner_table({"a1": [0.2, 0.4], "a2": [0.6, 0.0], "b1": [0.1, 0.1], "c1": [0.5, 0.5]})
    run = planner_table({"b1": [0.1, 0.9], "a2": [0.7, 0.8], "a1": [0.3, 0.5], "d1": [0.0, 0.0]}, comfort=0.5)
    found = compare({"base": base, "run": run}, 200, 0).set_index(["turn", "family", "column"])
    assert found.loc[("1", ALL, SCORE), ["scenes", "first", "run_mean"]].tolist() == pytest.approx([3, 0.3, 1.1 / 3])
    assert found.loc[("2", "family_a", SCORE), "difference"] == pytest.approx((0.1 + 0.8) / 2)
    assert found.loc[("1", "family_a", SCORE), ["difference", "low", "high"]].tolist() == pytest.approx([0.1] * 3)
    assert found.loc[("2", ALL, "comfort"), ["scenes", "difference"]].tolist() == [2, -0.5]  # a2 had no plan
    last = scene_scores({"base": base, "run": run})
    assert last.index.tolist() == ["a2", "b1", "a1"]
    assert last.apart.tolist() == pytest.approx([0.8, 0.8, 0.1])


def test_runs_of_different_lengths_are_compared_where_both_end_as_well():
    found = compare({"one": planner_table({"a": [0.2]}), "two": planner_table({"a": [0.3, 0.9]})}, 50, 0)
    scores = found[(found.family == ALL) & (found.column == SCORE)].set_index("turn").difference
    assert scores.to_dict() == pytest.approx({"1": 0.1, "last": 0.7})


@pytest.mark.parametrize(
    ("key", "value"),
    [("scene_set.data_split", "val"), ("scene_set.filter", "b"), ("metric_version", 2), ("feedback", "perceived")],
)
def test_what_differs_beside_the_planner_is_named_and_refused_unless_allowed(key, value):
    first = evaluation("first")
    check_comparable([first, evaluation("same", planner="b", turns=3)], [])
    with pytest.raises(MTDriveError, match=rf"other has {key} {value} instead of .* as in first; allow=\["):
        check_comparable([first, evaluation("same"), evaluation("other", **{key: value})], [])
    check_comparable([first, evaluation("other", **{key: value})], [key.partition(".")[0]])
    with pytest.raises(MTDriveError, match="allow=colour is no key"):
        check_comparable([first, first], ["colour"])


def test_scores_of_two_metrics_are_never_side_by_side():
    other = evaluation("other", metric="epdms_v2", metric_version=2)
    with pytest.raises(MTDriveError, match=r"other has metric epdms_v2 instead of pdms_v1.*score both by one metric"):
        check_comparable([evaluation("first"), other], ["metric", "metric_version"])
    check_one_metric([evaluation("first"), evaluation("second", planner="b")])
    for changed in (other, evaluation("other", metric_version=2)):
        named = rf"pdms_v1 version 1 in first, {changed.provenance['metric']} version 2 in other"
        with pytest.raises(MTDriveError, match=named):
            check_one_metric([evaluation("first"), changed])


def test_runs_are_called_by_the_ends_of_their_paths():
    assert short_names([Path("x/sft"), Path("x/rl")]) == ["sft", "rl"]
    assert short_names([Path("a/rl/test"), Path("b/rl/test")]) == ["a/rl/test", "b/rl/test"]
    with pytest.raises(MTDriveError, match="different folders"):
        short_names([Path("x"), Path("y/../x")])


def rewritten(folder: Path, out: Path, store: SceneStore, plan_of: Callable) -> Path:
    """The evaluation as if its planner had answered with these plans in every turn."""
    header, episodes = read_episodes(folder / "episodes.jsonl")
    rows, changed = [], []
    for episode in episodes:
        scene = store.load(episode.scene_token)
        poses = plan_of(scene)
        scored = score(scene, poses[None], metric=header.metric)
        columns = {name: float(values[0]) for name, values in scored.columns.items()}
        turns = tuple(
            replace(turn, status=TurnStatus.OK, error=None, poses=poses, score=float(scored.score[0]), scores=columns)
            for turn in episode.turns
        )
        changed.append(replace(episode, turns=turns))
        rows += episode_rows(changed[-1], episode.family, header.turns)
    out.mkdir()
    write_episodes(out / "episodes.jsonl", replace(header, planner=out.name), changed)
    old = pd.read_csv(folder / "scores.csv", dtype={"token": str}, keep_default_na=False)
    pd.concat([as_table(rows), old[old.policy != "planner"]]).to_csv(out / "scores.csv", index=False)
    summary = json.loads((folder / "summary.json").read_text())
    summary["provenance"]["planner"] = out.name
    (out / "summary.json").write_text(json.dumps(summary))
    return out


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory) -> list[Path]:
    """Evaluations of a planner whose answers do not parse, of one that stands still, and of one that drives well."""
    root, store = tmp_path_factory.mktemp("evaluations"), SceneStore(world.exp_root / "scene_cache", "test")
    keys = ["planner=tiny", "planner.max_new_tokens=2", "turns=2", "resamples=50", "baselines=[human]"]
    keys += [f"families={world.data_root / 'manifest.json'}", f"out={root / 'blind'}"]
    assert main(["evaluate", *world.overrides(), *keys]) == 0
    plans = {"still": BASELINES["standstill"], "human": BASELINES["human"]}
    return [root / "blind", *(rewritten(root / "blind", root / name, store, plan) for name, plan in plans.items())]


def test_the_verb_compares_runs_and_shows_the_scenes_that_differ(world, runs, tmp_path, capsys):
    keys = [f"out={tmp_path / 'out'}", "resamples=50", "page=2"]
    assert main(["compare", *map(str, runs), *world.overrides(), *keys]) == 0
    printed = capsys.readouterr().out
    assert "planner: tiny in blind, still in still, human in human" in printed
    found = pd.read_csv(tmp_path / "out" / "differences.csv", keep_default_na=False, dtype={"turn": str})
    human = found[(found.run == "human") & (found.family == "") & (found.column == "score")].set_index("turn")
    table = open_evaluation(runs[2]).table
    assert human.difference["2"] == pytest.approx(table[(table.policy == "planner") & (table.turn == 2)].score.mean())
    assert {"no_at_fault_collisions", "comfort"}.isdisjoint(found.column)  # blind has no plan to pair with
    assert len(pd.read_csv(tmp_path / "out" / "scenes.csv")) == 4
    about = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert about["differing"] == {"planner": ["tiny", "still", "human"]}
    assert about["runs"]["human"]["metric"] == about["metric"] == "pdms_v1"

    page = (tmp_path / "out" / "comparison.html").read_text()
    scenes = [json.loads(text) for text in re.findall(r'id="scene-\d+">(.*?)</script>', page)]
    assert [[turn["name"] for turn in scene["turns"]] for scene in scenes] == [["blind", "still", "human"]] * 2
    assert scenes[0]["turns"][0]["status"] == "parse_error"
    assert scenes[0]["turns"][2]["score"] > 0.5
    assert "blind to human" in page


def test_the_verb_refuses(world, runs, tmp_path, capsys):
    def refused(*arguments: object) -> str:
        assert main(["compare", *map(str, arguments), f"out={tmp_path / 'out'}", "page=0"]) == 2
        return capsys.readouterr().err

    assert "runs" in refused(runs[0])
    assert "is not the folder of an evaluation" in refused(runs[0], tmp_path)
    assert "different folders" in refused(runs[0], runs[0])
    changed = tmp_path / "other"
    changed.mkdir()
    summary = json.loads((runs[1] / "summary.json").read_text())
    summary["provenance"]["feedback"] = "perceived"
    (changed / "summary.json").write_text(json.dumps(summary))
    table = open_evaluation(runs[1]).table
    table.to_csv(changed / "scores.csv", index=False)
    assert "feedback perceived instead of privileged" in refused(runs[0], changed)
    assert main(["compare", str(runs[0]), str(changed), f"out={tmp_path}", "page=0", "allow=[feedback]"]) == 0
    table.loc[table.policy == "human", "score"] -= 0.1
    table.to_csv(changed / "scores.csv", index=False)
    assert "not scored on the same scenes: the plan of human" in refused(runs[0], changed, "allow=[feedback]")
    table[table.policy == "human"].to_csv(changed / "scores.csv", index=False)
    table.score = np.where(table.policy == "human", table.score + 0.1, table.score)
    table[table.policy == "human"].to_csv(changed / "scores.csv", index=False)
    assert "only baselines" in refused(runs[0], changed, "allow=[feedback]")


def test_a_page_needs_images(runs, monkeypatch, capsys):
    monkeypatch.delenv("OPENSCENE_DATA_ROOT", raising=False)
    assert main(["compare", *map(str, runs)]) == 2
    assert "page=0" in capsys.readouterr().err


def test_words_of_the_command_line_are_runs_as_they_are_typed():
    words = ["1e10", "it's, here", "a\\b", "007"]
    assert load_settings("compare", [words[0], "page=0", *words[1:]]).runs == words
    assert load_settings("compare", ["runs=[1e10,007]", "page=0"]).runs == ["1e10", "007"]
    with pytest.raises(MTDriveError, match="Cannot apply split"):
        load_settings("cache", ["split"])
