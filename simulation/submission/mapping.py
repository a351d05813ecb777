"""Which synthetic scenes belong to which recorded frames: navsim's `train_test_split/*_two_stage.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.submission.two_stage import Group

KEY = "reactive_all_mapping"
DEPTH = 8  # of nesting; a mapping has 5
LARGEST_FILE = 1 << 24  # bytes


def read_mapping(path: Path) -> tuple[Group, ...]:
    """Read the groups of a split: a list of [now, previous, [[now, previous], ...]] under KEY.

    Raises:
        MTDriveError: the file is missing, or holds no such list.
    """
    try:
        entries = _load(path)[KEY]
        groups = tuple(Group(now, previous, tuple(map(tuple, second))) for now, previous, second in entries)
    except OSError as error:
        raise MTDriveError(f"Cannot read mapping={path}: {error.strerror}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        groups = ()
    pairs = [pair for group in groups for pair in group.pairs]
    if not groups or not all(len(pair) == 2 and all(isinstance(token, str) for token in pair) for pair in pairs):
        raise MTDriveError(f"mapping={path} has no list {KEY} of [token, token, [[token, token], ...]].")
    return groups


def _load(path: Path) -> Any:
    """The content of a YAML file, with all scalars as strings. Aliases, which can expand without bound, are refused.

    Raises:
        OSError: the file cannot be read.
        yaml.YAMLError: it is no YAML.
        ValueError: it is too large, nested too deep, or has aliases.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"it has more than {LARGEST_FILE:,} bytes")
    text, depth = path.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text, Loader=yaml.CBaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("it has aliases, or is nested too deep")
    return yaml.load(text, Loader=yaml.CBaseLoader)
