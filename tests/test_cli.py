"""The command line: its verbs, overrides and sentences."""

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numba
import numpy as np
import pytest
from omegaconf import OmegaConf

import mtdrive
from mtdrive.cli import main
from mtdrive.commands import doctor
from mtdrive.datasets.recipe import Recipe
from mtdrive.rollout.vllm_engine import VLLMSettings
from mtdrive.settings import CONFIGS
from mtdrive.settings.verbs import VERBS
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.installation import self_check
from mtdrive.simulation.synthetic.scenes import WorldConfig
from mtdrive.training.advantages import AdvantageConfig
from mtdrive.training.expert_balance import ExpertBalance
from mtdrive.training.mtgrpo_trainer import MTGRPOSettings
from mtdrive.training.rewards import PdmsReward


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_configuration_that_composes(verb, capsys):
    assert main([verb, "--help"]) == 0
    told = capsys.readouterr().out
    assert VERBS[verb].summary in told
    keys = {field.name for field in fields(VERBS[verb].settings)} - {"planner", "recipe"}  # choices of their own
    assert {key for key in keys if not re.search(rf"^{key}:", told, re.MULTILINE)} <= (
        {"turns"} if verb == "quickstart" else set()  # in the presets
    )
    assert (CONFIGS / f"{verb}.yaml").is_file()
    assert callable(importlib.import_module(f"mtdrive.commands.{verb}").run)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fly"], "fly"),
        (["cache", "split=test", "colour=red"], "colour"),
        (["cache", "split"], "split"),
        (["synth"], "out=..."),
        (["rl", "planner=nothing"], "nothing"),
        (["cache", "split=test", "openscene_data_root=/nowhere", "nuplan_maps_root=/nowhere"], "/nowhere"),
    ],
)
def test_bad_arguments_end_with_one_sentence_and_status_2(arguments, expected, capsys):
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


def test_doctor_finds_this_installation_sound_and_a_broken_one_not(monkeypatch, capsys):
    assert main(["doctor"]) == 0
    monkeypatch.setattr(np.linalg, "inv", lambda matrices: np.zeros_like(matrices))
    assert main(["doctor"]) == 1
    assert "FAILED" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="navsim_logs"):
        doctor.data_root("/nowhere", "navsim_logs")


def test_doctor_tells_stale_compiled_code_from_a_bad_numpy():
    truth = self_check.scores_of_case()
    assert self_check.check_numerics() <= self_check.TOLERANCE
    off = {**truth, "pdms_v1 score": [value + 1e-6 for value in truth["pdms_v1 score"]]}
    with pytest.raises(MTDriveError, match=r"Compiled pdms_v1 score is off by 1.0e-06 .*delete .*kernels-"):
        self_check.compare(off, truth, truth)
    with pytest.raises(MTDriveError, match=r"NumPy here gives a pdms_v1 score .*numpy build"):
        self_check.compare(off, off, truth)


def test_doctor_names_damaged_compiled_code(tmp_path):
    self_check.scores_of_case()  # which compiles, or is compiled
    folder = Path(shutil.copytree(numba.config.CACHE_DIR, tmp_path / Path(numba.config.CACHE_DIR).name))
    damaged = list(folder.rglob("*.nbi"))
    assert damaged
    for index in damaged:
        os.truncate(index, index.stat().st_size // 2)
    script = "from mtdrive.simulation.installation.self_check import check_numerics; check_numerics()"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert f"delete {folder} and try again" in done.stderr.splitlines()[-1]


def test_bench_measures_every_step_and_leaves_the_caches_alone(world, capsys):
    caches = world.exp_root / "scene_cache"
    before = sorted(caches.rglob("*"))
    assert main(["bench", *world.overrides(), "split=test", "scenes=2", "metric=epdms_v2"]) == 0
    shown = capsys.readouterr().out
    for step in ("2 scenes", "compile a scene", "load a scene", "prepare a scene", "64 at once"):
        assert step in shown
    assert sorted(caches.rglob("*")) == before
    assert main(["bench", *world.overrides(), "split=nowhere"]) == 2
    assert "mtdrive cache split=nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "part", "code", "names"),
    [
        ("rl", None, AdvantageConfig, {"scale": "scale_advantages"}),
        ("rl", None, MTGRPOSettings, {}),
        ("rl", None, PdmsReward, {}),
        ("rl", "vllm", VLLMSettings, {}),
        ("rl", "experts", ExpertBalance, {}),
        ("sft", "experts", ExpertBalance, {}),
        ("rl", None, assess, {"source": "feedback"}),
        ("evaluate", None, assess, {"source": "feedback"}),
        ("record", None, assess, {"source": "feedback", "steps": "feedback_steps"}),
        ("record", None, Recipe, {}),
        ("synth", None, WorldConfig, {}),
    ],
)
def test_what_code_does_by_default_is_what_the_configuration_says(verb, part, code, names):
    """names: of keys that are called otherwise."""
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{verb}.yaml"))
    config = config if part is None else config[part]
    defaults = {
        names.get(name, name): parameter.default
        for name, parameter in inspect.signature(code).parameters.items()
        if isinstance(parameter.default, bool | int | float | str | tuple) and names.get(name, name) in config
    }
    assert defaults.keys() >= set(names.values())
    assert defaults
    said = {name: config[name] for name in defaults}
    assert defaults == {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}


def test_what_is_printed_into_a_closed_pipe_is_not_missed():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mtdrive.cli", "score", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_paths_are_printed_as_they_are(world, tmp_path, capsys):
    place = f"{tmp_path}/[/bold] [red]:smile: caf\u00e9 ${{x}}"
    out = place.replace("$", "")  # means another key to Hydra
    for verb, more in {
        "cache": ["split=test", f"navsim_exp_root='{out}'"],
        "record": ["split=train", f"out='{out}/ds'"],
        "evaluate": ["split=test", "baselines=[standstill]", f"out='{out}/ev'"],
        "visualize": ["split=test", "limit=1", f"out='{out}/vis'"],
        "synth": ["scenes_train=1", "scenes_val=0", "scenes_test=0", "workers=1", f"out='{out}/w'"],
    }.items():
        roots = [] if verb == "synth" else world.overrides()
        assert main([verb, *roots, *more]) == 0
        assert out in capsys.readouterr().out


def test_only_one_place_makes_a_console_and_it_reads_no_markup():
    package = Path(mtdrive.__file__).parent
    for path in package.rglob("*.py"):
        names = {node.func.id for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        assert "Console" not in names or path.name == "terminal.py", path
