"""Log-probabilities of the tokens that a planner wrote in multi-turn episodes, with gradients.

Two ways with the same result and the same gradients: `shared_prefix` computes each scene's image and prompt once for
all its episodes and packs everything without padding; `plain` is the ordinary padded batch in which every episode
repeats its prompt and image. Both go through the model's own forward call, once, as wrappers for several GPUs need.
"""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from mtdrive.planner.tokens import join_images
from mtdrive.rollout import shared_prefix
from mtdrive.rollout.encoding import Prompt, position_ids, takes_token_types
from mtdrive.rollout.flex_segments import segments_for
from mtdrive.rollout.sampling import SamplingParams

logger = logging.getLogger(__name__)

LOGITS_AT_ONCE = 2**24  # per chunk of the language-model head; larger batches are recomputed in the backward pass


@dataclass(frozen=True)
class Continuation:
    """What follows the prompt in one episode."""

    scene: int
    """Index of its prompt in the batch."""

    ids: np.ndarray
    """(n,) int64 tokens: the first answer, the feedback on it, the second answer..."""

    action_mask: np.ndarray
    """(n,) bool, True on the tokens that the planner wrote."""


def add_scoring(model: PreTrainedModel, sampling: SamplingParams) -> None:
    """Teach `model` to be called with `scored` and `targets`.

    It then returns (log-probabilities, entropies), each (M,), of the token `targets[m]` after the m-th position
    `scored[m]` of the flattened batch, under the distribution that answers are sampled from.
    """
    original = model.forward

    @functools.wraps(type(model).forward)
    def forward(self, *args, scored: Tensor | None = None, targets: Tensor | None = None, **kwargs):
        if scored is None or targets is None:
            return original(*args, **kwargs)
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        hidden = hidden.flatten(0, 1).index_select(0, scored)
        head = self.get_output_embeddings()

        def score(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            log_probs = sampling.log_probs(head(hidden))
            with torch.no_grad():
                entropy = -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)
            return log_probs.gather(-1, targets[:, None])[:, 0], entropy

        rows = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
        if len(scored) <= rows or not torch.is_grad_enabled():
            parts = [score(*part) for part in zip(hidden.split(rows), targets.split(rows), strict=True)]
        else:
            parts = [
                checkpoint(score, *part, use_reentrant=False)
                for part in zip(hidden.split(rows), targets.split(rows), strict=True)
            ]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    model.forward = types.MethodType(forward, model)


def inputs_of(model: PreTrainedModel | PeftModel) -> Callable[..., dict]:
    """`shared_prefix_inputs`, or `plain_inputs` with a logged warning for a model that cannot share prompts."""
    if reason := shared_prefix.unsupported_reason(model):
        logger.warning(
            "The loss of %s computes image and prompt for every episode, as it %s.",
            shared_prefix.name_of(model),
            reason,
        )
        return plain_inputs
    return shared_prefix_inputs


def shared_prefix_inputs(
    model: PreTrainedModel, prompts: Sequence[Prompt], continuations: Sequence[Continuation]
) -> dict:
    """Arguments of the model's call, in which each prompt stands once and nothing is padded.

    Args:
        model: unwrapped, for its positions and device.
        prompts: of the scenes.
        continuations: of the episodes, in order of scene, every scene at least once.

    Returns:
        keyword arguments for a model with `add_scoring`; its log-probabilities come in order of episode, then token.
    """
    device = model.device
    positions = [position_ids(model, prompt) for prompt in prompts]
    prompt_lengths = [len(prompt.ids) - 1 for prompt in prompts]
    episodes = [np.concatenate([prompts[c.scene].ids[-1:], c.ids]) for c in continuations]
    lengths = [len(ids) for ids in episodes]
    scenes = [c.scene for c in continuations]
    segments = segments_for(device)(prompt_lengths, lengths, scenes, device)
    action_mask = np.concatenate([np.append(c.action_mask, False) for c in continuations])
    scored = sum(prompt_lengths) + np.flatnonzero(action_mask)
    packed = np.concatenate([*(prompt.ids[:-1] for prompt in prompts), *episodes])
    follow = [
        positions[c.scene][:, -1:] + torch.arange(length, device=device)
        for c, length in zip(continuations, lengths, strict=True)
    ]
    position = torch.cat([*(p[:, :-1] for p in positions), *follow], 1)
    return {
        **shared_prefix.packed_inputs(torch.as_tensor(packed), position, segments),
        **_images(prompts, device),
        "scored": torch.as_tensor(scored, device=device),
        "targets": torch.as_tensor(packed[scored + 1], device=device),
    }


def plain_inputs(model: PreTrainedModel, prompts: Sequence[Prompt], continuations: Sequence[Continuation]) -> dict:
    """As `shared_prefix_inputs`, but each episode is a row with its own prompt, right-padded."""
    device = model.device
    rows = [np.concatenate([prompts[c.scene].ids, c.ids]) for c in continuations]
    shape = (len(rows), max(map(len, rows)))
    ids, types, mask, scored_mask = (np.zeros(shape, dtype=np.int64) for _ in range(4))
    for row, (tokens, c) in enumerate(zip(rows, continuations, strict=True)):
        start = len(prompts[c.scene].ids)
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        types[row, :start] = prompts[c.scene].token_types
        scored_mask[row, start - 1 : len(tokens) - 1] = c.action_mask
    scored = np.flatnonzero(scored_mask)
    inputs: dict[str, np.ndarray] = {"input_ids": ids, "attention_mask": mask}
    if takes_token_types(model):
        inputs["mm_token_type_ids"] = types
    inputs |= {"scored": scored, "targets": ids.ravel()[scored + 1]}
    return {
        **{name: torch.as_tensor(value, device=device) for name, value in inputs.items()},
        **_images([prompts[c.scene] for c in continuations], device),
        "use_cache": False,
    }


def _images(prompts: Sequence[Prompt], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in join_images([prompt.images for prompt in prompts]).items()}
