"""What is used of other packages without being public is listed in `mtdrive.seam`, and is as it says there."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from transformers import Trainer

import mtdrive.training
from mtdrive.seam import INTERNALS, PACKAGES, Internal, problem

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    path: ast.parse(path.read_text())
    for folder in ("mtdrive", "simulation", "datasets")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "mtdrive/seam.py"
}
LISTED = {internal.name.replace(":", ".") for internal in INTERNALS}
LISTED_LAST = {name.rpartition(".")[2] for name in LISTED}
DOCUMENTED = {*PACKAGES, "accelerate.utils", "transformers.utils.logging"}
# Of Trainer's instances, by its docstring or its signature.
DOCUMENTED_ATTRIBUTES = {"args", "callback_handler", "data_collator", "model", "model_wrapped", "train_dataset"}
DOCUMENTED_ATTRIBUTES |= {"accelerator", "control", "state"}
OF_OTHERS = {"os._exit", "multiarray._reconstruct", "base._replace"}  # not of these packages: Python's, numpy's


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("internal", INTERNALS, ids=lambda internal: internal.name)
def test_what_is_listed_is_there_with_its_signature(internal):
    assert problem(internal) is None


def test_what_has_vanished_or_changed_is_named():
    vanished = Internal("transformers.trainer:Trainer._fly", "to fly", "self")
    assert problem(vanished) == "transformers.trainer:Trainer._fly is gone, which we use: to fly."
    assert "trl.wings:flap is gone" in problem(Internal("trl.wings:flap", "to fly"))
    changed = Internal("transformers.trainer:Trainer._get_grad_norm", "to stop", "self")
    assert "takes (self model grad_norm), no longer (self)" in problem(changed)


def test_what_is_listed_is_used():
    text = "\n".join(path.read_text() for path in SOURCES)
    assert [name for name in sorted(LISTED_LAST) if name not in text] == []


def imported_names(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def is_public(name: str) -> bool:
    parts = name.split(".")
    if any(is_private(part) for part in parts):
        return False
    return parts[0] == "torch" or name in DOCUMENTED or ".".join(parts[:-1]) in DOCUMENTED


def test_imports_are_public_or_listed():
    unlisted = {(str(path.relative_to(ROOT)), name) for path, tree in SOURCES.items() for name in imported_names(tree)}
    assert {use for use in unlisted if not is_public(use[1]) and use[1] not in LISTED} == set()


def defined_names() -> set[str]:
    """Names that our own sources give to something."""
    names = set()
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return names


def test_private_attributes_of_others_are_listed():
    """Any attribute with an underscore that nothing of ours defines, or that is asked of `super()`."""
    ours, unlisted = defined_names(), set()
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in LISTED_LAST:
                of_super = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
                if of_super or (node.attr not in ours and ast.unparse(node) not in OF_OTHERS):
                    unlisted.add((str(path.relative_to(ROOT)), ast.unparse(node)))
    assert {use for use in unlisted if "navsim_format/synthetic_scenes" not in use[0]} == set()  # navsim's own classes


def trainers() -> list[type]:
    for module in pkgutil.walk_packages(mtdrive.training.__path__, "mtdrive.training."):
        importlib.import_module(module.name)
    pending, found = [Trainer], set()
    while pending:
        found.add(cls := pending.pop())
        pending += cls.__subclasses__()
    return sorted((cls for cls in found if cls.__module__.startswith("mtdrive.")), key=lambda cls: cls.__name__)


def names_of_self(cls: type) -> tuple[set[str], set[str]]:
    """What the methods of a class read and what they set of `self`."""
    nodes = [
        node
        for node in ast.walk(ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    ]
    stored = {node.attr for node in nodes if isinstance(node.ctx, ast.Store)}
    return {node.attr for node in nodes} - stored, stored


@pytest.mark.parametrize("trainer", trainers(), ids=lambda trainer: trainer.__name__)
def test_what_our_trainers_override_or_read_of_their_bases_is_public_or_listed(trainer):
    theirs = [cls for cls in trainer.__mro__ if cls.__module__.split(".")[0] in PACKAGES]
    methods = {name for cls in theirs for name in vars(cls)}
    attributes = {name for cls in theirs for name in names_of_self(cls)[1]}
    for cls in trainer.__mro__:
        if cls.__module__.startswith("mtdrive."):
            read, stored = names_of_self(cls)
            private = {name for name in read | stored | vars(cls).keys() if is_private(name)}
            undocumented = (read | stored) & attributes - methods - DOCUMENTED_ATTRIBUTES
            assert (private & (methods | attributes) | undocumented) - LISTED_LAST == set(), cls
