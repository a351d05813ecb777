"""Generation for multi-turn episodes on Hugging Face models, with prompts shared between episodes.

A scene's image is encoded and its prompt prefilled once for all episodes and turns; each turn prefills only the
feedback's tokens; finished episodes leave the batch. Completions carry the log-probability of every token
under the distribution that it was sampled from, and their ids are never decoded and encoded again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from mtdrive.rollout import shared_prefix
from mtdrive.rollout.encoding import Prompt, position_ids
from mtdrive.rollout.generation import Completion, GenerationEngine
from mtdrive.rollout.padded_engine import PaddedEngine
from mtdrive.rollout.prefix_cache import EpisodeSegments, PrefixCache, PromptSegments
from mtdrive.rollout.sampling import SamplingParams

logger = logging.getLogger(__name__)

SMALL_MODEL = 50_000_000  # parameters


def engine_of(model: PreTrainedModel | PeftModel) -> Callable[..., GenerationEngine]:
    """The engine class for a model: `Engine`, or `PaddedEngine` where the model cannot share prompts, which is logged.

    Both take (model, sampling_params, max_new_tokens).
    """
    if reason := shared_prefix.unsupported_reason(model):
        logger.warning(
            "Rollouts of %s prefill the whole conversation of every episode in every turn, as it %s.",
            shared_prefix.name_of(model),
            reason,
        )
        return PaddedEngine
    return Engine


class Engine:
    """A `GenerationEngine` on one model.

    Args:
        model: its text part must run `shared_prefix` attention. It is called as a whole, since FSDP gathers parameters
            at its root.
        max_new_tokens: upper bound for the tokens of one answer.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, sampling_params: SamplingParams, max_new_tokens: int):
        shared_prefix.enable(model)
        self.model, self.sampling_params, self.max_new_tokens = model, sampling_params, max_new_tokens

    def open(self, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None = None) -> Session:
        """See `GenerationEngine.open`; the prompts are prefilled here."""
        return Session(self, prompts, group, generator)


class Session:
    """See `GenerationSession`."""

    @torch.no_grad()
    def __init__(self, engine: Engine, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None):
        self.engine, self.generator = engine, generator
        self.device = device = engine.model.device
        self.cache = PrefixCache([len(prompt.ids) - 1 for prompt in prompts], group, device)
        positions = [position_ids(shared_prefix.core(engine.model), prompt) for prompt in prompts]
        engine.model(
            **shared_prefix.packed_inputs(
                np.concatenate([prompt.ids[:-1] for prompt in prompts]),
                torch.cat([position[:, :-1] for position in positions], 1),
                PromptSegments(self.cache),
            ),
            **{name: torch.cat([prompt.images[name] for prompt in prompts]).to(device) for name in prompts[0].images},
            logits_to_keep=1,
        )
        self.axes = len(positions[0])
        self.offsets = torch.stack([position[0, -1] for position in positions]).repeat_interleave(group)
        self.pending = [prompt.ids[-1:] for prompt in prompts for _ in range(group)]
        self.rows = list(range(len(self.offsets)))

    @torch.no_grad()
    def generate(self, episodes: Sequence[int], deltas: Sequence[np.ndarray]) -> Iterator[tuple[int, Completion]]:
        """See `GenerationSession.generate`."""
        row_of = {episode: row for row, episode in enumerate(self.rows)}
        fed = [np.concatenate([self.pending[row_of[e]], delta]) for e, delta in zip(episodes, deltas, strict=True)]
        self._keep([row_of[episode] for episode in episodes], max(map(len, fed)))
        self.rows = list(episodes)

        limit, sampling = self.engine.max_new_tokens, self.engine.sampling_params
        stop = torch.tensor(sampling.stop, device=self.device)
        tokens = torch.zeros(len(fed), limit, dtype=torch.long, device=self.device)
        log_probs = torch.zeros(len(fed), limit, device=self.device)
        open_rows = torch.ones(len(fed), dtype=torch.bool, device=self.device)
        completions: dict[int, Completion] = {}

        def ended(step: int) -> list[tuple[int, Completion]]:
            rows = [row for row, still in enumerate(open_rows.tolist()) if not still and row not in completions]
            for row in rows:
                ids, values = tokens[row, : step + 1], log_probs[row, : step + 1]
                completions[row] = Completion(ids.cpu().numpy(), values.cpu().numpy())
            return [(self.rows[row], completions[row]) for row in rows]

        logits = self._forward(np.concatenate(fed), [len(ids) for ids in fed])
        self.cache.lengths += torch.tensor([len(ids) for ids in fed], device=self.device)
        self.cache.longest += max(map(len, fed))
        with _decode_threads(self.engine.model):
            for step in range(limit):
                tokens[:, step], log_probs[:, step] = sampling.draw(logits, self.generator)
                open_rows = open_rows & ~torch.isin(tokens[:, step], stop) & (step + 1 < limit)
                new = ended(step)
                if len(completions) < len(fed):
                    # A row that has ended goes on with what it draws, into a slot that its next turn overwrites.
                    logits = self._forward(tokens[:, step], [1] * len(fed))
                    self.cache.lengths += open_rows
                    self.cache.longest += 1
                yield from new
                if len(completions) == len(fed):
                    break
        self.pending = [completions[row].ids[-1:] for row in range(len(fed))]

    def _keep(self, rows: list[int], new_tokens: int) -> None:
        kept = torch.tensor(rows, device=self.device)
        self.offsets = self.offsets[kept]
        self.cache.keep(kept, new_tokens + self.engine.max_new_tokens)

    def _forward(self, ids: np.ndarray | Tensor, counts: list[int]) -> Tensor:
        """Logits (N, V) after new tokens, `counts[i]` for each row, which are packed in `ids`."""
        segments = EpisodeSegments(self.cache, counts)
        rows = segments.rows
        positions = (self.offsets[:, None] + segments.steps)[rows.valid].expand(self.axes, -1)
        last = torch.cumsum(rows.lengths, 0) - 1
        inputs = shared_prefix.packed_inputs(ids, positions, segments)
        return self.engine.model(**inputs, logits_to_keep=last).logits[0]


@contextmanager
def _decode_threads(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """One CPU thread for a small model, whose decode steps are too short to be worth sharing out."""
    threads = torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
