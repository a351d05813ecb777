"""The index of a scene store: which scenes they are, and what has been compiled of which log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import SceneSet, read_scene_set
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.json_files import read_json

INDEX = "index.json"


@dataclass(frozen=True)
class LogEntry:
    """What has been compiled of a log."""

    log: str
    """Digest of the log's file."""

    tokens: list[str]
    """Tokens of its compiled scenes."""


@dataclass(frozen=True)
class Index:
    """What a store's `index.json` says."""

    scene_set: SceneSet
    """Which scenes they are."""

    listed: int | None
    """Number of tokens that the filter lists; None if it lists none."""

    complete: bool = False
    """Whether a build of all of the scenes has ended without a failure."""

    logs: dict[str, LogEntry] = field(default_factory=dict)
    """By log name."""


def read_index(folder: Path) -> Index | None:
    """The index of a store; None if it has none yet.

    Raises:
        MTDriveError: it is damaged, or of an earlier version.
    """
    path = folder / INDEX
    try:
        content = read_json(path)
        logs = {name: LogEntry(entry["log"], entry["tokens"]) for name, entry in content["logs"].items()}
        index = Index(read_scene_set(content["scene_set"]), content["listed"], content["complete"], logs)
        whole = (
            (index.listed is None or type(index.listed) is int)
            and type(index.complete) is bool
            and all(isinstance(entry.log, str) and type(entry.tokens) is list for entry in logs.values())
            and {type(token) for entry in logs.values() for token in entry.tokens} <= {str}
        )
        tokens = [token for entry in logs.values() for token in entry.tokens]
        once = whole and len(set(tokens)) == len(tokens)
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise MTDriveError(
            f"{path} is damaged or of an earlier version ({error}); delete it and run mtdrive cache."
        ) from error
    if not once:
        raise MTDriveError(f"{path} does not list each scene once, by log; delete it and run mtdrive cache.")
    return index


def write_index(folder: Path, index: Index) -> None:
    """Write the index of a store, atomically."""
    content = asdict(index)
    content["logs"] = dict(sorted(content["logs"].items()))
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def check_same(folder: Path, found: SceneSet, wanted: SceneSet) -> None:
    """Refuse a store of other scenes than wanted.

    Raises:
        MTDriveError: it is one.
    """
    if found != wanted:
        raise MTDriveError(
            f"{folder} holds the scenes of {found}, not of {wanted}; rename the filter's file, delete the folder, or "
            "choose another navsim_exp_root."
        )


def tokens_of(logs: dict[str, LogEntry]) -> dict[str, str]:
    """Token -> log name, log by log."""
    return {token: name for name, entry in logs.items() for token in entry.tokens}


def merged(index: Index, done: Sequence[tuple[str, str, list[str], set[str]]]) -> dict[str, LogEntry]:
    """The entries of an index with what a build has done; what is there of other logs, or of the same file, stays.

    done: log name, digest of its file, compiled tokens and failed tokens of each log.
    """
    logs = dict(index.logs)
    for name, digest, compiled, failed in done:
        earlier = logs.pop(name, None)
        kept = earlier.tokens if earlier and earlier.log == digest else []
        tokens = [token for token in dict.fromkeys([*kept, *compiled]) if token not in failed]
        if tokens:
            logs[name] = LogEntry(digest, tokens)
    return logs
