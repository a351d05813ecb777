"""Measure the source code: its size, its imports, its docstrings, and what it uses of other packages' private names.

python tools/measure_code.py                  this checkout
python tools/measure_code.py BEFORE AFTER     two checkouts side by side

The module graph is what `tests/test_imports.py` tests the layers with.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (  # from the bottom to the top; a layer imports itself and those below
    ("simulation",),
    ("datasets",),
    ("interruption", "seam", "terminal"),
    ("stages",),
    ("planner",),
    ("rollout",),
    ("visualization",),
    ("evaluation",),
    ("training",),
    ("settings",),
    ("navsim_bridge",),
    ("commands",),
    ("cli",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
TRAINING_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft")
BASES = ("trl/trainer", "transformers/trainer.py", "transformers/generation")  # sources of the classes that we extend
PDMS_COLUMNS = (
    "no_at_fault_collisions",
    "drivable_area_compliance",
    "ego_progress",
    "time_to_collision_within_bound",
    "comfort",
)


@dataclass(frozen=True)
class Import:
    """One module that imports another."""

    module: str
    """Full name of the module that imports."""
    target: str
    """Full name of the module that is imported."""
    name: str | None
    """What is taken from the target; None for the module itself."""
    eager: bool
    """Runs when the module is imported: it stands neither in a function nor under TYPE_CHECKING."""


def modules(root: Path) -> dict[str, Path]:
    """The modules of the package by full name; `simulation/` and `datasets/` are parts of it."""
    found = {}
    for folder, prefix in (("mtdrive", ""), ("simulation", "mtdrive."), ("datasets", "mtdrive.")):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[prefix + ".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(path.read_text(), str(path))


def statements(tree: ast.AST, eager: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The import statements of a syntax tree, each with whether it runs when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, eager
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        yield from statements(node, eager and not lazy)


def imports(root: Path) -> list[Import]:
    """All imports of the package's modules among each other."""
    known, found = modules(root), []
    for module, path in known.items():
        for node, eager in statements(parse(path)):
            if isinstance(node, ast.Import):
                found += [Import(module, alias.name, None, eager) for alias in node.names if alias.name in known]
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known:
                    found.append(Import(module, full, None, eager))
                elif node.module in known:
                    found.append(Import(module, node.module, alias.name, eager))
    return found


def part(module: str) -> str:
    """The part of the package that a module belongs to: "simulation" of "mtdrive.simulation.scene", "" of "mtdrive"."""
    return module.partition(".")[2].partition(".")[0]


def upward(graph: list[Import]) -> list[Import]:
    """Imports of a part that does not stand below. The package's root, which names what is public, is left out."""
    above = len(LAYERS)  # a part that LAYERS does not name
    return [
        edge
        for edge in graph
        if (high := part(edge.target)) and (low := part(edge.module)) and high != low
        if RANK.get(high, above) >= RANK.get(low, above)
    ]


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of two or more nodes that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(group := stack[at:]) > 1:
                found.append(sorted(group))
            del stack[at:]

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def module_circles(graph: list[Import]) -> list[list[str]]:
    """Modules that import each other while they are imported."""
    edges: dict[str, set[str]] = {}
    for edge in graph:
        if edge.eager:
            edges.setdefault(edge.module, set()).add(edge.target)
    return circles(edges)


def package_circles(graph: list[Import]) -> list[list[str]]:
    """Parts of the package that import each other, wherever the imports stand."""
    edges: dict[str, set[str]] = {}
    for edge in graph:
        if part(edge.module) and part(edge.target):
            edges.setdefault(part(edge.module), set()).add(part(edge.target))
    return circles(edges)


def public_definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Public classes, functions and methods by name, each with whether it has a docstring."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{node.name}.")


def without_docstring(root: Path) -> list[str]:
    """Full names of the public definitions that have no docstring."""
    return [
        f"{module}.{name}"
        for module, path in modules(root).items()
        for name, documented in public_definitions(parse(path))
        if not documented
    ]


def private_names(root: Path) -> set[str]:
    """Names with a leading underscore that belong to torch, transformers, trl, accelerate or peft.

    These are parts of import statements and of dotted names (`torch.ops.aten._name`), attributes that nothing of ours
    defines (`model._name`), and methods of theirs that a class of ours overrides.
    """
    trees = [parse(path) for path in modules(root).values()]
    ours = {name for tree in trees for name in _defined(tree)}
    theirs = _methods_of_bases()
    found = set()
    for tree in trees:
        for node, _ in statements(tree):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {n for n in names if n.split(".")[0] in TRAINING_LIBRARIES and re.search(r"(^|\.)_[a-z]", n)}
        imported = _imports_training_library(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _private(node.attr) and node.attr not in ours and imported:
                found.add(node.attr)
            if isinstance(node, ast.ClassDef) and node.bases and imported:
                methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef) and _private(item.name)}
                found |= methods & theirs
    return found


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def _imports_training_library(tree: ast.AST) -> bool:
    return any(
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name or "").split(".")[0]
        in TRAINING_LIBRARIES
        for node, _ in statements(tree)
    )


@cache
def _methods_of_bases() -> frozenset[str]:
    found: set[str] = set()
    for place in BASES:
        package, _, inside = place.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / inside
            for file in [path] if path.is_file() else path.glob("*.py"):
                found |= set(re.findall(r"^    def (_[a-z]\w*)", file.read_text(), re.MULTILINE))
    return frozenset(found)


def lists_all_metrics(root: Path) -> list[str]:
    """Modules outside `simulation/metrics` that spell the column of every PDMS metric."""
    found = []
    for module, path in modules(root).items():
        texts = {node.value for node in ast.walk(parse(path)) if isinstance(node, ast.Constant)}
        if texts.issuperset(PDMS_COLUMNS) and not module.startswith("mtdrive.simulation.metrics."):
            found.append(module)
    return found


def lines(folder: Path) -> int:
    """Lines of Python that hold anything."""
    return sum(1 for path in folder.rglob("*.py") for line in path.read_text().splitlines() if line.strip())


def measure(root: Path) -> dict[str, int]:
    """All figures of a checkout, by name."""
    graph, package = imports(root), modules(root)
    defined = [item for path in package.values() for item in public_definitions(parse(path))]
    return {
        "modules": len(package),
        "lines, package": sum(lines(root / part) for part in ("mtdrive", "simulation", "datasets")),
        "lines, tests": lines(root / "tests"),
        "lines, tools": lines(root / "tools"),
        "upward imports": len(upward(graph)),
        "circles between parts": len(package_circles(graph)),
        "circles between modules": len(module_circles(graph)),
        "public names": len(defined),
        "of them without a docstring": len(without_docstring(root)),
        "private names of training libraries": len(private_names(root)),
        "modules outside metrics/ that list all PDMS columns": len(lists_all_metrics(root)),
        "words of README": len((root / "README.md").read_text().split()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("roots", type=Path, nargs="*", default=[ROOT], help="checkouts to measure")
    parser.add_argument("--names", action="store_true", help="also list what was counted")
    arguments = parser.parse_args()
    tables = [measure(root) for root in arguments.roots]
    for name in tables[0]:
        print(f"{name:<54}" + "".join(f"{table[name]:>10,}" for table in tables))
    for root in arguments.roots if arguments.names else ():
        graph = imports(root)
        print(f"\n{root}")
        for edge in upward(graph):
            print(f"  upward: {edge.module} -> {edge.target}")
        for group in package_circles(graph) + module_circles(graph):
            print(f"  circle: {', '.join(group)}")
        print(f"  private: {', '.join(sorted(private_names(root)))}")
        print(f"  all metrics: {', '.join(lists_all_metrics(root))}")
        print("  no docstring: " + ", ".join(without_docstring(root)))


if __name__ == "__main__":
    main()
