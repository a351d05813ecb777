"""tools/teach_copying.py: what is told stands in the answer, and `mtdrive sft` can go on from the planner it makes."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mtdrive.planner.answer import parse_answer
from mtdrive.planner.models import load_planner
from mtdrive.settings import planner_settings

TOLD = re.compile(r" to ([+-]\d+\.\d+), ([+-]\d+\.\d+) by ([+-]\d+\.\d+)\.")


@pytest.fixture
def teach_copying(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "tools"))
    yield importlib.import_module("teach_copying")
    sys.modules.pop("teach_copying")


def test_exactly_the_told_places_of_the_answer_count_in_full(teach_copying):
    tokenizer = load_planner(planner_settings("tiny")).processor.tokenizer
    conversations = teach_copying.Conversations(tokenizer, seed=0)
    for _, row in zip(range(30), conversations):
        told = TOLD.findall(tokenizer.decode(row["before"]))
        poses = parse_answer(tokenizer.decode(row["target"], skip_special_tokens=True)).poses
        for x, y, time in told:
            assert poses[round(float(time) / 0.5) - 1, :2].tolist() == [float(x), float(y)]
        counted = tokenizer.decode([token for token, w in zip(row["target"], row["weights"], strict=True) if w == 1.0])
        places = sorted((float(time), x, y) for x, y, time in told)
        assert re.findall(r"[+-]\d+\.\d+", counted) == [value for _, x, y in places for value in (x, y)]


def test_it_trains_and_saves_a_planner(teach_copying, tmp_path, monkeypatch):
    new = load_planner(planner_settings("tiny"))
    monkeypatch.setattr(sys, "argv", ["teach_copying", "--out", str(tmp_path), "--steps", "2"])
    teach_copying.main()
    planner = load_planner(planner_settings(str(tmp_path)))
    changed = [
        not np.array_equal(a.detach().numpy(), b.detach().numpy())
        for a, b in zip(new.model.parameters(), planner.model.parameters(), strict=True)
    ]
    assert any(changed)
