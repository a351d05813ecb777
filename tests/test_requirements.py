"""setup.py declares what the sources import: an evaluator's commands run on its base requirements alone."""

import ast
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
EVALUATOR = [
    f"mtdrive.commands.{verb}" for verb in ("synth", "cache", "score", "evaluate", "bench", "doctor", "visualize")
]
DISTRIBUTIONS = packages_distributions()
NOT_ON_PYPI = {"navsim", "nuplan"}  # of tools that compare with the official code


@pytest.fixture(scope="module")
def declared():
    """Requirements by extra, as setup.py hands them to setuptools; the base ones under an empty name."""
    given = {}
    setuptools = SimpleNamespace(setup=given.update, find_namespace_packages=lambda include: include)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", setuptools)
        exec((ROOT / "setup.py").read_text())
    extras = {"": given["install_requires"], **given["extras_require"]}
    return {extra: {line.split(">")[0].lower() for line in lines} for extra, lines in extras.items()}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py") if not path.is_symlink()]


@cache
def imported(path: Path, when_loaded: bool) -> set[str]:
    """Modules that a file imports, or only those that it imports when it is loaded."""
    nodes = ast.parse(path.read_text()).body
    if not when_loaded:
        nodes = [node for top in nodes for node in ast.walk(top)]
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return names


def distributions(names: set[str], own: set[str]) -> set[str]:
    """Distributions that the third-party modules among the names come from."""
    tops = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"mtdrive"} - own - NOT_ON_PYPI
    return {DISTRIBUTIONS.get(top, [top])[0].lower() for top in tops}


def test_whatever_is_imported_is_declared(declared):
    own = {path.stem for path in sources("tests", "tools")} | {"support"}
    for path in sources("mtdrive", "simulation", "datasets"):
        assert distributions(imported(path, False), set()) <= set().union(*declared.values()) - declared["dev"], path
    for path in sources("tests", "tools"):
        assert distributions(imported(path, False), own) <= set().union(*declared.values()), path


def test_an_evaluator_needs_the_base_requirements_alone(declared):
    loaded, left = set(), ["mtdrive.cli", *EVALUATOR]
    while left:
        name = left.pop()
        path = ROOT / name.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in loaded or not path.is_file():  # a name in a module
            continue
        loaded.add(name)
        names = imported(path.resolve(), True)
        left += [name for name in names if name.startswith("mtdrive.")]
        assert distributions(names, set()) <= declared[""], f"{name} imports what setup.py does not declare"
    assert "mtdrive.simulation.scoring" in loaded
