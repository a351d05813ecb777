"""Which synthetic scenes follow which recorded frames: navsim's `train_test_split/*_two_stage.yaml`."""

from __future__ import annotations

from pathlib import Path

import yaml

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.two_stage import Group

KEY = "reactive_all_mapping"


def read_mapping(path: Path) -> tuple[Group, ...]:
    """The groups of a split: a list of [now, previous, [[now, previous], ...]] under KEY.

    Raises:
        MTDriveError: the file is missing, or holds no such list.
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = yaml.load(file, yaml.BaseLoader)[KEY]  # texts alone: a token may look like a number
        groups = tuple(Group(now, previous, tuple(map(tuple, second))) for now, previous, second in entries)
    except OSError as error:
        raise MTDriveError(f"Cannot read mapping={path}: {error.strerror}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        groups = ()
    pairs = [pair for group in groups for pair in group.pairs]
    if not groups or not all(len(pair) == 2 and all(isinstance(token, str) for token in pair) for pair in pairs):
        raise MTDriveError(f"mapping={path} has no list {KEY} of [token, token, [[token, token], ...]].")
    return groups
