"""Episodes on disk: one file format, its only writer and its only reader.

A file holds JSON lines: first a header that says what the episodes come from, then one line per episode. Poses stand
there as numbers in full precision, and NaN as null. Token ids and log-probabilities are kept if asked for, as training
needs them. Reading needs no deep-learning library and no other file; whatever does not fit is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mtdrive import __version__
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.simulation.baselines import NUM_POSES
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import SOURCES, Source
from mtdrive.simulation.navsim_format.names import image_hash_name, scene_token
from mtdrive.simulation.navsim_format.scene_filter import SceneSet, read_scene_set
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.json_files import read_json_lines

FORMAT, VERSION = "mtdrive-episodes", 2
AGAIN = "run mtdrive evaluate again"
T = TypeVar("T")


@dataclass(frozen=True)
class EpisodesHeader:
    """What the episodes of a file come from."""

    planner: str
    """Name or folder of the planner."""
    prompt_style: str
    """Name of the wording of its prompts."""
    scene_set: SceneSet
    """Which scenes they are some or all of."""
    metric: str
    """Score version that scores and feedback follow, such as "pdms_v1"."""
    metric_revision: int
    """Revision of that score version."""
    feedback_source: Source
    """Whose traffic the feedback was drawn from."""
    feedback_steps: bool
    """Whether the feedback told changes second by second."""
    turns: int
    """Turns that an episode may have."""
    temperature: float
    """Temperature of sampling; 0 for the likeliest tokens."""
    seed: int
    """Seed of sampling."""
    scenes: int
    """Number of scenes in the file."""
    mtdrive_version: str = __version__
    """Version of mtdrive that wrote the file."""


def write_episodes(
    path: Path, header: EpisodesHeader, episodes: Iterable[Episode], *, with_tokens: bool = False
) -> None:
    """Write a file of episodes, atomically. with_tokens: keep each turn's token ids and log-probabilities, too.

    Structured feedback is not kept; its text is.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        head = {"format": FORMAT, "version": VERSION, **asdict(header)}
        for document in chain([head], (_episode_document(episode, with_tokens) for episode in episodes)):
            file.write(json.dumps(document, allow_nan=False) + "\n")


def _episode_document(episode: Episode, with_tokens: bool) -> dict[str, Any]:
    return {
        "token": episode.scene_token,
        "family": episode.family,
        "image_hash": episode.image_hash,
        "status": episode.status.value,
        "turns": [_turn_document(turn, with_tokens) for turn in episode.turns],
    }


def _turn_document(turn: Turn, with_tokens: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "text": turn.text,
        "status": turn.status.value,
        "error": turn.error,
        "poses": None if turn.poses is None else turn.poses.tolist(),
        "score": _null_for_nan(turn.score),
        "scores": {name: _null_for_nan(value) for name, value in turn.scores.items()},
        "extended_comfort": _null_for_nan(turn.extended_comfort),
        "reward": _null_for_nan(turn.reward),
        "clean": turn.clean,
        "feedback": turn.feedback_text,
        "weights_version": turn.weights_version,
    }
    if with_tokens:
        document["delta_ids"] = turn.delta_ids.tolist()
        document["completion_ids"] = turn.completion_ids.tolist()
        document["log_probs"] = turn.log_probs.tolist()
    return document


def _null_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def read_episodes(path: Path) -> tuple[EpisodesHeader, tuple[Episode, ...]]:
    """Read a file that `write_episodes` wrote.

    Raises:
        MTDriveError: there is no such file, it is of an older or newer format, a line of it does not fit, or it was
            cut off. The message names file, line and cure.
    """
    line = 1
    episodes: list[Episode] = []
    try:
        documents = read_json_lines(path)
        header = _header(path, next(documents, None))
        line += 1
        for document in documents:
            episodes.append(_episode(document, header))
            line += 1
    except OSError as error:
        raise MTDriveError(f"{path} does not read as a file of episodes ({error.strerror}); {AGAIN}.") from error
    except (ValueError, OverflowError) as error:
        raise MTDriveError(f"{path}, line {line}: {error}; {AGAIN}.") from error
    if (found := len({episode.scene_token for episode in episodes})) != header.scenes:
        raise MTDriveError(f"{path} holds episodes of {found} scenes where its header says {header.scenes}; {AGAIN}.")
    return header, tuple(episodes)


def _header(path: Path, document: object) -> EpisodesHeader:
    if isinstance(document, dict) and "format" not in document and {"token", "turns"} <= document.keys():
        raise MTDriveError(f"{path} was written by an older mtdrive, without a header; {AGAIN}.")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise MTDriveError(f"{path} is no file of episodes, such as mtdrive evaluate writes; {AGAIN}.")
    if (version := _value(document, "version", int)) != VERSION:
        cure = "update mtdrive" if version > VERSION else AGAIN
        raise MTDriveError(
            f"{path} has version {version} of the format of episodes, and this mtdrive reads version {VERSION}; {cure}."
        )
    source = _value(document, "feedback_source", str)
    if source not in SOURCES:
        raise ValueError(f"feedback_source is neither {' nor '.join(SOURCES)}")
    return EpisodesHeader(
        planner=_value(document, "planner", str),
        prompt_style=_value(document, "prompt_style", str),
        scene_set=read_scene_set(_value(document, "scene_set", dict)),
        metric=_value(document, "metric", str),
        metric_revision=_value(document, "metric_revision", int),
        feedback_source=source,
        feedback_steps=_value(document, "feedback_steps", bool),
        turns=_value(document, "turns", int),
        temperature=_number(_value(document, "temperature", object), "temperature"),
        seed=_value(document, "seed", int),
        scenes=_value(document, "scenes", int),
        mtdrive_version=_value(document, "mtdrive_version", str),
    )


def _episode(document: object, header: EpisodesHeader) -> Episode:
    turns = _value(document, "turns", list)
    if not 1 <= len(turns) <= header.turns:
        raise ValueError(f"there are {len(turns)} turns where 1 to {header.turns} are possible")
    return Episode(
        scene_token=_name(document, "token", scene_token),
        image_hash=_name(document, "image_hash", image_hash_name),
        turns=tuple(map(_turn, turns)),
        status=EpisodeStatus(_value(document, "status", str)),
        family=_value(document, "family", str),
    )


def _turn(document: object) -> Turn:
    status, poses, score = TurnStatus(_value(document, "status", str)), _poses(document), _score(document, "score")
    if status is TurnStatus.OK and (poses is None or math.isnan(score)):
        raise ValueError("a turn of status ok has no poses or no score")
    scores = _value(document, "scores", dict)
    turn = Turn(
        delta_ids=_ids(document, "delta_ids"),
        completion_ids=_ids(document, "completion_ids"),
        log_probs=_log_probs(document),
        text=_value(document, "text", str),
        status=status,
        reward=_score(document, "reward"),
        feedback_text=_value(document, "feedback", str),
        error=_optional(document, "error", str),
        poses=poses,
        score=score,
        scores={name: _score(scores, name) for name in scores},
        extended_comfort=_score(document, "extended_comfort"),
        clean=_value(document, "clean", bool),
        weights_version=_optional(document, "weights_version", int),
    )
    if len(turn.log_probs) != len(turn.completion_ids):
        raise ValueError("log_probs is not as long as completion_ids")
    return turn


def _poses(document: object) -> np.ndarray | None:
    rows = _optional(document, "poses", list)
    if rows is None:
        return None
    if len(rows) != NUM_POSES or not all(isinstance(row, list) and len(row) == 3 for row in rows):
        raise ValueError(f"poses are not {NUM_POSES} times x, y, heading")
    return np.array([[_number(value, "a pose") for value in row] for row in rows])


def _ids(document: object, key: str) -> np.ndarray:
    """(n,) int64; empty where the file was written without tokens."""
    ids = _kept(document, key)
    if not all(type(token) is int and 0 <= token < 1 << 31 for token in ids):
        raise ValueError(f"{key} are not token ids")
    return np.array(ids, dtype=np.int64)


def _log_probs(document: object) -> np.ndarray:
    """(n,) float32; empty where the file was written without tokens."""
    return np.array([_number(value, "a log-probability") for value in _kept(document, "log_probs")], dtype=np.float32)


def _kept(document: object, key: str) -> list[object]:
    return _value(document, key, list) if isinstance(document, dict) and key in document else []


def _score(document: object, key: str) -> float:
    """A number, NaN where the file has null."""
    value = _value(document, key, object)
    return math.nan if value is None else _number(value, key)


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} is not a finite number")
    return float(value)


def _optional(document: object, key: str, kind: type[T]) -> T | None:
    return None if _value(document, key, object) is None else _value(document, key, kind)


def _value(document: object, key: str, kind: type[T]) -> T:
    if not isinstance(document, dict) or key not in document:
        raise ValueError(f"{key} is missing")
    value = document[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{key} is of type {type(value).__name__}, not {kind.__name__}")
    return value


def _name(document: object, key: str, check: Callable[[object], str]) -> str:
    """A name that becomes a part of paths."""
    try:
        return check(_value(document, key, object))
    except MTDriveError as error:
        raise ValueError(f"{key} is no name that a file could have") from error
