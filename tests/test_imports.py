"""Which part may know which: the dependency rules of the layout, read off the sources."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STANDARD_OF_SIMULATION = {"numpy", "numba", "scipy", "shapely", "pyproj", "cv2", "gymnasium", "tqdm"}
OPTIONAL_IN_SIMULATION = {"ray"}
DEEP_LEARNING = {"torch", "transformers", "trl", "accelerate", "peft", "datasets"}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a source file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def sources(folder: str) -> list[Path]:
    """Python files of a folder at the top, without following the links in `mtdrive/`."""
    return [path for path in (ROOT / folder).rglob("*.py") if not path.is_symlink()]


def third_party(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"mtdrive"}


@pytest.mark.parametrize("path", sources("simulation"), ids=lambda path: str(path.relative_to(ROOT)))
def test_simulation_knows_no_deep_learning_and_nothing_above_it(path):
    names = imported(path)
    assert third_party(names) <= STANDARD_OF_SIMULATION | OPTIONAL_IN_SIMULATION
    assert all(name.startswith("mtdrive.simulation") for name in names if name.split(".")[0] == "mtdrive")


@pytest.mark.parametrize("path", sources("datasets"), ids=lambda path: str(path.relative_to(ROOT)))
def test_datasets_knows_simulation_alone(path):
    allowed = ("mtdrive.simulation", "mtdrive.datasets")
    assert all(name.startswith(allowed) for name in imported(path) if name.split(".")[0] == "mtdrive")


def test_parts_are_imported_through_mtdrive_and_datasets_stays_a_namespace():
    assert not (ROOT / "datasets/__init__.py").exists()
    for folder in ("mtdrive", "simulation", "datasets", "tests", "tools"):
        for path in sources(folder):
            names = imported(path)
            assert "simulation" not in {name.split(".")[0] for name in names}, path
    import datasets

    assert hasattr(datasets, "load_dataset")
