"""Speculative sampling: which proposed tokens to keep so that answers are distributed as without any proposal.

A proposed token is kept with the probability min(1, p / q) of the model's p and the proposer's q; where one is refused,
the token is drawn from what p has more than q (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtdrive.rollout.answers import Verified
from mtdrive.rollout.drafting.proposal import Draft
from mtdrive.rollout.sampling import SamplingParams, by_inversion


def verify(sampling: SamplingParams, logits: Tensor, draft: Draft, generator: torch.Generator | None) -> Verified:
    """Check proposed tokens.

    Args:
        sampling: the distribution of answers.
        logits: (N, k + 1, V) of the model, after a row's newest token and after each proposed one.
        draft: what was proposed.
        generator: source of randomness.
    """
    if not draft.tokens.shape[1]:
        drawn, values = sampling.draw(logits[:, 0], generator)
        return Verified(drawn[:, None], values[:, None], torch.ones_like(draft.counts))
    log_probs = sampling.log_probs(logits)
    rows, most = draft.tokens.shape
    index = torch.arange(rows, device=logits.device)
    proposed = log_probs[:, :most].gather(-1, draft.tokens[..., None])[..., 0]  # (N, k)
    if sampling.greedy:
        kept = log_probs[:, :most].argmax(-1) == draft.tokens
    else:
        chance = torch.rand(rows, most, generator=generator, dtype=torch.double, device=logits.device)
        if draft.probabilities is not None:
            chance = chance * draft.probabilities.gather(-1, draft.tokens[..., None])[..., 0]
        kept = chance < proposed.double().exp()
    kept &= torch.arange(most, device=logits.device) < draft.counts[:, None]
    counts = kept.cumprod(1).sum(1)  # (N,) proposed tokens that stay

    last = log_probs[index, counts]  # (N, V)
    if sampling.greedy:
        drawn = last.argmax(-1)
    else:
        drawn = by_inversion(_remaining(last, draft, counts), generator)
    tokens = torch.cat([draft.tokens, drawn[:, None]], 1)
    tokens[index, counts] = drawn
    values = torch.cat([proposed, proposed.new_zeros(rows, 1)], 1)
    values[index, counts] = last[index, drawn]
    return Verified(tokens, values, counts + 1)


def _remaining(log_probs: Tensor, draft: Draft, counts: Tensor) -> Tensor:
    """Weights (N, V) float64 of the token after those that stay; where one was refused, without what it stood for."""
    weights = log_probs.double().exp()
    refused = (counts < draft.counts).nonzero()[:, 0]
    at = counts[refused]
    if draft.probabilities is None:
        weights[refused, draft.tokens[refused, at]] = 0.0
        return weights
    left = (weights[refused] - draft.probabilities[refused, at].double()).clamp(min=0.0)
    # Rounding can leave nothing where both distributions are the same.
    weights[refused] = torch.where(left.sum(-1, keepdim=True) > 0, left, weights[refused])
    return weights
