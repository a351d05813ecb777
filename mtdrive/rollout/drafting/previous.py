"""Proposes the last turn's answer from the same place on, as a revision repeats much of what it revises.

A place is the number of commas so far and of tokens since, so that numbers of different lengths are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mtdrive.planner.models import Planner
from mtdrive.rollout.drafting.proposal import Draft, Progress
from mtdrive.rollout.drafting.template import padded

MOST = 4

Place = tuple[int, int]  # commas so far, tokens since


class PreviousProposer:
    """See the module docstring and `Proposer`."""

    most = MOST

    def __init__(self, planner: Planner):
        self._tokenizer = planner.processor.tokenizer
        self._commas: dict[int, int] = {}
        self._answers: dict[int, tuple[list[int], dict[Place, int]]] = {}  # by episode: tokens, index by place
        self._episodes: list[int] = []
        self._places: list[Place] = []
        self._seen: list[int] = []

    def read_prompts(self, prompts: Sequence[np.ndarray], positions: Tensor, hidden: Tensor) -> None:
        """See `Proposer`."""

    def begin(self, episodes: list[int]) -> None:
        """See `Proposer`."""
        self._episodes, self._places, self._seen = episodes, [(0, 0)] * len(episodes), [0] * len(episodes)

    def propose(self, progress: Progress) -> Draft:
        """See `Proposer`."""
        proposals = []
        for row, (answer, length) in enumerate(
            zip(progress.answers.tokens.tolist(), progress.answers.lengths.tolist(), strict=True)
        ):
            for token in answer[self._seen[row] : length]:
                self._places[row] = self._after(self._places[row], token)
            self._seen[row] = length
            tokens, index = self._answers.get(self._episodes[row], ([], {}))
            start = index.get(self._places[row], len(tokens))
            proposals.append(tokens[start : start + self.most])
        return padded(proposals, self.most, progress.answers.tokens.device)

    def end(self, answers: list[np.ndarray]) -> None:
        """See `Proposer`."""
        for episode, answer in zip(self._episodes, answers, strict=True):
            place: Place = (0, 0)
            index: dict[Place, int] = {}
            for number, token in enumerate(answer.tolist()):
                index.setdefault(place, number)
                place = self._after(place, token)
            self._answers[episode] = answer.tolist(), index

    def _after(self, place: Place, token: int) -> Place:
        if token not in self._commas:
            self._commas[token] = self._tokenizer.decode([token]).count(",")
        commas = self._commas[token]
        return (place[0] + commas, 0) if commas else (place[0], place[1] + 1)
