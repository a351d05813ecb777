"""tools/ablation.py: its report on made-up runs, and intervals over runs and scenes."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mtdrive.evaluation.bootstrap import bootstrap_runs
from mtdrive.settings import load_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.stages.stage import Stage

TOOLS = str(Path(__file__).parent.parent / "tools")
SCENES, TURNS = 40, 3
LEVEL = {"sft": 0.5, "mtgrpo": 0.8, "multi-turn grpo": 0.7}


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    yield importlib.import_module("ablation")
    sys.modules.pop("ablation"), sys.modules.pop("ablation_report")


def mark(folder: Path, name: str, done: bool) -> None:
    """The marker of a stage of a run."""
    (folder / "stages").mkdir(exist_ok=True)
    marker = {"fingerprint": "", "done": done, "name": name, "command": "", "seconds": 1.0, "peak_memory": 1}
    (folder / "stages" / f"{name}.json").write_text(json.dumps(marker))


def write_run(out: Path, arm: str, seed: int, metric: str = "pdms_v1") -> None:
    """What the evaluations and the training of one run leave: scores rise by 0.05 a turn, with privileged feedback."""
    folder = out / arm.replace(" ", "-") / str(seed)
    for source in ("privileged", "perceived"):
        rows = [
            {
                "token": f"scene{scene}",
                "family": "",
                "policy": policy,
                "turn": turn,
                "status": "ok",
                "score": 1.0 if policy == "human" else LEVEL[arm] + 0.05 * (turn - 1) * (source == "privileged"),
                "comfort": 1.0,
            }
            for scene in range(SCENES)
            for policy, turns in (("human", 1), ("planner", TURNS))
            for turn in range(1, turns + 1)
        ]
        (folder / source).mkdir(parents=True)
        pd.DataFrame(rows).to_csv(folder / source / "scores.csv", index=False)
        provenance = {"metric": metric, "metric_version": 1}
        (folder / source / "summary.json").write_text(json.dumps({"provenance": provenance}))
        mark(folder, source, done=True)
    if arm != "sft":
        (folder / "rl").mkdir()
        log = [{"step": s, "generated_tokens": 100 * s, "pdms/turn_3": 0.6} for s in range(1, 30)]
        (folder / "rl" / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in [*log, {"step": 30}]))


def test_the_report_says_what_each_arm_reaches_and_what_mtgrpo_gains(ablation, tmp_path):
    for arm in LEVEL:
        for seed in range(1 if arm == "sft" else 2):
            write_run(tmp_path, arm, seed)
    for run in ("mtgrpo/1", "multi-turn-grpo/0", "multi-turn-grpo/1"):
        mark(tmp_path / run, "perceived", done=False)
    ablation.write_report(tmp_path, list(ablation.ARMS), Console(quiet=True))
    text = (tmp_path / "report.md").read_text()
    assert "| sft | 1 | 0.500 (0.500 to 0.500) | 0.550 (0.550 to 0.550) | 0.600 (0.600 to 0.600) |" in text
    assert "| mtgrpo | 2 | 0.800 (0.800 to 0.800) |" in text
    assert "| 0.900 (0.900 to 0.900) | 0.800 (0.800 to 0.800) | 0.800 (0.800 to 0.800) | 75% |" in text
    assert "| multi-turn grpo | +0.100 (+0.100 to +0.100) |" in text
    assert (tmp_path / "ablation.png").stat().st_size > 10_000
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores[(scores.arm == "mtgrpo") & (scores.feedback == "perceived")].seed) == {0}


def test_runs_scored_by_different_metrics_do_not_stand_in_one_report(ablation, tmp_path):
    write_run(tmp_path, "sft", 0)
    write_run(tmp_path, "mtgrpo", 0, "epdms_v2")
    with pytest.raises(MTDriveError, match=r"pdms_v1 version 1 in .*sft/0/perceived, epdms_v2 version 1 in .*mtgrpo"):
        ablation.write_report(tmp_path, list(ablation.ARMS), Console(quiet=True))
    assert not (tmp_path / "report.md").exists()


def test_what_is_finished_is_not_run_again_and_other_settings_are_refused(ablation, tmp_path):
    stage = Stage("rl", "score", ("--help",), tmp_path / "rl", "before")
    with only_run_in(tmp_path) as lock:
        ablation.run_stages([stage], tmp_path, lock)
        stage.result.mkdir()
        unable = replace(stage, verb="nothing")
        ablation.run_stages([unable], tmp_path, lock)  # is done: with the same settings it is not run
        with pytest.raises(MTDriveError, match="have changed; choose another --out"):
            ablation.run_stages([replace(unable, fingerprint="after")], tmp_path, lock)
    assert stage.result.exists()
    stage.result.rmdir()
    with pytest.raises(MTDriveError, match="nothing"):
        ablation.run_stages([unable], tmp_path, None)


def test_every_arm_generates_the_same_number_of_tokens_from_the_same_planner(ablation, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENSCENE_DATA_ROOT", "data")
    trained = [arm for arm in ablation.ARMS if arm != "sft"]
    preset = ablation.PRESETS["cpu-night"]
    runs = [ablation.plan(tmp_path / "sft", tmp_path / arm, arm, 1, preset, steps=True) for arm in trained]
    assert all("feedback_steps=true" in stage.overrides for stages in runs for stage in stages)
    configs = [load_settings(stages[0].verb, list(stages[0].overrides)) for stages in runs]
    assert {config.max_generated_tokens for config in configs} == {preset.tokens}
    assert {config.planner.model for config in configs} == {str(tmp_path / "sft")}
    assert len({(config.estimator, config.turns) for config in configs}) == len(trained)


def test_intervals_cover_runs_as_well_as_scenes():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, (4, 50)) + np.array([[0.0], [0.1], [0.2], [0.3]])
    across = bootstrap_runs(values, 2000, 0)
    assert across.low < 0.58 < across.mean < 0.72 < across.high  # four runs that differ say little
    one = bootstrap_runs(values[:1], 2000, 0)
    assert one.high - one.low < 0.1
    paired = bootstrap_runs(values[:1] + 1.0, 2000, 0, minus=values[:1])
    assert (paired.low, paired.high) == pytest.approx((1.0, 1.0))
