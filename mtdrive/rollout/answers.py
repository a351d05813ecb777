"""The answers of a batch while they are being written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtdrive.rollout.generation import Completion


@dataclass(frozen=True)
class Verified:
    """What each row goes on with: the proposed tokens that were kept, and one more."""

    tokens: Tensor
    """(N, k + 1) int64"""
    log_probs: Tensor
    """(N, k + 1) float32, of each token under the model's distribution."""
    counts: Tensor
    """(N,) int64, from 1 to k + 1: how many there are; what stands behind them means nothing."""


class Answers:
    """Answers of N rows, of at most `limit` tokens, which end at one of the tokens `stop`.

    Attributes:
        tokens: (N, limit) int64; what stands behind `lengths` means nothing.
        lengths: (N,) int64 tokens so far.
        open: (N,) bool, False for an answer that has ended.
    """

    def __init__(self, rows: int, limit: int, stop: tuple[int, ...], device: torch.device):
        self.tokens = torch.zeros(rows, limit, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.open = torch.ones(rows, dtype=torch.bool, device=device)
        self._log_probs = torch.zeros(rows, limit, device=device)
        self._limit, self._stop = limit, torch.tensor(stop, device=device)

    @property
    def newest(self) -> Tensor:
        """(N,) the last token of each answer."""
        return self.tokens.gather(1, self.lengths[:, None] - 1)[:, 0]

    @property
    def room(self) -> Tensor:
        """(N,) tokens that each answer may still get."""
        return self._limit - self.lengths

    def extend(self, verified: Verified) -> Tensor:
        """Append tokens to the open answers, up to where they end. Returns (N,) how many."""
        steps = torch.arange(verified.tokens.shape[1], device=self.lengths.device)
        places = self.lengths[:, None] + steps
        valid = (steps < verified.counts[:, None]) & self.open[:, None] & (places < self._limit)
        stops = torch.isin(verified.tokens, self._stop) & valid
        valid &= stops.cumsum(1) - stops.long() == 0  # a stop token is the last that counts
        rows = valid.nonzero()[:, 0]
        self.tokens[rows, places[valid]] = verified.tokens[valid]
        self._log_probs[rows, places[valid]] = verified.log_probs[valid]
        taken = valid.sum(1)
        self.lengths = self.lengths + taken
        self.open = self.open & ~(stops & valid).any(1) & (self.lengths < self._limit)
        return taken

    def completion(self, row: int) -> Completion:
        """An answer as it stands."""
        length = int(self.lengths[row])
        return Completion(self.tokens[row, :length].cpu().numpy(), self._log_probs[row, :length].cpu().numpy())
