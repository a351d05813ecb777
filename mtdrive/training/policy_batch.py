"""What one forward and backward pass of reinforcement learning reads: prompts, what follows them, and flat tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtdrive.rollout.encoding import Prompt
from mtdrive.rollout.episode import Episode
from mtdrive.training.log_probs import Continuation
from mtdrive.training.policy_losses import Tokens


@dataclass(frozen=True)
class PolicyBatch:
    """Episodes of some scenes, as one pass learns from them."""

    prompts: Sequence[Prompt]
    """Of the scenes."""

    continuations: Sequence[Continuation]
    """What follows the prompt in each episode, in order of scene."""

    tokens: Tokens
    """The M tokens that the planner wrote in the episodes; `log_probs` are still those of sampling."""

    denominator: Tensor
    """() int64, tokens that count in the loss, over all passes and processes of the step."""

    reference: Tensor | None = None
    """(M,) float32 log-probabilities [nat] under the planner that training began with; None without a KL term."""


def continuation(scene: int, episode: Episode) -> Continuation:
    """What follows the prompt in `episode`. scene: index of its prompt in the batch."""
    parts = [
        (turn.delta_ids if number else turn.delta_ids[:0], turn.completion_ids)
        for number, turn in enumerate(episode.turns)
    ]
    ids = np.concatenate([part for pair in parts for part in pair])
    action_mask = np.concatenate([np.repeat([False, True], [len(delta), len(answer)]) for delta, answer in parts])
    return Continuation(scene, ids, action_mask)


def flat_tokens(
    episodes: Sequence[Episode], advantages: np.ndarray | Sequence[np.ndarray], device: torch.device
) -> Tokens:
    """The tokens that the planner wrote in some episodes.

    Args:
        episodes: whose `log_probs` are those of sampling.
        advantages: (T,) of each episode's turns.
        device: of the result.
    """
    turns = [
        (number, row, advantage, turn)
        for row, (episode, of_turns) in enumerate(zip(episodes, advantages, strict=True))
        for number, (turn, advantage) in enumerate(zip(episode.turns, of_turns, strict=False))
    ]
    lengths = torch.tensor([len(turn.completion_ids) for *_, turn in turns], dtype=torch.int64, device=device)

    def spread(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.array(values), dtype=dtype, device=device).repeat_interleave(lengths)

    log_probs = np.concatenate([turn.log_probs for *_, turn in turns]) if turns else np.empty(0)
    sampled = torch.as_tensor(log_probs, dtype=torch.float32, device=device)
    return Tokens(
        log_probs=sampled,
        sampled=sampled,
        advantages=spread([advantage for _, _, advantage, _ in turns], torch.float32),
        episode=spread([row for _, row, _, _ in turns], torch.int64),
        turn=spread([number for number, *_ in turns], torch.int64),
    )
