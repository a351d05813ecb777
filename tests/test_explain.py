"""`mtdrive score explain=...` against official values, and the summary of a table of scores."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mtdrive.cli import main
from mtdrive.evaluation.explain import explain, row_of
from mtdrive.evaluation.score_summary import summary_tables
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import STEP, ObjectType
from mtdrive.visualization import Role
from support import reference

NEIGHBOURS = ["6bea526590790a85", "5118e69f55dd7a54"]  # now, and 0.5 s before


def test_tells_when_and_with_what_the_plan_and_the_others_collide():
    table = reference.scores("v1")
    for token, scene in reference.scenes().items():
        names, poses = reference.plans(token, 8)
        row = names.tolist().index("into_object")
        explanation = explain(scene, poses[row], 0.5, "pdms_v1", None)
        assert list(explanation.assessments) == ["plan", "PDM-Closed", "human"]
        assert [plan.role for plan in explanation.plans] == [Role.PDM_CLOSED, Role.HUMAN, Role.TURN]
        for plan, name in (("plan", "into_object"), ("human", "human")):
            official = table.loc[(token, name)]
            finding = explanation.assessments[plan].feedback.finding("no_at_fault_collisions")
            assert finding.value == official.no_at_fault_collisions
            assert explanation.assessments[plan].score == pytest.approx(official["score"], abs=1e-6)
            if not finding.passed:
                assert finding.time == pytest.approx(official.dbg_at_fault_time_idx * STEP)
                if ObjectType[finding.object_class.upper()].is_agent:
                    assert finding.value == 0.0


def test_command_prints_extended_comfort_and_draws(tmp_path, capsys):
    tokens = np.array(NEIGHBOURS)
    poses = np.stack([reference.plans(token, 8)[1][0] for token in NEIGHBOURS])
    poses[1, :, 0] *= 0.5  # the plan before brakes
    np.savez(tmp_path / "plans.npz", token=tokens, poses=poses, interval_length=0.5)
    arguments = [
        "score",
        f"openscene_data_root={reference.DATA_ROOT}",
        f"nuplan_maps_root={reference.MAPS_ROOT}",
        f"navsim_exp_root={tmp_path}",
        f"trajectories={tmp_path / 'plans.npz'}",
        f"out={tmp_path / 'scores.csv'}",
        "metric=epdms_v2",
        "workers=1",
    ]
    assert main([*arguments, f"explain={NEIGHBOURS[0]}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    score = pd.read_csv(tmp_path / "scores.csv").score[0]
    assert f"score │ {score:.4f}" in printed
    assert "acceleration" in printed
    assert (tmp_path / "scores.0.png").stat().st_size > 1000
    assert main([*arguments, "explain=2"]) == 2
    assert "row from 0 to 1" in capsys.readouterr().err


def test_rows_by_token_or_number():
    tokens = np.array(["a1", "b2", "a1", "1"])
    assert [row_of(each, tokens) for each in ("b2", 0, "2", "1")] == [1, 0, 2, 3]
    for explained, words in (("a1", "2 trajectories"), ("c", "neither"), (4, "neither"), (-1, "neither")):
        with pytest.raises(MTDriveError, match=words):
            row_of(explained, tokens)


def test_summary_counts_extremes():
    score = np.array([0.0, 0.0, 0.1, 0.25, 0.9, 1.0, np.nan])
    columns = {"all": np.array([1, 1, 1, 1, 0, 0.5, np.nan]), "none": np.full(7, np.nan)}
    extremes, distribution = summary_tables(columns, score, "title")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(extremes, distribution)
    lines = [[cell.strip(" │┃") for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    cells = {line[0]: line[1:] for line in lines if line}
    assert cells["all"] == ["0.7500", "66.7%", "16.7%", "6"]
    assert cells["none"] == ["-", "-", "-", "0"]
    assert cells["score"][0] == f"{np.nanmean(score):.4f}"
    counts = ["0", "0.0 .. 0.2", "0.2 .. 0.4", "0.4 .. 0.6", "0.6 .. 0.8", "0.8 .. 1.0", "1"]
    assert [int(cells[name][0]) for name in counts] == [2, 1, 1, 0, 0, 1, 1]
