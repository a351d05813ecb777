"""What is recorded: samples to learn from, and their parquet columns.

Everything a sample claims is computed by simulation: scores, feedback, corrections, and the answers of questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mtdrive.simulation.feedback.structured import Finding

VERSION = 2


@dataclass(frozen=True)
class Exchange:
    """One earlier turn: a plan (8, 3), where it comes from, its true score, the feedback it got, and the sub-metric
    that the feedback objects to first (navsim's column name, empty for none)."""

    poses: np.ndarray
    source: str
    score: float
    feedback: str
    issue: str


@dataclass(frozen=True)
class Target:
    """A plan (8, 3) to answer with, its true score, and its source.

    source: `told` (the plan before it with the changes that its feedback names), `nearby` (the best of a search around
    the plan before it), `human`, `pdm_closed`, `search` (the best of the scene's vocabulary).
    """

    poses: np.ndarray
    source: str
    score: float


@dataclass(frozen=True)
class Interaction:
    """Planning: flawed plans with their feedback, then the plan to answer with.

    token: scene token. exchanges: earlier turns, oldest first; empty for single-turn planning.
    """

    token: str
    exchanges: tuple[Exchange, ...]
    target: Target

    @property
    def kind(self) -> str:
        return "refinement" if self.exchanges else "planning"

    @property
    def turns(self) -> int:
        return len(self.exchanges) + 1

    @property
    def plans(self) -> np.ndarray:
        return np.stack([*(turn.poses for turn in self.exchanges), self.target.poses])

    @property
    def sources(self) -> tuple[str, ...]:
        return *(turn.source for turn in self.exchanges), self.target.source

    @property
    def scores(self) -> tuple[float, ...]:
        return *(turn.score for turn in self.exchanges), self.target.score

    @property
    def issue(self) -> str:
        return self.exchanges[0].issue if self.exchanges else ""

    @property
    def verdict(self) -> str:
        return ""


@dataclass(frozen=True)
class Question:
    """A question about one plan or two, and what answers it.

    kind: `collision` or `off_road` (of one plan), `comparison` (which of two is safer). plans: (K, 8, 3).
    sources: of each plan. scores: true score of each. finding: what the question is about; of two plans, what is wrong
    with the less safe one. safer: which plan is, 0 or 1; None if there is only one.
    """

    token: str
    kind: str
    plans: np.ndarray
    sources: tuple[str, ...]
    scores: tuple[float, ...]
    finding: Finding
    safer: int | None = None

    @property
    def turns(self) -> int:
        return 1

    @property
    def issue(self) -> str:
        return self.finding.metric

    @property
    def verdict(self) -> str:
        if self.safer is not None:
            return ("first", "second")[self.safer]
        return "no" if self.finding.passed else "yes"


Sample = Interaction | Question

CONTENT = pa.struct([("type", pa.string()), ("text", pa.string())])
POSES = pa.list_(pa.list_(pa.float64()))
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # <scene token>-<row of the scene>
        ("token", pa.string()),  # scene
        ("family", pa.string()),  # kind of scene, empty where it is not known
        ("kind", pa.string()),  # planning | refinement | collision | off_road | comparison
        ("turns", pa.int8()),  # model turns in the conversation, the target's included
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(CONTENT))]))),
        ("image", pa.string()),  # content hash: the file images/<hash>.jpg of the dataset
        ("plans", pa.list_(POSES)),  # poses of each turn's plan, or of those that a question is about; exact
        ("scores", pa.list_(pa.float64())),  # true score of each plan
        ("sources", pa.list_(pa.string())),  # where each plan comes from
        ("issue", pa.string()),  # sub-metric that the feedback objects to first, or that the question is about
        ("verdict", pa.string()),  # a question's answer in a word: yes | no, or first | second
        ("metric", pa.string()),
        ("metric_version", pa.int32()),
        ("feedback", pa.string()),  # source of feedback and answers: privileged | perceived
        ("seed", pa.int64()),
        ("generator", pa.string()),  # program and version that recorded the row
    ]
)
