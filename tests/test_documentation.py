"""The pages: every command in them runs on a tiny world, every example too, and what they name exists."""

import ast
import inspect
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mtdrive
from mtdrive.cli import VERBS, main
from mtdrive.simulation.navsim_format.scene_filter import FILTERS
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.synthetic.filters import FilterFile, write_filter

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "datasets" / "cards").glob("*.md")),
]
README_WORDS = 900

# What makes a command short: a key that is not in it is added, a number that is larger is replaced by this one.
AT_MOST = {
    "synth": {"scenes_train": 4, "scenes_val": 2, "scenes_test": 2, "image_size": "[320,180]", "workers": 1},
    "cache": {"workers": 1},
    "record": {"workers": 1},
    "score": {"workers": 1},
    "sft": {"max_steps": 2, "batch_size": 2, "logging_steps": 1},
    "rl": {"max_steps": 1, "turns": 2, "scenes_per_step": 1, "scenes_per_pass": 1, "group_size": 2}
    | {"max_parse_errors": 1.0},  # a planner that has learned nothing writes no plans
    "evaluate": {"turns": 2, "limit": 2, "resamples": 50},
    "submit": {},
    "compare": {"page": 1, "resamples": 50},
    "visualize": {"limit": 1},
    "bench": {"scenes": 1},
    "doctor": {},
}
SMALL_TOOLS = {  # arguments that are added
    "tools/ablation.py": ["--report-only"],  # tests/test_ablation.py runs the rest
    "tools/fuzz_scoring.py": ["--count", "20"],
    "tools/measure_code.py": [],
    "tools/teach_copying.py": ["--steps", "2"],
}
ELSEWHERE = {  # run by a test of their own
    "tools/download_world.py": "tests/test_download_world.py::test_filters_list_more_than_the_world_holds",
    "tools/fuzz_files.py": "tests/test_fuzz_files.py::test_forged_files_do_no_harm",
    "tools/run_notebooks.py": "tests/test_notebooks.py::test_all_of_them_run",
    "tools/torture.py": "tests/test_torture.py::test_killed_and_started_again_ends_as_if_left_alone",
}
NOT_RUN = {  # in no test
    "planner=qwen2_5_vl_7b": "weights of 7B parameters, from the network",
    "planner=mtdrive_": "the same; tests/test_released.py runs these verbs on a small model in the same layout",
    "planner=step_flash ": "weights of 198B parameters; tests/test_step_flash_released.py runs a small model",
    "accelerate launch": "several GPUs",
    "engine=vllm": "vLLM, and a GPU",
    "--navsim ~/navsim": "checkouts of the official code",
    "~/navsim-venv": "checkouts of the official code, and an environment for them, from the network",
    "git clone": "the network",
    "submit train_test_split=navhard_two_stage": "navhard's files; tests/test_submit.py writes scenes of their format",
    "train_test_split=private_test_e2e": "private splits; tests/test_submit.py writes one of their format",
    "score train_test_split=navhard_two_stage": "navhard's files; tests/test_two_stage.py scores a set of their format",
    "tools/bench_training.py": "minutes of measuring",
    "tools/bench_memory.py": "a minute of measuring",
    "tools/bench_drafting.py": "minutes of measuring",
    "tools/bench_navtrain.py": "an hour of measuring",
    "tools/golden_curves.py": "five minutes; values hold on one machine alone",
    "make ": "sets up an environment from the network, for this very test run",
}


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: Path
    """The page that it stands in."""
    words: tuple[str, ...]
    """The command as a shell would split it."""

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def kept_back(self) -> bool:
        """Whether it is on a list of commands that are not run here."""
        return any(part in self.text for part in [*NOT_RUN, *ELSEWHERE])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[Command]:
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield Command(page, tuple(words))


COMMANDS = [command for page in PAGES for command in commands(page)]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, smoke_run, world) -> Path:
    """The folder that the pages speak of, after `make demo`; to be copied."""
    folder = tmp_path_factory.mktemp("documentation")
    demo, night = folder / "outputs" / "quickstart", folder / "outputs" / "night"
    shutil.copytree(smoke_run.folder, demo)
    for kind in ("navsim_logs", "sensor_blobs"):  # a training split by navsim's name
        (demo / "world" / kind / "trainval").symlink_to("train")
    shutil.copytree(world.exp_root / "scene_cache", night / "scene_cache")
    shutil.copytree(world.data_root, night / "world")
    shutil.copytree(demo / "sft", night / "sft")
    shutil.copytree(demo / "sft", folder / "outputs" / "sft")  # in place of the planner of 7B
    shutil.copy(demo / "scores" / "human.npz", folder / "plans.npz")
    roots = [f"openscene_data_root={night}/world", f"nuplan_maps_root={night}/world/maps", f"navsim_exp_root={night}"]
    assert main(["cache", "split=val", "workers=1", *roots]) == 0
    write_devkit(folder, demo)
    roots = [f"openscene_data_root={demo}/world", f"nuplan_maps_root={demo}/world/maps", f"navsim_exp_root={demo}"]
    for name in ("navtrain", "navtest"):
        keys = [f"train_test_split={name}", f"navsim_devkit_root={folder}/devkit", "workers=1"]
        assert main(["cache", *keys, *roots]) == 0
    return folder


def write_devkit(folder: Path, demo: Path) -> None:
    """Filters of the demo's world by navsim's names, and a file of tokens."""
    for name, store, data_split in (("navtrain", "train", "trainval"), ("navtest", "test", "test")):
        scenes = SceneStore(demo / "scene_cache", store)
        content = FilterFile(name, data_split, sorted(scenes.log_names), scenes.tokens)
        write_filter((folder / "devkit" / FILTERS).parent, content)
    (folder / "hard.csv").write_text("\n".join(["token", *scenes.tokens]))


@pytest.fixture
def working_in(workplace, tmp_path, monkeypatch) -> None:
    """A copy of the workplace is the current folder, and NAVSIM's variables lead to the demo's world."""
    shutil.copytree(workplace, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENSCENE_DATA_ROOT", "outputs/quickstart/world")
    monkeypatch.setenv("NUPLAN_MAPS_ROOT", "outputs/quickstart/world/maps")
    monkeypatch.setenv("NAVSIM_EXP_ROOT", "outputs/quickstart")
    monkeypatch.setenv("NAVSIM_DEVKIT_ROOT", "devkit")


def shortened(verb: str, keys: list[str], demo: Path) -> list[str]:
    """The keys of a verb, and those that make it short."""
    if verb == "quickstart":  # the run that the tests have made, found finished
        small = {"scenes_train": 4, "scenes_test": 3}
        changed = [f"stages.synth.keys.{key}={value}" for key, value in small.items()]
        stages = [*changed, "stages.sft.keys.max_steps=3"] if any("stages." in key for key in keys) else []
        return [*keys, "preset=smoke", f"out={demo}", *stages]
    given, words = dict(key.split("=", 1) for key in keys if "=" in key), [key for key in keys if "=" not in key]
    for key, most in AT_MOST[verb].items():
        if key not in given or (not isinstance(most, str) and float(given[key]) > most):
            given[key] = str(most)
    return [*words, *(f"{key}={value}" for key, value in given.items())]


def run_tool(path: str, arguments: list[str], monkeypatch) -> int:
    """Run a script as `python PATH ARGUMENTS` does, in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_runs(page, working_in, smoke_run, monkeypatch):
    for command in commands(page):
        first, *words = command.words
        if first == "export":
            for name, value in (word.split("=", 1) for word in words):
                if value != "...":
                    monkeypatch.setenv(name, value)
            continue
        if command.kept_back:
            continue
        words = [os.path.expandvars(word) for word in words]
        if first == "mtdrive":
            arguments = [words[0], *shortened(words[0], words[1:], smoke_run.folder)]
            assert main(arguments) == 0, " ".join(arguments)
        elif first == "python" and words[0] in SMALL_TOOLS:
            assert run_tool(words[0], [*words[1:], *SMALL_TOOLS[words[0]]], monkeypatch) == 0, command.text
        else:
            pytest.fail(f"{page.name} has a command that is neither run nor kept back: {command.text}")


def test_what_is_kept_back_is_in_the_pages_and_run_where_it_is_said():
    for part in [*NOT_RUN, *ELSEWHERE]:
        assert any(part in command.text for command in COMMANDS), f"No page has {part!r} any more."
    assert all(exists(test) for test in ELSEWHERE.values())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_every_example_in_python_runs(page, working_in):
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


def test_the_page_of_public_names_is_complete_and_has_their_signatures():
    text = " ".join((ROOT / "docs" / "api.md").read_text().split())
    shown = re.findall(r"- `(\w+)(\([^`]*\))?`:", text)
    assert sorted(name for name, _ in shown) == sorted(mtdrive.__all__)
    for name, signature in shown:
        item = getattr(mtdrive, name)
        if signature or inspect.isfunction(item):
            assert signature == plain_signature(item), name


def plain_signature(item: object) -> str:
    """The parameters of a function or class with their defaults, without annotations."""
    signature = inspect.signature(item)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", text)


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(mtdrive.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in guarded.body for alias in node.names}
    assert seen == {name: getattr(mtdrive, name).__module__ for name in mtdrive.__all__}


def exists(test: str) -> bool:
    """Whether a test that is named `tests/FILE.py::FUNCTION`, or a file of tests, exists."""
    path, _, function = test.partition("::")
    if not (ROOT / path).is_file():
        return False
    return not function or function in {
        node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    tests = re.findall(r"tests/\w+\.py(?:::\w+)?", text)
    assert [test for test in tests if not exists(test)] == []
    code = re.findall(r"`([^`\n]+)`", text)
    paths = [
        span for span in code if re.fullmatch(r"(?:simulation|datasets|mtdrive|configs|tools|notebooks)/[\w./]*", span)
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    verbs = [span.split()[1] for span in code if span.startswith("mtdrive ") and span.split()[1].islower()]
    assert set(verbs) <= VERBS.keys()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= README_WORDS
