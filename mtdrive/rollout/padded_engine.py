"""Generation by the model's own `generate`, for models whose attention cannot share prompts.

Every turn prefills each episode's whole conversation again, image included, in one left-padded batch. Nothing is kept
between turns: conversations grow by different lengths, and a window or a recurrent state that runs over the padding
between two turns would see less than in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from mtdrive.planner.tokens import join_images
from mtdrive.rollout.encoding import Prompt, takes_token_types
from mtdrive.rollout.generation import Completion
from mtdrive.rollout.sampling import SamplingParams
from mtdrive.rollout.shared_prefix import core


class PaddedEngine:
    """A `GenerationEngine` on any vision-language model. max_new_tokens: upper bound for the tokens of one answer."""

    def __init__(self, model: PreTrainedModel | PeftModel, sampling_params: SamplingParams, max_new_tokens: int):
        self.model, self.sampling_params, self.max_new_tokens = model, sampling_params, max_new_tokens

    def open(self, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None = None) -> PaddedSession:
        """See `GenerationEngine.open`."""
        return PaddedSession(self, prompts, group, generator)


class PaddedSession:
    """See `GenerationSession`."""

    def __init__(self, engine: PaddedEngine, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None):
        self.engine, self.generator = engine, generator
        self.prompts = [prompt for prompt in prompts for _ in range(group)]
        self.conversations = [prompt.ids for prompt in self.prompts]

    @torch.no_grad()
    def generate(self, episodes: Sequence[int], deltas: Sequence[np.ndarray]) -> Iterator[tuple[int, Completion]]:
        """See `GenerationSession.generate`; all answers come together."""
        for episode, delta in zip(episodes, deltas, strict=True):
            self.conversations[episode] = np.concatenate([self.conversations[episode], delta])
        stop = self.engine.sampling_params.stop
        drawing = _Drawing(self.engine.sampling_params, self.generator)
        model: Any = self.engine.model  # `generate` comes from a mixin that PreTrainedModel does not declare
        with _without_own_settings(core(model)):
            model.generate(
                **self._inputs(episodes),
                logits_processor=LogitsProcessorList([drawing]),
                max_new_tokens=self.engine.max_new_tokens,
                eos_token_id=list(stop),
                pad_token_id=stop[0],
                synced_gpus=False,  # parameters are gathered, and other processes may need fewer turns
            )
        ids, log_probs = (torch.stack(values, 1).cpu().numpy() for values in (drawing.tokens, drawing.log_probs))
        ended = np.isin(ids, stop)
        counts = np.where(ended.any(1), ended.argmax(1) + 1, ids.shape[1])
        completions = [Completion(i[:n], p[:n]) for i, p, n in zip(ids, log_probs, counts.tolist(), strict=True)]
        for episode, completion in zip(episodes, completions, strict=True):
            self.conversations[episode] = np.concatenate([self.conversations[episode], completion.ids])
        yield from zip(episodes, completions, strict=True)

    def _inputs(self, episodes: Sequence[int]) -> dict[str, Tensor]:
        """The conversations as a left-padded batch, with an image for every row."""
        rows = [self.conversations[episode] for episode in episodes]
        prompts = [self.prompts[episode] for episode in episodes]
        ids, mask, types = (np.zeros((len(rows), max(map(len, rows))), dtype=np.int64) for _ in range(3))
        ids += self.engine.sampling_params.stop[0]
        for row, (tokens, prompt) in enumerate(zip(rows, prompts, strict=True)):
            start = ids.shape[1] - len(tokens)
            ids[row, start:], mask[row, start:] = tokens, 1
            types[row, start : start + len(prompt.ids)] = prompt.token_types
        inputs = {"input_ids": ids, "attention_mask": mask}
        if takes_token_types(core(self.engine.model)):
            inputs["mm_token_type_ids"] = types
        tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}
        tensors |= join_images([prompt.images for prompt in prompts])
        return {name: tensor.to(self.engine.model.device) for name, tensor in tensors.items()}


@contextmanager
def _without_own_settings(model: PreTrainedModel) -> Iterator[None]:
    """Hide the generation settings that the model was published with: a repetition penalty bends the distribution."""
    published, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = published


class _Drawing(LogitsProcessor):
    """Draws by `SamplingParams` and leaves greedy `generate` no other choice, so that both engines sample alike.

    tokens, log_probs: one (N,) tensor a step; rows that have ended hold anything.
    """

    def __init__(self, sampling_params: SamplingParams, generator: torch.Generator | None):
        self.sampling_params, self.generator = sampling_params, generator
        self.tokens: list[Tensor] = []
        self.log_probs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens, log_probs = self.sampling_params.draw(scores, self.generator)
        self.tokens.append(tokens)
        self.log_probs.append(log_probs)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)
