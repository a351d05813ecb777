"""The interface of generation engines, whichever library computes the tokens.

There are three: `engine.Engine` shares prompts between episodes, `padded_engine.PaddedEngine` runs models that cannot,
and `vllm_engine.VLLMEngine` asks vLLM. All sample by the same `SamplingParams`. They take token ids, never text, and
return ids exactly as sampled, each with its log-probability under the distribution it was sampled from.
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
    """One answer as it was sampled."""

    ids: np.ndarray
    """(n,) int64 token ids, ending with a stop token unless the answer was cut off."""
    log_probs: np.ndarray
    """(n,) float32 log-probability of each token under the distribution that it was sampled from."""


class GenerationSession(Protocol):
    """The episodes of some scenes: episode i belongs to prompt i // group."""

    def generate(self, episodes: Sequence[int], deltas: Sequence[np.ndarray]) -> Iterator[tuple[int, Completion]]:
        """Yield the next answer of each active episode as soon as it ends; all other episodes leave for good.

        Exhaust the iterator before the next call. What the caller does in between changes no other answer.

        Args:
            episodes: indices of the active episodes, increasing.
            deltas: for each of them the (d,) int64 token ids to append before its answer; empty in the first turn.
        """


class GenerationEngine(Protocol):
    """Opens generation sessions on one model."""

    def open(
        self, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None = None
    ) -> GenerationSession:
        """Read the prompts for `group` episodes each. generator: source of randomness of the whole session."""
