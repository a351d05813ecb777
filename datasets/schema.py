"""What is recorded: samples to learn from, and their parquet columns.

Everything a sample claims is computed by simulation: scores, feedback, corrections, and the answers of questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mtdrive.simulation.feedback.structured import Finding

VERSION = 3
LEFT_OUT = "without_image"  # key in the metadata of a shard: tokens of the scenes that were left out


@dataclass(frozen=True)
class Exchange:
    """One earlier turn: a flawed plan and the feedback on it."""

    poses: np.ndarray
    """(8, 3) plan."""

    source: str
    """Where the plan comes from."""

    score: float
    """Its true score."""

    feedback: str
    """Feedback text that it got."""

    issue: str
    """Sub-metric that the feedback objects to first (navsim's column name); empty for none."""


@dataclass(frozen=True)
class Target:
    """The plan to answer with."""

    poses: np.ndarray
    """(8, 3) plan."""

    source: str
    """`told` (the plan before it with the changes that its feedback asks for), `nearby` (the best of a search around
    the plan before it), `human`, `pdm_closed`, or `search` (the best of the scene's vocabulary)."""

    score: float
    """Its true score."""


@dataclass(frozen=True)
class Interaction:
    """Planning: flawed plans with their feedback, then the plan to answer with."""

    token: str
    """Scene token."""

    exchanges: tuple[Exchange, ...]
    """Earlier turns, oldest first; empty for single-turn planning."""

    target: Target
    """The plan to answer with."""

    @property
    def kind(self) -> str:
        """`refinement`, or `planning` without earlier turns."""
        return "refinement" if self.exchanges else "planning"

    @property
    def turns(self) -> int:
        """Turns of the model, the target's included."""
        return len(self.exchanges) + 1

    @property
    def plans(self) -> np.ndarray:
        """(turns, 8, 3) plans, the target last."""
        return np.stack([*(turn.poses for turn in self.exchanges), self.target.poses])

    @property
    def sources(self) -> tuple[str, ...]:
        """Where each plan comes from."""
        return *(turn.source for turn in self.exchanges), self.target.source

    @property
    def scores(self) -> tuple[float, ...]:
        """True score of each plan."""
        return *(turn.score for turn in self.exchanges), self.target.score

    @property
    def issue(self) -> str:
        """Sub-metric that the first feedback objects to first; empty for none."""
        return self.exchanges[0].issue if self.exchanges else ""

    @property
    def verdict(self) -> str:
        """Empty: an interaction is no question."""
        return ""


@dataclass(frozen=True)
class Question:
    """A question about one plan or two, and its answer."""

    token: str
    """Scene token."""

    kind: str
    """`collision` or `off_road` (about one plan), or `comparison` (which of two plans is safer)."""

    plans: np.ndarray
    """(K, 8, 3) plans that the question is about."""

    sources: tuple[str, ...]
    """Where each of the K plans comes from."""

    scores: tuple[float, ...]
    """True score of each of the K plans."""

    finding: Finding
    """What the question is about; of two plans, what is wrong with the less safe one."""

    safer: int | None = None
    """Index of the safer plan, 0 or 1; None where there is one plan."""

    @property
    def turns(self) -> int:
        """A question takes one turn."""
        return 1

    @property
    def issue(self) -> str:
        """Sub-metric that the question is about."""
        return self.finding.metric

    @property
    def verdict(self) -> str:
        """The answer in a word: `first` or `second` of two plans, else `yes` or `no`."""
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
