"""What a policy loss reads, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The M tokens that the planner wrote in some episodes, episode after episode and turn after turn.

    log_probs: (M,) float32 [nat], under the weights in training; carries the gradient.
    sampled: (M,) float32 [nat], under the weights that sampled them.
    advantages: (M,) float32, of each token's turn.
    episode: (M,) int64, number of the episode among those at hand, from 0.
    turn: (M,) int64, number of the turn in its episode, from 0.
    """

    log_probs: Tensor
    sampled: Tensor
    advantages: Tensor
    episode: Tensor
    turn: Tensor

    @property
    def ratio(self) -> Tensor:
        """(M,) probability under the weights in training, over that under the weights that sampled."""
        return torch.exp(self.log_probs - self.sampled)


@dataclass(frozen=True)
class PolicyLossConfig:
    """What the losses can be told.

    clip: bound on how far a probability ratio may be from 1 and still be pushed further.
    """

    clip: float = 0.2


def all_tokens(tokens: Tokens, config: PolicyLossConfig) -> Tensor:
    """Accepts every token."""
    return torch.ones_like(tokens.sampled, dtype=torch.bool)


@dataclass(frozen=True)
class PolicyLoss:
    """A way to turn advantages into gradients.

    loss: -> (M,) loss of each token; 0 without gradient where the advantage is 0, or where the token is rejected.
    watch: -> (M,) float32 by name, what to log of each token: means over tokens, extremes of the episodes' means.
    accept: -> (M,) bool, the tokens that count; reads no log_probs.
    """

    loss: Callable[[Tokens, PolicyLossConfig], Tensor]
    watch: Callable[[Tokens, PolicyLossConfig], dict[str, Tensor]]
    accept: Callable[[Tokens, PolicyLossConfig], Tensor] = all_tokens
