"""What a generation engine does, whichever library computes it.

There are three: `engine.Engine` shares prompts between episodes, `padded_engine.PaddedEngine` runs what cannot, and
`vllm_engine.VLLMEngine` asks vLLM. All sample by one `Sampling`, return ids as they were sampled, with the
log-probability of each under the distribution that it was sampled from, and are told ids, never text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from mtdrive.rollout.encoding import Prompt


@dataclass(frozen=True)
class Completion:
    """One answer. ids: (n,) int64, ending with a stop token unless it was cut off. log_probs: (n,) float32."""

    ids: np.ndarray
    log_probs: np.ndarray


class GenerationSession(Protocol):
    """The episodes of some scenes: episode i belongs to prompt i // group."""

    def generate(self, episodes: Sequence[int], deltas: Sequence[np.ndarray]) -> Iterator[tuple[int, Completion]]:
        """The next answers of the episodes that go on, each as it ends; all other episodes leave for good.

        To be run to its end before the next call. What is done with an answer meanwhile changes no other answer.

        episodes: increasing episode numbers. deltas: token ids that each is told first (empty in the first turn).
        """


class GenerationEngine(Protocol):
    """Opens sessions on one model."""

    def open(
        self, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None = None
    ) -> GenerationSession:
        """Take the prompts in, for `group` episodes each. generator: randomness of the whole session."""
