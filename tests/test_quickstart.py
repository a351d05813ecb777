"""The quickstart: stages are planned from the configuration, resumed, made again when their settings change."""

import fcntl
import html
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from mtdrive.cli import main
from mtdrive.commands.quickstart import Stage, execute, finished, only_run_in, plan, prepare, to_override
from mtdrive.commands.quickstart import write_marker as mark
from mtdrive.settings import load_settings
from mtdrive.simulation.errors import MTDriveError
from support.files import contents

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=12)
VALUES = st.recursive(
    NAMES.filter(lambda text: "$" not in text) | st.integers(-(10**9), 10**9) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Whatever a run sets is taken back."""
    for name in ("OPENSCENE_DATA_ROOT", "NUPLAN_MAPS_ROOT", "NAVSIM_EXP_ROOT"):
        monkeypatch.setenv(name, "unset")


def stages(*overrides: str) -> list[Stage]:
    return plan(load_settings("quickstart", list(overrides)))


def stage_in(folder: Path) -> Stage:
    return Stage("cache", "cache", ("split=absent",), folder / "made", "fingerprint")


@given(VALUES)
@example("12")
@example("NaN")
@example("2021.05.11/log 1,a=b:'c'\\\\")
def test_values_survive_the_way_through_the_command_line(value):
    assert OverridesParser.create().parse_override(f"key={to_override(value)}").value() == value


@pytest.mark.parametrize("preset", ["demo", "full", "smoke"])
def test_every_preset_gives_commands_that_their_verbs_accept(preset):
    planned = stages(f"preset={preset}", "out=here")
    assert planned[0].verb == "synth"
    assert len({stage.makes for stage in planned}) == len(planned)
    assert all(stage.makes.is_relative_to("here") for stage in planned)
    for stage in planned:
        load_settings(stage.verb, list(stage.overrides))


def test_a_changed_setting_concerns_its_stage_and_those_after_it():
    before, after = stages(), stages("stages.sft.keys.max_steps=77")
    changed = [old.name for old, new in zip(before, after, strict=True) if old.fingerprint != new.fingerprint]
    names = [stage.name for stage in before]
    assert changed == names[names.index("sft") :]
    assert "max_steps=77" in after[names.index("sft")].command


def test_a_stage_is_done_only_with_its_marker_its_settings_and_its_result(tmp_path):
    stage, marker = stage_in(tmp_path), tmp_path / "stages" / "cache.json"
    assert not finished(stage, marker)
    prepare(stage, marker)
    stage.makes.mkdir()
    assert not finished(stage, marker)  # was started, and stopped
    prepare(stage, marker)
    assert stage.makes.exists()  # the verb goes on with what is there
    mark(marker, {"fingerprint": stage.fingerprint, "done": True})
    assert finished(stage, marker)
    assert not finished(replace(stage, fingerprint="other"), marker)
    stage.makes.rmdir()
    assert not finished(stage, marker)


def test_other_settings_remove_what_was_made_but_never_what_others_made(tmp_path):
    stage, marker = stage_in(tmp_path), tmp_path / "stages" / "cache.json"
    stage.makes.mkdir()
    with pytest.raises(MTDriveError, match="was not made by mtdrive quickstart"):
        prepare(stage, marker)
    assert stage.makes.exists()
    mark(marker, {"fingerprint": "older", "done": True})
    prepare(stage, marker)
    assert not stage.makes.exists()


def test_a_failing_stage_shows_its_reason_and_its_command(tmp_path):
    with only_run_in(tmp_path) as lock, pytest.raises(MTDriveError) as caught:
        execute(stage_in(tmp_path), tmp_path / "cache.log", lock, Console(quiet=True))
    assert "failed with exit status" in str(caught.value)
    assert "mtdrive cache split=absent" in str(caught.value)
    assert "mtdrive cache: " in str(caught.value)  # the verb's own sentence


def test_two_runs_do_not_share_a_folder(tmp_path):
    with only_run_in(tmp_path), pytest.raises(MTDriveError, match="Another run is at work"), only_run_in(tmp_path):
        pass
    with only_run_in(tmp_path):
        pass


def test_a_stage_left_behind_holds_the_lock(tmp_path):
    with only_run_in(tmp_path) as lock:
        inherited = os.dup(lock)
    with pytest.raises(MTDriveError, match="Another run is at work"), only_run_in(tmp_path):
        pass
    fcntl.flock(inherited, fcntl.LOCK_UN)
    os.close(inherited)
    with only_run_in(tmp_path):
        pass


def test_smoke_goes_from_nothing_to_a_report_and_is_done_the_second_time(smoke_run, capsys):
    page = (smoke_run.folder / "report.html").read_text()
    assert "Answers that parse after SFT: " in smoke_run.printed
    assert "RL against SFT, last turn" in page
    assert page.count("<article") == 3  # every test scene is in the gallery
    planned = plan(load_settings("quickstart", smoke_run.arguments[1:]))
    assert all(stage.command in html.unescape(page) for stage in planned)
    assert main(smoke_run.arguments) == 0
    assert capsys.readouterr().out.count("done before") == len(planned)


def test_a_trained_stage_that_is_repeated_alone_changes_nothing(smoke_run, tmp_path, monkeypatch, capsys):
    config = load_settings("quickstart", smoke_run.arguments[1:])
    for name, value in config.environment.items():
        monkeypatch.setenv(name, value)
    for stage in (stage for stage in plan(config) if stage.verb in ("sft", "rl")):
        out = shutil.copytree(stage.makes, tmp_path / stage.name)
        before = contents(out)
        assert main([stage.verb, *(key for key in stage.overrides if not key.startswith("out=")), f"out={out}"]) == 0
        assert f"steps, {'loss' if stage.verb == 'sft' else 'sampled PDMS'}" in capsys.readouterr().out
        assert contents(out) == before
