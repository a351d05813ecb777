"""PPO's clipped objective (arXiv 1707.06347), as GRPO uses it: ratio times advantage, with no reward for going further
than `clip` away from the policy that sampled."""

from __future__ import annotations

import torch
from torch import Tensor

from mtdrive.training.policy_losses.tokens import PolicyLoss, PolicyLossConfig, Tokens


def loss(tokens: Tokens, config: PolicyLossConfig) -> Tensor:
    """-min(ratio * A, clipped ratio * A) of each token (M,)."""
    ratio, advantages = tokens.ratio, tokens.advantages
    return -torch.min(ratio * advantages, ratio.clamp(1 - config.clip, 1 + config.clip) * advantages)


def watch(tokens: Tokens, config: PolicyLossConfig) -> dict[str, Tensor]:
    """(M,) 1 where the bound stops the gradient, else 0: at its lower end, at its upper end, at either."""
    ratio, advantages = tokens.ratio.detach(), tokens.advantages
    low = ((ratio < 1 - config.clip) & (advantages < 0)).float()
    high = ((ratio > 1 + config.clip) & (advantages > 0)).float()
    return {"clip_ratio/low": low, "clip_ratio/high": high, "clip_ratio/region": low + high}


CLIP = PolicyLoss(loss, watch)
