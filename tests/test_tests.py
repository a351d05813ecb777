"""What tests may know: no other test module, and of the package what is public. Read off the sources."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
TREES = {str(path.relative_to(TESTS)): ast.parse(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
PATCHED = {"run_episodes"}  # of the package: may lose names, but gain none
PATCHES = {"setattr", "delattr", "object"}  # of monkeypatch and of unittest.mock.patch


def imports(tree: ast.AST) -> dict[str, str]:
    """Imported names, each with the full name of what it stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def root(node: ast.AST) -> str:
    """The name that an attribute is reached from; empty where it is no name."""
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def named_in_calls(tree: ast.AST, functions: set[str]) -> set[tuple[str, str]]:
    """(root of the owner, attribute) of calls such as setattr(owner, "attribute", ...)."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id=function) | ast.Attribute(attr=function),
                args=[owner, ast.Constant(value=str(name)), *_],
            ) if function in functions:
                found.add((root(owner), name))
    return found


def attributes(tree: ast.AST) -> set[tuple[str, str]]:
    """(root of the owner, attribute) of all that are used."""
    written = {(root(node), node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return written | named_in_calls(tree, PATCHES | {"getattr", "hasattr"})


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_no_test_module_is_imported():
    for path, tree in TREES.items():
        modules = {name.split(".")[0] for name in imports(tree).values()}
        assert not {name for name in modules if name.startswith("test_") or name == "conftest"}, path


def test_nothing_private_of_the_package_is_used():
    """What was not imported from elsewhere counts as the package's."""
    for path, tree in TREES.items():
        names = imports(tree)
        ours = {name: full for name, full in names.items() if full.split(".")[0] in ("mtdrive", "support")}
        assert not {full for full in ours.values() if is_private(full.split(".")[-1])}, path
        others = names.keys() - ours.keys() | {"self", "cls"}
        assert not {used for used in attributes(tree) if is_private(used[1]) and used[0] not in others}, path


def test_nothing_of_the_package_is_patched():
    for path, tree in TREES.items():
        ours = {name for name, full in imports(tree).items() if full.split(".")[0] == "mtdrive"}
        assigned = {
            (root(target), target.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Attribute)
        }
        patched = {used for used in named_in_calls(tree, PATCHES) | assigned if used[0] in ours}
        assert not {used for used in patched if used[1] not in PATCHED}, path
