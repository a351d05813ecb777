"""What is recorded: interactions between a planner and the closed loop, and their parquet columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

VERSION = 1


@dataclass(frozen=True)
class Exchange:
    """One earlier turn: a plan (8, 3), where it comes from, its true score, and the feedback it got."""

    poses: np.ndarray
    source: str
    score: float
    feedback: str


@dataclass(frozen=True)
class Target:
    """A plan (8, 3) to answer with, its true score, and its source.

    source: `told` (the plan before it with the changes that its feedback names), `human`, `pdm_closed`, `search`.
    """

    poses: np.ndarray
    source: str
    score: float


@dataclass(frozen=True)
class Interaction:
    """A conversation to learn from: flawed plans with their feedback, then the plan to answer with.

    token: scene token. exchanges: earlier turns, oldest first; empty for single-turn planning.
    """

    token: str
    exchanges: tuple[Exchange, ...]
    target: Target


CONTENT = pa.struct([("type", pa.string()), ("text", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # <scene token>-<row of the scene>
        ("token", pa.string()),  # scene
        ("turns", pa.int8()),  # model turns in the conversation, the target's included
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(CONTENT))]))),
        ("image", pa.string()),  # content hash: the file images/<hash>.jpg of the dataset
        ("scores", pa.list_(pa.float64())),  # true score of each turn's plan
        ("sources", pa.list_(pa.string())),  # where each turn's plan comes from
        ("metric", pa.string()),
        ("feedback", pa.string()),  # source of the feedback: privileged | perceived
        ("seed", pa.int64()),
    ]
)
