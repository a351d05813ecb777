"""What every registered metric promises; a new one needs no more than its module and a line of the registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from string import Formatter

import numpy as np
import pandas as pd
import pytest

from mtdrive.cli import main
from mtdrive.datasets.reader import load_samples
from mtdrive.evaluation.report.cards import scene_card
from mtdrive.evaluation.report.data import ReportData
from mtdrive.evaluation.report.gallery import Choice
from mtdrive.evaluation.report.page import write_report
from mtdrive.evaluation.tables import read_scores
from mtdrive.planner.tiny import tiny_tokenizer
from mtdrive.simulation.baselines import constant_velocity_plan
from mtdrive.simulation.dynamics.state import VELOCITY_X
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.diagnose import diagnose
from mtdrive.simulation.feedback.text import render_text, render_violation
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.registry import VERSIONS
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import OK, Scores, score
from mtdrive.visualization.plan import assessed_plan
from mtdrive.visualization.records import EpisodeRecord, Recording, TurnRecord
from support.scenes import RoadObject, polygons, rectangle, straight_scene

METRICS = [(version, metric) for version in VERSIONS for metric in VERSIONS[version].metrics]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A straight road with a standing car 30 m ahead, and a red light from 60 m on."""
    scene = straight_scene([RoadObject(30.0)], speed=10.0, reference_distance=20.0)
    light = polygons(rectangle(60.0, -1.75, 70.0, 5.25))
    observations = {
        name: replace(
            observation,
            light_ids=np.array(["1"]),
            light_polygons=light,
            light_red=np.ones((len(observation.poses), 1), dtype=bool),
        )
        for name, observation in scene.observations.items()
    }
    return replace(scene, observations=observations)


@pytest.fixture(scope="module")
def plans() -> np.ndarray:
    """(N, 8, 3): gentle braking, and one for each way to go wrong."""
    times = np.arange(1, 9) * 0.5

    def straight(distance: np.ndarray, aside: float = 0.0) -> np.ndarray:
        left = aside * np.clip(distance / 15.0, 0.0, 1.0)
        return np.column_stack([distance, left, np.zeros(8)])

    braking = 10.0 * times - 0.5 * 1.2 * times**2
    return np.stack(
        [
            straight(10.0 * times - 0.5 * 2.4 * times**2),  # stops behind the car
            straight(10.0 * times),  # hits it
            straight(20.0 * times, 3.5),  # past it, fast, in the wrong lane, over the red light
            straight(braking, 6.0),  # off the road
            straight(np.zeros(8)),  # stops at once
        ]
    )


def ids(case: tuple[str, Metric]) -> str:
    return f"{case[0]}-{case[1].column}"


@pytest.mark.parametrize("case", METRICS, ids=ids)
def test_values_and_events_are_as_the_metric_says(case, scene, plans):
    version, metric = case
    scores = score(scene, plans, metric=version)
    values = scores.columns[metric.column]
    assert values.shape == (len(plans),)
    assert values.dtype == np.float64
    assert ((values >= 0.0) & (values <= 1.0)).all()
    assert all(len(scores.events[name]) == len(plans) for name in metric.events)
    assert set(scores.events) == {"states", "reference_progress"}.union(*(m.events for m in VERSIONS[version].metrics))


@pytest.mark.parametrize("case", METRICS, ids=ids)
def test_a_violated_metric_has_one_finding_and_a_sentence(case, scene, plans):
    version, metric = case
    scores = score(scene, plans, metric=version)
    violated = metric.violations(scores)
    assert violated.dtype == bool
    assert violated.any()
    assert not violated.all()
    for row, wrong in enumerate(violated):
        (finding,) = [finding for finding in diagnose(scene, scores, row) if finding.metric == metric.column]
        assert finding.passed is not bool(wrong)
        if wrong:
            sentence = render_violation(finding)
            assert "None" not in sentence
            assert "{" not in sentence


@pytest.mark.parametrize("case", METRICS, ids=ids)
def test_the_tokenizer_knows_every_phrase_of_the_sentence(case):
    tokenizer = tiny_tokenizer()
    phrases = [literal for literal, *_ in Formatter().parse(case[1].sentence) if literal]
    assert [tokenizer.tokenize(phrase) for phrase in (*phrases, *case[1].terms)] == [
        [tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(phrase)[0][0]]
        for phrase in (*phrases, *case[1].terms)
    ]


LIMIT = 9.0  # [m/s]


def speed_limit(motion, surroundings) -> Measurement:
    speeds = motion.states[..., VELOCITY_X]
    over = speeds > LIMIT
    return Measurement(
        np.where(over.any(axis=1), 0.0, 1.0),
        {
            "speeding_time": np.where(over.any(axis=1), over.argmax(axis=1) * 0.1, np.inf),
            "top_speed": speeds.max(axis=1),
        },
    )


def speeding(scene: Scene, scores: Scores, row: int) -> dict:
    time = float(scores.events["speeding_time"][row])
    position = scores.events["states"][row, round(time / 0.1), :2]
    measured = float(scores.events["top_speed"][row])
    return {"time": time, "ego_position": tuple(position.tolist()), "measured": measured, "limit": LIMIT}


SPEED_LIMIT = Metric(
    column="speed_limit_compliance",
    short="SLC",
    label="too fast",
    measure=speed_limit,
    sentence="Too fast at {time}: {measured} exceeds {limit}.",
    rank=15,
    facts=speeding,
    events={"speeding_time": "[s]", "top_speed": "[m/s]"},
)


def report_page(store: SceneStore, table: pd.DataFrame, plan: np.ndarray, path: Path) -> str:
    """A report on the table of an evaluation, with the plan in the first scene as its gallery."""
    scene = store.load(store.tokens[0])
    recording = Recording("", all_windows(scene.split).scene_set, "pdms_v1", "privileged", ())
    episode = EpisodeRecord(scene.token, scene.token, (TurnRecord(plan, "answer"),))
    image = np.zeros((180, 320, 3), dtype=np.uint8)
    card = scene_card(scene, image, Choice(scene.token, "the first"), recording, episode)
    table = table.assign(feedback="", surprise="none")
    write_report(ReportData("A report", "pdms_v1", {}, (), table, (), (card,)), path)
    return path.read_text()


@pytest.fixture
def with_speed_limit(monkeypatch):
    version = VERSIONS["pdms_v1"]
    monkeypatch.setitem(VERSIONS, "pdms_v1", replace(version, metrics=(*version.metrics, SPEED_LIMIT)))


def test_a_new_metric_is_scored_told_drawn_and_learned_from(with_speed_limit, world, tmp_path):
    fast = straight_scene(speed=11.0)
    plan = constant_velocity_plan(fast)
    (assessed,) = assess(fast, plan[None])
    assert assessed.score == 0.0
    assert not assessed.clean
    assert render_text(assessed.feedback).startswith("Too fast at +00.00: +11.00 exceeds +09.00. ")
    assert assessed_plan("plan", plan, assessed).summary == "plan  PDMS 0.00  too fast at 0.0 s"

    where = [*world.overrides(), "split=train"]
    store = SceneStore(world.exp_root / "scene_cache", "train")
    poses = np.stack([constant_velocity_plan(store.load(token)) for token in store.tokens])
    np.savez(tmp_path / "plans.npz", token=np.array(store.tokens), poses=poses, interval_length=0.5)
    scored = tmp_path / "scores.csv"
    assert main(["score", *where, f"trajectories={tmp_path / 'plans.npz'}", f"out={scored}", "workers=1"]) == 0
    compliant = pd.read_csv(scored).speed_limit_compliance
    assert set(compliant) == {0.0, 1.0}

    evaluation = tmp_path / "evaluation"
    assert main(["evaluate", *where, "baselines=[human]", "resamples=10", f"out={evaluation}"]) == 0
    (human,) = json.loads((evaluation / "summary.json").read_text())["policies"]["human"]
    assert "speed_limit_compliance" in human["metrics"]

    row = f'title="speed_limit_compliance">SLC {compliant[0]:.2f}</span>'
    page = report_page(store, read_scores(evaluation / "scores.csv"), poses[0], tmp_path / "report.html")
    assert '<th scope="col"><abbr title="speed_limit_compliance">SLC</abbr></th>' in page
    assert row in page
    assert "SLC speed limit compliance; PDMS = NC · DAC · SLC · (5 EP + 5 TTC + 2 C) / 12." in page

    assert main(["record", *where, "recipe=synthetic", f"out={tmp_path / 'dataset'}", "workers=1"]) == 0
    recorded = load_samples(tmp_path / "dataset")
    assert any("Too fast at " in str(messages) for messages in recorded["messages"])
    assert "speed_limit_compliance" in recorded["issue"]

    pictures = tmp_path / "pictures"
    token = f"token='{store.tokens[0]}'"
    assert main(["visualize", *where, f"trajectories={tmp_path / 'plans.npz'}", token, f"out={pictures}"]) == 0
    assert list(pictures.iterdir())
    assert assessed.status == OK
