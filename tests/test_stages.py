"""Stages: commands reach their verbs unchanged, are run once, and again when their settings change."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from mtdrive.simulation.errors import MTDriveError
from mtdrive.stages.overrides import override_value
from mtdrive.stages.stage import (
    Command,
    Stage,
    begin,
    execute,
    finished_stages,
    has_other_settings,
    is_done,
    marker_path,
    plan_stages,
)

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=12)
VALUES = st.recursive(
    NAMES.filter(lambda text: "$" not in text) | st.integers(-(10**9), 10**9) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def stage_in(folder: Path) -> Stage:
    return Stage("first", "cache", ("split=absent",), folder / "made", "fingerprint")


def quick_stage(folder: Path, name: str) -> Stage:
    """A stage that succeeds at once."""
    return Stage(name, "score", ("--help",), folder / name, "fingerprint")


@given(VALUES)
@example("12")
@example("NaN")
@example("2021.05.11/log 1,a=b:'c'\\\\")
def test_values_survive_the_way_through_the_command_line(value):
    assert OverridesParser.create().parse_override(f"key={override_value(value)}").value() == value


@dataclass
class Composed:
    """Settings of a verb."""

    overrides: tuple[str, ...]
    default: int


def test_a_changed_setting_concerns_its_stage_and_those_after_it():
    def fingerprints(default: int, **changed: int) -> list[str]:
        commands = [Command(name, "cache", {"n": changed.get(name, 1)}, Path(name)) for name in ("a", "b", "c")]
        stages = plan_stages(commands, lambda verb, overrides: Composed(overrides, default))
        return [stage.fingerprint for stage in stages]

    before = fingerprints(0)
    assert fingerprints(0) == before
    after = fingerprints(0, b=2)
    assert after[0] == before[0]
    assert not set(after[1:]) & set(before)
    assert not set(fingerprints(1)) & set(before)  # a default counts as well


def test_a_stage_is_done_only_with_its_marker_its_settings_and_its_result(tmp_path):
    markers = tmp_path / "stages"
    stage = quick_stage(tmp_path, "first")
    assert not is_done(stage, markers)
    begin(stage, markers)
    stage.result.touch()
    assert not is_done(stage, markers)  # was started, and stopped
    begin(stage, markers)
    assert stage.result.exists()  # the verb goes on with what is there
    run = execute(stage, markers, None)
    assert is_done(stage, markers)
    assert run.command == "mtdrive score --help"
    assert run.peak_memory > 0
    assert not is_done(replace(stage, fingerprint="other"), markers)
    stage.result.unlink()
    assert not is_done(stage, markers)


def test_other_settings_remove_what_was_made_but_never_what_others_made(tmp_path):
    stage = stage_in(tmp_path)
    stage.result.mkdir()
    with pytest.raises(MTDriveError, match="was not made by this run"):
        begin(stage, tmp_path)
    assert stage.result.exists()
    stage.result.rmdir()
    begin(replace(stage, fingerprint="older"), tmp_path)
    stage.result.mkdir()
    assert has_other_settings(stage, tmp_path)
    begin(stage, tmp_path)
    assert not stage.result.exists()
    assert not has_other_settings(stage, tmp_path)


def test_finished_stages_come_in_the_order_in_which_they_ended(tmp_path):
    runs = []
    for name in ("second", "first", "stopped"):
        begin(quick_stage(tmp_path, name), tmp_path)
        if name != "stopped":
            runs.append(execute(quick_stage(tmp_path, name), tmp_path, None))
    assert finished_stages(tmp_path) == tuple(runs)


def test_a_damaged_marker_is_named(tmp_path):
    stage = stage_in(tmp_path)
    begin(stage, tmp_path)
    marker = marker_path(stage, tmp_path)
    marker.write_text(json.dumps({"fingerprint": stage.fingerprint})[:9])
    with pytest.raises(MTDriveError, match=r"first\.json is damaged"):
        is_done(stage, tmp_path)


def test_a_failing_stage_shows_its_reason_and_its_command(tmp_path):
    said = []
    with pytest.raises(MTDriveError) as caught:
        execute(stage_in(tmp_path), tmp_path, None, said.append)
    assert "failed with exit status 2" in str(caught.value)
    assert "mtdrive cache split=absent" in str(caught.value)
    assert "mtdrive cache: " in str(caught.value)  # the verb's own sentence
    assert not (tmp_path / "first.json").exists()
