"""What drafting is made of: a proposer guesses the next tokens of each answer, and one pass checks them all.

Letters in shapes: N rows (the active episodes), k most tokens proposed at once, V vocabulary, T packed
tokens of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mtdrive.rollout.answers import Answers


@dataclass(frozen=True)
class Draft:
    """Tokens proposed to follow the newest of each row."""

    tokens: Tensor
    """(N, k) int64"""
    counts: Tensor
    """(N,) int64, how many of a row's tokens are proposed; what stands behind them means nothing."""
    probabilities: Tensor | None = None
    """(N, k, V) float32 distributions that the tokens were drawn from; None if nothing was left to chance."""

    def cut(self, most: Tensor) -> Draft:
        """The same with at most so many tokens (N,) of each row."""
        counts = self.counts.minimum(most)
        width = int(counts.max())
        chances = None if self.probabilities is None else self.probabilities[:, :width]
        return Draft(self.tokens[:, :width], counts, chances)

    def after(self, newest: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """The newest token (N,) of the rows to be `read` (N,) bool, with what is proposed to follow it.

        Returns:
            (T,) int64 packed, and (N,) how many tokens of each row.
        """
        tokens = torch.cat([newest[:, None], self.tokens], 1)
        counts = torch.where(read, self.counts + 1, 0)
        return tokens[torch.arange(tokens.shape[1], device=newest.device) < counts[:, None]], counts


def nothing(like: Tensor) -> Draft:
    """A draft without any token, for as many rows and on the device of `like` (N,) int64."""
    return Draft(like.new_empty(len(like), 0), torch.zeros_like(like))


@dataclass(frozen=True)
class Progress:
    """Where the answers stand after a pass, and what the pass computed of the tokens that stay in the cache."""

    answers: Answers
    """The answers so far, of at least one token; the model has not read the newest yet."""
    read: Tensor
    """(T,) int64 tokens that the pass read and that stay, packed by row; the newest token follows a row's last."""
    counts: list[int]
    """(N,) how many of them each row has; none if its answer had ended before."""
    hidden: Tensor
    """(T, D) last hidden states of the model at `read`."""


class Proposer(Protocol):
    """Proposes tokens in one generation session.

    Attributes:
        most: k.
    """

    most: int

    def read_prompts(self, prompts: Sequence[np.ndarray], positions: Tensor, hidden: Tensor) -> None:
        """The session has read its prompts.

        Args:
            prompts: (P,) int64 tokens of each.
            positions: (A, T) rotary positions of all tokens but the last of each prompt, packed.
            hidden: (T, D) last hidden states of the model there.
        """

    def begin(self, episodes: list[int]) -> None:
        """A turn begins for these episodes, whose rows are in this order; all others have left."""

    def propose(self, progress: Progress) -> Draft:
        """Called after every pass. What is proposed to a row that has ended is not used."""

    def end(self, answers: list[np.ndarray]) -> None:
        """The turn is over: the (n,) int64 answer of each row."""
