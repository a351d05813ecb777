"""The interface of policy losses: what one reads, and what it consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The M tokens that the planner wrote in some episodes, episode after episode and turn after turn."""

    log_probs: Tensor
    """(M,) float32 [nat], under the weights in training; carries the gradient."""

    sampled: Tensor
    """(M,) float32 [nat], log-probabilities under the weights that sampled the tokens."""

    advantages: Tensor
    """(M,) float32, of each token's turn."""

    episode: Tensor
    """(M,) int64, index of each token's episode in the batch."""

    turn: Tensor
    """(M,) int64, index of each token's turn in its episode."""

    @property
    def ratio(self) -> Tensor:
        """(M,) probability under the weights in training, over that under the weights that sampled."""
        return torch.exp(self.log_probs - self.sampled)


@dataclass(frozen=True)
class PolicyLossConfig:
    """Parameters of all policy losses; each reads those that concern it."""

    clip: float = 0.2
    """How far a probability ratio may be from 1 and still be pushed further."""


def all_tokens(tokens: Tokens, config: PolicyLossConfig) -> Tensor:
    """(M,) bool: accepts every token."""
    return torch.ones_like(tokens.sampled, dtype=torch.bool)


@dataclass(frozen=True)
class PolicyLoss:
    """A way to turn advantages into gradients."""

    loss: Callable[[Tokens, PolicyLossConfig], Tensor]
    """-> (M,) loss of each token; 0 without gradient where the advantage is 0, or where the token is rejected."""

    watch: Callable[[Tokens, PolicyLossConfig], dict[str, Tensor]]
    """-> (M,) float32 by name, to be logged: the mean over tokens, and the extremes of the episodes' means."""

    accept: Callable[[Tokens, PolicyLossConfig], Tensor] = all_tokens
    """-> (M,) bool, the tokens that count; must not read `log_probs`."""
