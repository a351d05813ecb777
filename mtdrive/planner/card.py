"""`planner.yaml`: what the planner in a folder is, and what it has learned, beside its weights.

It is the last file that is written, so a folder that has one is whole. The same planner gives the same bytes: it
holds no time and no path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path

CARD = "planner.yaml"
VERSION = 1
LARGEST = 1 << 16  # bytes; a stage takes about 250
DEEPEST = 3  # levels of nesting: the card, its list of stages, a stage
LONGEST_NAME = 300  # characters
HEADER = "# What this planner is and what it has learned; written by mtdrive.\n"

Verb = Literal["sft", "rl"]
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One training run that a planner has been through."""

    verb: Verb
    """What trained it: `mtdrive sft` or `mtdrive rl`."""

    seed: int
    """Seed of the run."""

    steps: int
    """Optimiser steps that were made."""

    mtdrive: str
    """Version of mtdrive that trained it."""

    split: str
    """Split of the scenes that it learned from."""

    metric: str
    """Score version of its feedback and rewards, for instance `pdms_v1`."""

    metric_revision: int
    """Revision of that score version (`ScoreVersion.revision`)."""

    feedback: str
    """Source of its feedback: `privileged` or `perceived`."""

    feedback_steps: bool
    """Whether its feedback named changes second by second."""

    turns: int | None
    """Most turns of an episode in `rl`; None for `sft`, whose samples each have their own number."""

    data: str
    """Digest of what it learned from: the dataset's manifest for `sft`, the scenes' tokens for `rl`."""


@dataclass(frozen=True)
class PlannerCard:
    """What a planner is, and what it has learned."""

    mtdrive: str
    """Version of mtdrive that saved it."""

    base: str
    """Model that the first stage began with: a Hugging Face name, the name of a folder, or `tiny` with its seed."""

    prompt: str
    """Name of the prompt style that it learned (`prompt.PROMPTS`)."""

    wording: str
    """Fingerprint of everything that was said to it in that style (`wording.wording_fingerprint`)."""

    answer: str
    """Fingerprint of the format of its answers (`wording.answer_fingerprint`)."""

    max_new_tokens: int
    """Upper bound for the tokens of one answer."""

    dtype: str
    """Name of the torch type of its weights, for instance `bfloat16`."""

    stages: tuple[Stage, ...] = ()
    """The runs that trained it, oldest first."""


def read_card(folder: str | Path) -> PlannerCard:
    """The card of a planner's folder.

    Raises:
        MTDriveError: there is none, or it is damaged, too large or of a newer version.
    """
    path = Path(folder) / CARD
    if not has_card(folder):
        raise MTDriveError(
            f"{folder} holds no {CARD}; for weights from elsewhere say planner=qwen2_5_vl_7b planner.model={folder}."
        )
    try:
        content = _mapping(path)
        version = content.pop("version", None)
        if not _has_type(version, int):
            raise ValueError("it has no version")
        if version != VERSION:
            raise MTDriveError(f"{path} has version {version}, not {VERSION}; load it with the mtdrive that wrote it.")
        return _card(content)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MTDriveError(
            f"{path} is damaged ({_reason(error)}); copy the planner again, or delete the file and name the weights "
            f"alone: planner=qwen2_5_vl_7b planner.model={folder}."
        ) from error


def has_card(folder: str | Path) -> bool:
    """Whether a folder holds a card; False for a name that no file can have, too."""
    return os.path.exists(Path(folder) / CARD)


def write_card(folder: str | Path, card: PlannerCard) -> None:
    """Write the card of a planner's folder, which must hold everything else by now."""
    content = {"version": VERSION, **asdict(card), "stages": [asdict(stage) for stage in card.stages]}
    with atomic_path(Path(folder) / CARD) as path:
        path.write_text(HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


@contextmanager
def saving(folder: str | Path, card: PlannerCard) -> Iterator[None]:
    """A block that saves a planner's weights in a folder, which has no card until the block has ended well."""
    (Path(folder) / CARD).unlink(missing_ok=True)
    yield
    write_card(folder, card)


def _mapping(path: Path) -> dict:
    """The keys and values in a file. Raises OSError, ValueError or yaml.YAMLError."""
    with path.open("rb") as file:
        text = file.read(LARGEST + 1).decode()
    if len(text) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):  # a few aliases can stand for gigabytes
            raise ValueError("it has aliases, or is nested too deep")
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise ValueError("it has no keys")
    return content


def _card(content: dict) -> PlannerCard:
    """The card with these values. Raises ValueError."""
    stages = content.get("stages")
    if not isinstance(stages, list):
        raise ValueError("it has no list of stages")
    card = _checked(PlannerCard, content | {"stages": tuple(_checked(Stage, stage) for stage in stages)})
    if card.max_new_tokens < 1:
        raise ValueError("its max_new_tokens is 0")
    return card


def _checked(kind: type[T], content: object) -> T:
    """The dataclass whose fields have these values. Raises ValueError."""
    hints = get_type_hints(kind)
    if not isinstance(content, dict):
        raise ValueError("a stage has no keys")
    for key in hints:
        if key not in content or not _has_type(content[key], hints[key]):
            raise ValueError(f"it has no {key} such as mtdrive writes")
    if unknown := content.keys() - hints.keys():
        raise ValueError(f"it has an unknown key {str(min(map(str, unknown)))[:40]!r}")
    return kind(**content)


def _has_type(value: object, hint: Any) -> bool:
    """Whether a value is of a field's type; numbers are not negative, and texts printable and short."""
    if isinstance(hint, UnionType):
        return any(_has_type(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is int:
        return type(value) is int and 0 <= value < 1 << 63
    if hint is str:
        return isinstance(value, str) and value.isprintable() and 0 < len(value) <= LONGEST_NAME
    return isinstance(value, get_origin(hint) or hint)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if type(error) is ValueError else "it is no YAML"  # PyYAML quotes the file over several lines
