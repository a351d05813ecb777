"""Generation for multi-turn episodes on Hugging Face models, with prompts shared between episodes.

A scene's image is encoded and its prompt prefilled once for all episodes and turns; each turn prefills only the
feedback's tokens; finished episodes leave the batch. A drafter may propose the next tokens of each answer, which one
pass then checks together (`mtdrive.rollout.drafting`). Completions carry the log-probability of every token
under the distribution that it was sampled from, and their ids are never decoded and encoded again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from mtdrive.planner.models import Planner
from mtdrive.planner.tokens import join_images
from mtdrive.rollout import experts, shared_prefix
from mtdrive.rollout.answers import Answers
from mtdrive.rollout.drafting import DRAFTERS, NONE, Drafter
from mtdrive.rollout.drafting.proposal import Draft, Progress, Proposer, nothing
from mtdrive.rollout.drafting.verification import verify
from mtdrive.rollout.encoding import Prompt, position_ids
from mtdrive.rollout.generation import Completion, GenerationEngine
from mtdrive.rollout.padded_engine import PaddedEngine
from mtdrive.rollout.prefix_cache import EpisodeSegments, PrefixCache, PromptSegments
from mtdrive.rollout.row_attention import Rows
from mtdrive.rollout.sampling import SamplingParams
from mtdrive.simulation.errors import MTDriveError

logger = logging.getLogger(__name__)

SMALL_MODEL = 50_000_000  # parameters


def engine_of(planner: Planner, draft: str = NONE) -> Callable[..., GenerationEngine]:
    """The engine for a planner: `Engine`, or `PaddedEngine` where its model cannot share prompts, which is logged.

    Args:
        draft: name of a drafter in `mtdrive.rollout.drafting`, or "none".

    Returns:
        a function of (model, sampling_params, max_new_tokens); the model is the planner's, whichever way it is wrapped.

    Raises:
        MTDriveError: the planner cannot draft like that.
    """
    if reason := shared_prefix.unsupported_reason(planner.model):
        logger.warning(
            "Rollouts of %s prefill the whole conversation of every episode in every turn, as it %s.",
            shared_prefix.name_of(planner.model),
            reason,
        )
        if draft != NONE:
            raise MTDriveError(f"draft={draft} needs a model that can share prompts, but this one {reason}.")
        return PaddedEngine
    return partial(Engine, drafter=DRAFTERS[draft](planner))


class Engine:
    """A `GenerationEngine` on one model.

    Args:
        model: its text part must run `shared_prefix` attention. It is called as a whole, since FSDP gathers parameters
            at its root.
        max_new_tokens: upper bound for the tokens of one answer.
        drafter: makes the proposer of each session; None reads one token of each answer in a pass.

    Attributes:
        written: tokens of all answers so far.
        passes: passes that they took, each answer's counted on its own: as many, without drafting.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        sampling_params: SamplingParams,
        max_new_tokens: int,
        drafter: Drafter | None = None,
    ):
        shared_prefix.enable(model)
        experts.enable(model)
        self.model, self.sampling_params, self.max_new_tokens = model, sampling_params, max_new_tokens
        self.drafter = drafter
        self.written = self.passes = 0

    def open(self, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None = None) -> Session:
        """See `GenerationEngine.open`; the prompts are prefilled here."""
        return Session(self, prompts, group, generator)

    def count(self, taken: Tensor) -> None:
        """Add a pass after which so many tokens (N,) of each answer were appended."""
        self.written += int(taken.sum())
        self.passes += int(taken.count_nonzero())


class Session:
    """See `GenerationSession`."""

    @torch.no_grad()
    def __init__(self, engine: Engine, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None):
        self.engine, self.generator = engine, generator
        self.device = device = engine.model.device
        positions = [position_ids(shared_prefix.core(engine.model), prompt) for prompt in prompts]
        ends = torch.stack([position[0, -1] for position in positions])
        self.cache = PrefixCache([len(prompt.ids) - 1 for prompt in prompts], ends, group)
        packed = torch.cat([position[:, :-1] for position in positions], 1)
        ids = np.concatenate([prompt.ids[:-1] for prompt in prompts])
        images = {name: tensor.to(device) for name, tensor in join_images([p.images for p in prompts]).items()}
        _, hidden = self._run(ids, packed, PromptSegments(self.cache), 1, **images)
        self.proposer: Proposer | None = None
        if engine.drafter is not None:
            self.proposer = engine.drafter(self.cache, engine.sampling_params, generator)
            self.proposer.read_prompts([prompt.ids for prompt in prompts], packed, hidden)
        self.axes = len(packed)
        self.pending = [prompt.ids[-1:] for prompt in prompts for _ in range(group)]
        self.rows = list(range(len(self.pending)))

    @torch.no_grad()
    def generate(self, episodes: Sequence[int], deltas: Sequence[np.ndarray]) -> Iterator[tuple[int, Completion]]:
        """See `GenerationSession.generate`."""
        row_of = {episode: row for row, episode in enumerate(self.rows)}
        fed = [np.concatenate([self.pending[row_of[e]], delta]) for e, delta in zip(episodes, deltas, strict=True)]
        self._begin(episodes, [row_of[episode] for episode in episodes], max(map(len, fed)))
        answers = Answers(len(fed), self.engine.max_new_tokens, self.engine.sampling_params.stop, self.device)
        completions: dict[int, Completion] = {}

        def ended() -> list[tuple[int, Completion]]:
            rows = [row for row, still in enumerate(answers.open.tolist()) if not still and row not in completions]
            completions.update({row: answers.completion(row) for row in rows})
            return [(self.rows[row], completions[row]) for row in rows]

        longest = self.cache.longest + max(map(len, fed))
        tokens = torch.as_tensor(np.concatenate(fed), device=self.device)
        counts = torch.tensor([len(ids) for ids in fed], device=self.device)
        draft = nothing(counts)
        logits, hidden = self._forward(tokens, counts, draft)
        taken = answers.extend(verify(self.engine.sampling_params, logits, draft, self.generator))
        stay = counts  # of the tokens that the pass has read
        with _decode_threads(self.engine.model):
            while True:
                self.engine.count(taken)
                new = ended()
                draft = self._propose(answers, tokens, counts, stay, hidden)
                self.cache.lengths += stay
                self.cache.longest = longest + int(answers.lengths.max()) - 1
                if len(completions) < len(fed):
                    # Without drafts, a row that has ended goes on with its last token, in a slot that its next turn
                    # overwrites: all rows make one batch.
                    read = answers.open if self.proposer else torch.ones_like(answers.open)
                    tokens, counts = draft.after(answers.newest, read)
                    logits, hidden = self._forward(tokens, counts, draft)
                yield from new
                if len(completions) == len(fed):
                    break
                stay = taken = answers.extend(verify(self.engine.sampling_params, logits, draft, self.generator))
        self.pending = [completions[row].ids[-1:] for row in range(len(fed))]
        if self.proposer is not None:
            self.proposer.end([completions[row].ids for row in range(len(fed))])

    def _begin(self, episodes: Sequence[int], rows: list[int], new_tokens: int) -> None:
        """Keep the rows of these episodes, with room for a turn with so many new tokens before the answer."""
        self.rows = list(episodes)
        drafted = 0 if self.proposer is None else self.proposer.most
        self.cache.keep(torch.tensor(rows, device=self.device), new_tokens + self.engine.max_new_tokens + drafted)
        if self.proposer is not None:
            self.proposer.begin(self.rows)

    def _propose(self, answers: Answers, tokens: Tensor, counts: Tensor, stay: Tensor, hidden: Tensor) -> Draft:
        """What may follow the newest token of each answer.

        Args:
            tokens, hidden: (T,) int64 and (T, D), what the last pass has read and its last hidden states.
            counts, stay: (N,) tokens of each row, and how many of them stay in the cache.
        """
        if self.proposer is None:
            return nothing(counts)
        index = Rows(counts.tolist(), device=self.device).firsts(stay)
        progress = Progress(answers, tokens[index], stay.tolist(), hidden[index])
        return self.proposer.propose(progress).cut(torch.where(answers.open, answers.room - 1, 0))

    def _forward(self, tokens: Tensor, counts: Tensor, draft: Draft) -> tuple[Tensor, Tensor]:
        """One pass over new tokens.

        Args:
            tokens: (T,) int64, packed.
            counts: (N,) how many of them each row has.
            draft: which of them are proposed: the last of each row.

        Returns:
            (N, k + 1, V) logits after a row's last token that is not proposed, and after each that is; (T, D) hidden.
        """
        segments = EpisodeSegments(self.cache, counts.tolist())
        steps = torch.arange(draft.tokens.shape[1] + 1, device=self.device)
        index = torch.cumsum(counts, 0)[:, None] - 1 - draft.counts[:, None] + steps.minimum(draft.counts[:, None])
        logits, hidden = self._run(tokens, segments.positions.expand(self.axes, -1), segments, index.flatten())
        return logits.unflatten(0, index.shape), hidden

    def _run(self, ids, positions: Tensor, segments: shared_prefix.Segments, logits_to_keep, **images):
        """The model's call: logits of the positions to keep (R, V), and last hidden states (T, D)."""
        kept: list[Tensor] = []
        hook = shared_prefix.core(self.engine.model).base_model.register_forward_hook(
            lambda module, args, output: kept.append(output.last_hidden_state[0])
        )
        try:
            inputs = shared_prefix.packed_inputs(ids, positions, segments)
            return self.engine.model(**inputs, **images, logits_to_keep=logits_to_keep).logits[0], kept[0]
        finally:
            hook.remove()


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
