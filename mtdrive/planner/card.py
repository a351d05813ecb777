"""`planner.yaml`: what the planner in a folder is, and what it has learned, beside its weights.

It is the last file that is written, so a folder that has one is whole. The same planner gives the same bytes: it
holds no time and no path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path

CARD = "planner.yaml"
VERSION = 1
LARGEST = 1 << 16  # bytes; a stage takes about 250
DEEPEST = 3  # levels of nesting: the card, its list of stages, a stage
LONGEST_PLACE = 60  # characters of the name of a wrong value that a message shows
HEADER = "# What this planner is and what it has learned; written by mtdrive.\n"

STRICT = ConfigDict(extra="forbid", strict=True)
Text = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
Whole = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Stage:
    """One training run that a planner has been through."""

    __pydantic_config__ = STRICT

    verb: Literal["sft", "rl"]
    """What trained it: `mtdrive sft` or `mtdrive rl`."""

    seed: Whole
    """Seed of the run."""

    steps: Whole
    """Optimiser steps that were made."""

    mtdrive: Text
    """Version of mtdrive that trained it."""

    split: Text
    """Split of the scenes that it learned from."""

    metric: Text
    """Score version of its feedback and rewards, for instance `pdms_v1`."""

    metric_revision: Whole
    """Revision of that score version (`ScoreVersion.revision`)."""

    feedback: Text
    """Source of its feedback: `privileged` or `perceived`."""

    feedback_steps: bool
    """Whether its feedback named changes second by second."""

    turns: Whole | None
    """Most turns of an episode in `rl`; None for `sft`, whose samples each have their own number."""

    data: Text
    """Digest of what it learned from: the dataset's manifest for `sft`, the scenes' tokens for `rl`."""


@dataclass(frozen=True)
class PlannerCard:
    """What a planner is, and what it has learned."""

    __pydantic_config__ = STRICT

    mtdrive: Text
    """Version of mtdrive that saved it."""

    base: Text
    """Model that the first stage began with: a Hugging Face name, the name of a folder, or `tiny` with its seed."""

    prompt: Text
    """Name of the prompt style that it learned (`prompt.PROMPTS`)."""

    wording: Text
    """Fingerprint of everything that was said to it in that style (`wording.wording_fingerprint`)."""

    answer: Text
    """Fingerprint of the format of its answers (`wording.answer_fingerprint`)."""

    max_new_tokens: Annotated[int, Field(ge=1, lt=2**63)]
    """Upper bound for the tokens of one answer."""

    dtype: Text
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
            f"{folder} holds no {CARD}; for a released MTDrive checkpoint say planner=mtdrive_sft, for other weights "
            f"from elsewhere planner=qwen2_5_vl_7b planner.model={folder}."
        )
    try:
        content = _mapping(path)
        version = content.pop("version", None)
        if type(version) is not int or version < 1:
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
    try:
        return TypeAdapter(PlannerCard).validate_json(json.dumps(content), strict=True)
    except TypeError:
        raise ValueError("it has a value such as mtdrive never writes") from None
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ValueError(f"it has no {place[:LONGEST_PLACE]!r} such as mtdrive writes") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if type(error) is ValueError else "it is no YAML"  # PyYAML quotes the file over several lines
