"""The quickstart: its stages are planned from the configuration, and lead from nothing to a report."""

import fcntl
import html
import os
import shutil
from dataclasses import replace

import pytest

from mtdrive.cli import main
from mtdrive.commands.quickstart import plan
from mtdrive.datasets.reader import read_manifest
from mtdrive.evaluation.report.collect import check_agreement, read_evaluations
from mtdrive.planner.card import read_card
from mtdrive.rollout.episode_file import read_episodes
from mtdrive.settings import load_settings, planner_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.stages.stage import Stage
from support.files import contents


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Whatever a run sets is taken back."""
    for name in ("OPENSCENE_DATA_ROOT", "NUPLAN_MAPS_ROOT", "NAVSIM_EXP_ROOT"):
        monkeypatch.setenv(name, "unset")


def stages(*overrides: str) -> list[Stage]:
    return plan(load_settings("quickstart", list(overrides)))


@pytest.mark.parametrize("preset", ["demo", "full", "smoke"])
def test_every_preset_gives_commands_that_their_verbs_accept(preset):
    planned = stages(f"preset={preset}", "out=here")
    assert planned[0].verb == "synth"
    assert len({stage.result for stage in planned}) == len(planned)
    assert all(stage.result.is_relative_to("here") for stage in planned)
    for stage in planned:
        load_settings(stage.verb, list(stage.overrides))


def test_a_changed_setting_concerns_its_stage_and_those_after_it():
    before, after = stages(), stages("stages.sft.keys.max_steps=77")
    changed = [old.name for old, new in zip(before, after, strict=True) if old.fingerprint != new.fingerprint]
    names = [stage.name for stage in before]
    assert changed == names[names.index("sft") :]
    assert "max_steps=77" in after[names.index("sft")].command


def test_the_planner_is_the_one_asked_for_with_its_sizes():
    planned = {
        stage.name: stage for stage in stages("planner=step_flash_tiny", "planner.step_flash.experts=8", "seed=3")
    }
    made = load_settings("sft", list(planned["sft"].overrides)).planner
    expected = planner_settings("step_flash_tiny")
    assert made == replace(expected, step_flash=replace(expected.step_flash, experts=8), seed=3)
    with pytest.raises(MTDriveError, match="trains a new planner, tiny or step_flash_tiny"):
        load_settings("quickstart", ["planner=qwen2_5_vl_7b"])


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


def test_smoke_goes_from_nothing_to_a_report_and_is_done_the_second_time(smoke_run, capsys, monkeypatch):
    page = (smoke_run.folder / "report.html").read_text()
    assert "Answers that parse after SFT: " in smoke_run.printed
    assert "RL against SFT, last turn" in page
    assert page.count("<article") == 3  # every test scene is in the gallery
    planned = plan(load_settings("quickstart", smoke_run.arguments[1:]))
    assert all(stage.command in html.unescape(page) for stage in planned)
    monkeypatch.setenv("NAVSIM_DEVKIT_ROOT", "elsewhere")  # or anything else of the user's own
    monkeypatch.setenv("OPENSCENE_DATA_ROOT", "elsewhere")
    assert main(smoke_run.arguments) == 0
    assert capsys.readouterr().out.count("done before") == len(planned)


def test_a_report_refuses_scores_of_different_metrics(smoke_run, tmp_path):
    run = shutil.copytree(smoke_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("world", "dataset"))
    summary = run / "evaluation" / "rl-privileged" / "summary.json"
    original = summary.read_text()
    summary.write_text(original.replace('"metric": "pdms_v1"', '"metric": "epdms_v2"'))
    with pytest.raises(MTDriveError, match=r"pdms_v1 version 1 in .*epdms_v2 version 1 in .*rl-privileged"):
        read_evaluations(run / "evaluation")
    summary.write_text(original)
    table, scores = read_evaluations(run / "evaluation"), run / "scores" / "human.csv"
    check_agreement(table, scores, "pdms_v1")
    scores.write_text(scores.read_text().replace("pdms_v1", "epdms_v2"))
    with pytest.raises(MTDriveError, match=r"scored by epdms_v2, and the evaluations beside it by pdms_v1"):
        check_agreement(table, scores, "pdms_v1")


def test_a_trained_stage_that_is_repeated_alone_changes_nothing(smoke_run, tmp_path, monkeypatch, capsys):
    config = load_settings("quickstart", smoke_run.arguments[1:])
    for name, value in config.environment.items():
        monkeypatch.setenv(name, value)
    for stage in (stage for stage in plan(config) if stage.verb in ("sft", "rl")):
        out = shutil.copytree(stage.result, tmp_path / stage.name)
        before = contents(out)
        assert main([stage.verb, *(key for key in stage.overrides if not key.startswith("out=")), f"out={out}"]) == 0
        assert f"steps, {'loss' if stage.verb == 'sft' else 'sampled PDMS'}" in capsys.readouterr().out
        assert contents(out) == before


def test_planners_say_what_they_learned_and_refuse_what_does_not_fit(smoke_run, tmp_path, monkeypatch, capsys):
    for name, value in load_settings("quickstart", smoke_run.arguments[1:]).environment.items():
        monkeypatch.setenv(name, value)
    card = read_card(smoke_run.folder / "rl")
    assert [(stage.verb, stage.steps, stage.turns) for stage in card.stages] == [("sft", 3, None), ("rl", 2, 2)]
    assert card.stages[:1] == read_card(smoke_run.folder / "sft").stages
    manifest = read_manifest(smoke_run.folder / "dataset/train")
    assert (card.prompt, card.wording) == (manifest["wording"], manifest["wording_fingerprint"])

    evaluate = ["evaluate", f"planner={smoke_run.folder}/rl", "baselines=[]", "limit=1", f"out={tmp_path}/evaluation"]
    assert main([*evaluate, "feedback_steps=true"]) == 2
    assert "was trained with feedback_steps=false" in capsys.readouterr().err
    sft = ["sft", "planner=tiny", "planner.prompt=full", f"dataset={smoke_run.folder}/dataset/train"]
    assert main([*sft, f"out={tmp_path}/sft"]) == 2
    assert "was recorded with prompt=compact, and the planner's is full" in capsys.readouterr().err
    assert main([*evaluate, "feedback_steps=true", "planner.allow_misfit=true"]) == 0
    header, _ = read_episodes(tmp_path / "evaluation/episodes.jsonl")
    assert (header.prompt_style, header.feedback_steps) == ("compact", True)
