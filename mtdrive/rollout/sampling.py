"""The distribution that answers are sampled from, and under which training scores them: one definition for both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is sampled from the logits."""

    stop: tuple[int, ...]
    """Token ids that end an answer."""
    suppressed: tuple[int, ...]
    """Token ids that an answer never contains."""
    temperature: float = 1.0
    """Temperature of the softmax, above 0."""
    greedy: bool = False
    """Whether the likeliest token is taken instead of a random one."""

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities (..., V), in float32 or better, of every next token for logits (..., V)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits.index_fill(-1, torch.tensor(self.suppressed, device=logits.device), -torch.inf)
        return torch.log_softmax(logits / self.temperature, -1)

    def draw(self, logits: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Next tokens (N,) for logits (N, V), and their log-probabilities (N,)."""
        log_probs = self.log_probs(logits)
        tokens = log_probs.argmax(-1) if self.greedy else by_inversion(log_probs.double().exp(), generator)
        return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]


def by_inversion(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one of V by weights (N, V) float64, which need not add up to 1: (N,) int64.

    torch.multinomial draws a random number for every one of them.
    """
    cumulative = weights.cumsum(-1)
    uniform = torch.rand(len(weights), 1, generator=generator, dtype=torch.double, device=weights.device)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]


def sampling_params(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    temperature: float = 1.0,
    greedy: bool = False,
) -> SamplingParams:
    """Sampling parameters for a planner's answers.

    An answer ends at the end token of the tokenizer or of the model. It holds no other special token, since an image
    placeholder without an image would break the next forward pass.
    """
    ends = model.generation_config.eos_token_id
    stop = {tokenizer.eos_token_id, *([ends] if isinstance(ends, int) else ends or [])} - {None}
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    vocabulary = model.get_output_embeddings().weight.shape[0]
    unused = range(len(tokenizer), vocabulary)
    return SamplingParams(tuple(sorted(stop)), tuple(sorted((added | set(unused)) - stop)), temperature, greedy)
