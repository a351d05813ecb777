"""A planner's episodes on the scenes of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from mtdrive.planner.models import Planner
from mtdrive.rollout.drafting import NONE
from mtdrive.rollout.engine import engine_of
from mtdrive.rollout.episode import Episode
from mtdrive.rollout.multi_turn import Task, run_episodes
from mtdrive.rollout.sampling import sampling_params
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.structured import Source
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor


def planner_episodes(
    planner: Planner,
    tokens: Sequence[str],
    load: Callable[[str], Task],
    *,
    turns: int,
    metric: str,
    source: Source,
    steps: bool,
    temperature: float,
    draft: str = NONE,
    batch_size: int,
    seed: int,
) -> Iterator[Episode]:
    """One episode per scene, in their order, `batch_size` scenes at a time.

    Args:
        load: scene token -> its task.
        turns: that an episode may have.
        metric, source, steps: of the scores and the feedback, see `assess`.
        temperature: of sampling; 0 takes the likeliest token, so that the same planner gives the same episodes.
        draft: name of the drafter, see `mtdrive.rollout.drafting`.
    """
    greedy = temperature == 0
    params = sampling_params(planner.model, planner.processor.tokenizer, 1.0 if greedy else temperature, greedy)
    engine = engine_of(planner, draft)(planner.model, params, planner.max_new_tokens)
    generator = torch.Generator(planner.model.device).manual_seed(seed)
    assessor = InProcessAssessor(partial(assess, metric=metric, source=source, steps=steps))
    for start in range(0, len(tokens), batch_size):
        tasks = [load(token) for token in tokens[start : start + batch_size]]
        yield from run_episodes(tasks, planner, engine, assessor, turns=turns, generator=generator)
