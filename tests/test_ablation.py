"""tools/ablation.py: its report on made-up runs, and intervals over runs and scenes."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mtdrive.evaluation.bootstrap import bootstrap_runs

TOOLS = str(Path(__file__).parent.parent / "tools")
SCENES, TURNS = 40, 3
LEVEL = {"sft": 0.5, "mtgrpo": 0.8, "multi-turn grpo": 0.7}


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    yield importlib.import_module("ablation")
    sys.modules.pop("ablation"), sys.modules.pop("ablation_report")


def write_run(out: Path, arm: str, seed: int) -> None:
    """What the evaluations and the training of one run leave: scores rise by 0.05 a turn, with privileged feedback."""
    folder = out / arm.replace(" ", "-") / str(seed)
    for source in ("privileged", "perceived"):
        rows = [
            {
                "token": f"scene{scene}",
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
        (folder / f"{source}.json").write_text(json.dumps({"done": True}))
    if arm != "sft":
        (folder / "rl").mkdir()
        log = [{"step": s, "generated_tokens": 100 * s, "pdms/turn_3": 0.6} for s in range(1, 30)]
        (folder / "rl" / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in [*log, {"step": 30}]))


def test_the_report_says_what_each_arm_reaches_and_what_mtgrpo_gains(ablation, tmp_path):
    for arm in LEVEL:
        for seed in range(1 if arm == "sft" else 2):
            write_run(tmp_path, arm, seed)
    for run in ("mtgrpo/1", "multi-turn-grpo/0", "multi-turn-grpo/1"):
        (tmp_path / run / "perceived.json").write_text(json.dumps({"done": False}))
    ablation.write_report(tmp_path, list(ablation.ARMS), Console(quiet=True))
    text = (tmp_path / "report.md").read_text()
    assert "| sft | 1 | 0.500 (0.500 to 0.500) | 0.550 (0.550 to 0.550) | 0.600 (0.600 to 0.600) |" in text
    assert "| mtgrpo | 2 | 0.800 (0.800 to 0.800) |" in text
    assert "| 0.900 (0.900 to 0.900) | 0.800 (0.800 to 0.800) | 0.800 (0.800 to 0.800) | 75% |" in text
    assert "| multi-turn grpo | +0.100 (+0.100 to +0.100) |" in text
    assert (tmp_path / "ablation.png").stat().st_size > 10_000
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores[(scores.arm == "mtgrpo") & (scores.feedback == "perceived")].seed) == {0}


def test_a_finished_command_is_not_run_again_and_another_one_is_refused(ablation, tmp_path):
    command = ablation.Command("nothing", {"turns": 3}, tmp_path / "rl")
    with pytest.raises(RuntimeError, match="nothing"):
        command.execute({})
    command.out.with_suffix(".json").write_text(json.dumps({"arguments": ["turns=3"], "done": True}))
    command.execute({})
    with pytest.raises(RuntimeError, match="other settings"):
        ablation.Command("nothing", {"turns": 2}, tmp_path / "rl").execute({})


def test_every_arm_generates_the_same_number_of_tokens_from_the_same_planner(ablation, tmp_path):
    trained = [arm for arm in ablation.ARMS if arm != "sft"]
    preset = ablation.PRESETS["cpu-night"]
    work = [ablation.commands(tmp_path / "sft", tmp_path, arm, 1, preset, steps=True) for arm in trained]
    assert {command.keys["feedback_steps"] for commands in work for command in commands} == {True}
    keys = [commands[0].keys for commands in work]
    assert {k["max_generated_tokens"] for k in keys} == {preset.tokens}
    assert {k["planner.model"] for k in keys} == {str(tmp_path / "sft")}
    assert len({(k["estimator"], k["turns"]) for k in keys}) == len(trained)


def test_intervals_cover_runs_as_well_as_scenes():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, (4, 50)) + np.array([[0.0], [0.1], [0.2], [0.3]])
    across = bootstrap_runs(values, 2000, 0)
    assert across.low < 0.58 < across.mean < 0.72 < across.high  # four runs that differ say little
    one = bootstrap_runs(values[:1], 2000, 0)
    assert one.high - one.low < 0.1
    paired = bootstrap_runs(values[:1] + 1.0, 2000, 0, minus=values[:1])
    assert (paired.low, paired.high) == pytest.approx((1.0, 1.0))
