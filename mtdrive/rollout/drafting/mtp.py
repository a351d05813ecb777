"""Proposes what the planner's own heads predict (multi-token prediction, Step 3.5 Flash, arXiv 2602.10604).

The heads keep keys and values beside those of the model, as further layers of its cache, and read what it has read:
prompts, feedback, answers. Of a position whose next tokens are not known yet they read what they have drafted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtdrive.planner.mtp import DraftHeads
from mtdrive.rollout.drafting.proposal import Draft, Progress
from mtdrive.rollout.prefix_cache import EpisodeSegments, PrefixCache, PromptSegments
from mtdrive.rollout.sampling import SamplingParams
from mtdrive.rollout.shared_prefix import packed_inputs


class MtpProposer:
    """See the module docstring and `Proposer`.

    Args:
        heads: of the planner that generates.
        sampling: what its answers are drawn by; so are drafts.
        cache: of the session.
        generator: source of the session's randomness.
    """

    def __init__(
        self,
        heads: DraftHeads,
        sampling: SamplingParams,
        cache: PrefixCache,
        generator: torch.Generator | None,
    ):
        self.most = len(heads.layers)
        self._heads, self._sampling, self._cache, self._generator = heads, sampling, cache, generator

    def read_prompts(self, prompts: Sequence[np.ndarray], positions: Tensor, hidden: Tensor) -> None:
        """See `Proposer`."""
        for depth in range(self.most):
            # Behind a prompt's end, which its episodes continue in different ways, its last token stands again.
            follow = [ids[np.minimum(np.arange(1, len(ids)) + depth, len(ids) - 1)] for ids in prompts]
            ids = torch.as_tensor(np.concatenate(follow), device=hidden.device)
            hidden = self._step(depth, hidden, ids, positions[:1], PromptSegments(self._cache))

    def begin(self, episodes: list[int]) -> None:
        """See `Proposer`."""

    def propose(self, progress: Progress) -> Draft:
        """See `Proposer`."""
        counts = torch.tensor(progress.counts, device=progress.read.device)
        rows = counts.nonzero()[:, 0]
        last = torch.cumsum(counts, 0)[rows] - 1
        segments = EpisodeSegments(self._cache, progress.counts)
        # ids[i]: the token after the one that position i read at this depth; known tokens first, then drafted ones.
        ids, hidden, behind = progress.read, progress.hidden, progress.answers.newest[rows]
        drafts, probabilities = [], []
        for depth in range(self.most):
            ids = ids.roll(-1)
            ids[last] = behind
            hidden = self._step(depth, hidden, ids, segments.positions, segments)
            logits = self._heads.logits(hidden[last])
            behind, _ = self._sampling.draw(logits, self._generator)
            drafts.append(behind)
            if not self._sampling.greedy:
                probabilities.append(self._sampling.log_probs(logits).exp())

        def of_all(drafted: list[Tensor]) -> Tensor:
            stacked = torch.stack(drafted, 1)
            return stacked.new_zeros(len(counts), *stacked.shape[1:]).index_copy_(0, rows, stacked)

        chances = of_all(probabilities) if probabilities else None
        return Draft(of_all(drafts), torch.where(counts > 0, self.most, 0), chances)

    def end(self, answers: list[np.ndarray]) -> None:
        """See `Proposer`."""

    def _step(self, depth: int, hidden: Tensor, ids: Tensor, positions: Tensor, segments) -> Tensor:
        inputs = packed_inputs(ids, positions, segments)
        attention = {name: inputs[name] for name in ("attention_mask", "segments")}
        return self._heads.step(depth, hidden[None], inputs["input_ids"], inputs["position_ids"], **attention)[0]
