"""Proposes what the form of an answer makes certain or likely: brackets, commas, decimal points, signs.

The form is learned from examples of the planner's own format in its own tokens: the tokens of many plans are put into
classes by their text with every digit and sign taken as one, and the classes of the last tokens say where in the form
an answer stands. What follows there in most of the examples is proposed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mtdrive.planner.models import Planner
from mtdrive.rollout.drafting.proposal import Draft, Progress
from mtdrive.simulation.baselines import NUM_POSES

EXAMPLES = 256
CONTEXT = 8  # tokens that say where in the form an answer stands
LIKELY = 0.5  # share of the examples in which a proposed token follows
MOST = 8

Place = tuple[str, ...]  # classes of the last tokens, at most `CONTEXT`


class AnswerForm:
    """What follows where in the answers of a planner.

    Attributes:
        likely: place -> the tokens that are likely to follow, at most `MOST`.
    """

    def __init__(self, planner: Planner):
        tokenizer = planner.processor.tokenizer
        self._decode: Callable[[int], str] = lambda token: tokenizer.decode([token])
        self._classes: dict[int, str] = {}
        follow: defaultdict[Place, Counter[int]] = defaultdict(Counter)
        for poses in example_plans():
            place: Place = ()
            ids = tokenizer.encode(planner.format_answer(poses), add_special_tokens=False)
            for token in [*ids, tokenizer.eos_token_id]:
                for start in range(len(place) + 1):
                    follow[place[start:]][token] += 1
                place = self._longer(place, token)
        self._places = set(follow)
        best = {place: tokens.most_common(1)[0] for place, tokens in follow.items()}
        sure = {place: token for place, (token, n) in best.items() if n > LIKELY * follow[place].total()}
        self.likely = {place: self._chain(place, sure) for place in follow}

    def after(self, place: Place, token: int) -> Place:
        """Where an answer stands after one more token: the longest known end of it."""
        place = self._longer(place, token)
        while place not in self._places:
            place = place[1:]
        return place

    def _chain(self, place: Place, sure: dict[Place, int]) -> list[int]:
        tokens: list[int] = []
        while place in sure and len(tokens) < MOST:
            tokens.append(sure[place])
            place = self.after(place, sure[place])
        return tokens

    def _longer(self, place: Place, token: int) -> Place:
        if token not in self._classes:
            self._classes[token] = re.sub(r"[+-]", "+", re.sub(r"\d", "0", self._decode(token)))
        return (*place, self._classes[token])[-CONTEXT:]


class TemplateProposer:
    """See the module docstring and `Proposer`."""

    most = MOST

    def __init__(self, form: AnswerForm):
        self._form = form
        self._places: list[Place] = []
        self._seen: list[int] = []

    def read_prompts(self, prompts: Sequence[np.ndarray], positions: Tensor, hidden: Tensor) -> None:
        """See `Proposer`."""

    def begin(self, episodes: list[int]) -> None:
        """See `Proposer`."""
        self._places, self._seen = [()] * len(episodes), [0] * len(episodes)

    def propose(self, progress: Progress) -> Draft:
        """See `Proposer`."""
        for row, (answer, length) in enumerate(
            zip(progress.answers.tokens.tolist(), progress.answers.lengths.tolist(), strict=True)
        ):
            for token in answer[self._seen[row] : length]:
                self._places[row] = self._form.after(self._places[row], token)
            self._seen[row] = length
        return padded([self._form.likely[place] for place in self._places], self.most, progress.answers.tokens.device)

    def end(self, answers: list[np.ndarray]) -> None:
        """See `Proposer`."""


def padded(proposals: list[list[int]], most: int, device: torch.device) -> Draft:
    """A draft of lists of tokens, of which the longest has at most `most`."""
    width = min(most, max(map(len, proposals)))
    rows = [[*tokens[:width], *[0] * (width - len(tokens))] for tokens in proposals]
    counts = [min(len(tokens), width) for tokens in proposals]
    return Draft(
        torch.tensor(rows, dtype=torch.int64, device=device).reshape(len(rows), width),
        torch.tensor(counts, device=device),
    )


def example_plans() -> np.ndarray:
    """(`EXAMPLES`, 8, 3) poses of drives at different speeds along different arcs."""
    rng = np.random.default_rng(0)
    speed, curvature = rng.uniform(0.0, 15.0, (EXAMPLES, 1)), rng.normal(0.0, 0.01, (EXAMPLES, 1))
    way = speed * 0.5 * np.arange(1, NUM_POSES + 1)
    heading = curvature * way
    return np.stack([way * np.sinc(heading / np.pi), way * heading / 2, heading], -1)
