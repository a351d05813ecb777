"""Which part may know which: the layering rules, read off the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import measure_code
import pytest
from measure_code import RANK, imports, lists_all_metrics, module_circles, modules, package_circles, parse, upward

import mtdrive

ROOT = Path(__file__).resolve().parents[1]
MODULES = modules(ROOT)
GRAPH = imports(ROOT)
STANDARD_OF_SIMULATION = {"numpy", "numba", "scipy", "shapely", "pyproj", "cv2", "gymnasium", "tqdm", "yaml"}
OPTIONAL_IN_SIMULATION = {"ray"}
READ_ANSWERS = {"mtdrive.rollout.multi_turn", "mtdrive.training.sft_trainer", "mtdrive.commands.record"}
HOLD_TOKENS = {"planner", "rollout", "training"}
OF_TOKENIZERS = {"apply_chat_template", "batch_decode", "convert_tokens_to_ids", "input_ids"}


def third_party(path: Path) -> set[str]:
    """The packages that a source file imports, without ours and Python's own."""
    names = set()
    for node, _ in measure_code.statements(parse(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
        else:
            names |= {alias.name for alias in node.names}
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"mtdrive"}


def test_every_part_has_a_layer_and_imports_those_below_alone():
    parts = {measure_code.part(module) for module in MODULES} - {""}
    assert parts <= RANK.keys()
    assert [f"{edge.module} imports {edge.target}" for edge in upward(GRAPH)] == []


def test_there_are_no_circles():
    assert package_circles(GRAPH) == []
    assert module_circles(GRAPH) == []


def test_the_graph_sees_imports_wherever_they_stand(tmp_path):
    files = {
        "simulation/scene.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mtdrive.cli\n",
        "simulation/map.py": "from mtdrive.simulation import scene, lane\n",
        "simulation/lane.py": "from mtdrive.simulation.map import Map\n",
        "datasets/rows.py": "def read():\n    from mtdrive.planner.answer import parse\n",
        "mtdrive/planner/answer.py": "from mtdrive.datasets.rows import read\n",
        "mtdrive/cli.py": "from mtdrive.simulation.scene import Scene\n",
        "mtdrive/gossip/news.py": "import mtdrive.simulation.scene\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = imports(tmp_path)
    assert {(edge.module, edge.target) for edge in upward(graph)} == {
        ("mtdrive.simulation.scene", "mtdrive.cli"),
        ("mtdrive.datasets.rows", "mtdrive.planner.answer"),
    }
    assert package_circles(graph) == [["cli", "simulation"], ["datasets", "planner"]]
    assert module_circles(graph) == [["mtdrive.simulation.lane", "mtdrive.simulation.map"]]


@pytest.mark.parametrize("path", (ROOT / "simulation").rglob("*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_simulation_knows_no_deep_learning(path):
    assert third_party(path) <= STANDARD_OF_SIMULATION | OPTIONAL_IN_SIMULATION


def test_parts_are_imported_through_mtdrive_and_datasets_stays_a_namespace():
    assert not (ROOT / "datasets/__init__.py").exists()
    for folder in ("mtdrive", "simulation", "datasets", "tests", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "simulation" not in third_party(path), path
    import datasets

    assert hasattr(datasets, "load_dataset")


def test_only_the_planner_knows_the_text_format():
    """Few read answers, none through anything but the planner's parser."""
    readers = {edge.module for edge in GRAPH if edge.target == "mtdrive.planner.answer"}
    assert {module for module in readers if measure_code.part(module) != "planner"} <= READ_ANSWERS
    spelling = {module for module, path in MODULES.items() if "planning trajectory" in path.read_text()}
    assert all(measure_code.part(module) == "planner" for module in spelling)


def test_only_planner_rollout_and_training_hold_tokens():
    for module, path in MODULES.items():
        if measure_code.part(module) not in HOLD_TOKENS:
            attributes = {node.attr for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
            assert not attributes & OF_TOKENIZERS, module
    holders = {edge.module for edge in GRAPH if edge.target in ("mtdrive.planner.tokens", "mtdrive.rollout.encoding")}
    assert {measure_code.part(module) for module in holders} <= HOLD_TOKENS


def test_only_simulation_knows_the_metrics():
    assert lists_all_metrics(ROOT) == []


def test_only_the_command_line_runs_verbs():
    users = {edge.module for edge in GRAPH if edge.target.startswith("mtdrive.commands")}
    assert {measure_code.part(module) for module in users} <= {"cli", "commands"}


def test_modules_import_each_other_and_not_the_public_names():
    taken = {(edge.module, edge.name) for edge in GRAPH if edge.target == "mtdrive"}
    assert {name for _, name in taken} <= {"__version__"}, taken


def test_public_names_and_the_verbs_of_evaluators_need_no_deep_learning():
    code = (
        "import sys, importlib, mtdrive\n"
        "assert not {'numpy', 'mtdrive.simulation'} & sys.modules.keys(), 'importing mtdrive is not cheap'\n"
        "for name in mtdrive.__all__: getattr(mtdrive, name)\n"
        "for verb in ('cache', 'score', 'evaluate', 'visualize'): importlib.import_module(f'mtdrive.commands.{verb}')\n"
        "assert not {'torch', 'transformers', 'trl', 'datasets'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert set(mtdrive.__all__) <= set(dir(mtdrive))
    with pytest.raises(AttributeError, match="fly"):
        _ = mtdrive.fly
