"""A planner's episodes on the scenes of a split, and the file they are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from mtdrive.planner.models import Planner
from mtdrive.rollout.engine import engine_of
from mtdrive.rollout.episode import Episode
from mtdrive.rollout.multi_turn import Task, run_episodes
from mtdrive.rollout.sampling import sampling
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.structured import Source
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor
from mtdrive.simulation.runtime.files import atomic_path


def drive(
    planner: Planner,
    tokens: Sequence[str],
    load: Callable[[str], Task],
    *,
    turns: int,
    metric: str,
    source: Source,
    steps: bool,
    temperature: float,
    batch_size: int,
    seed: int,
) -> Iterator[Episode]:
    """One episode per scene, in their order, `batch_size` scenes at a time.

    steps: whether feedback tells changes second by second. temperature: 0 takes the likeliest token, so that the same
    planner gives the same episodes.
    """
    greedy = temperature == 0
    how = sampling(planner.model, planner.processor.tokenizer, 1.0 if greedy else temperature, greedy)
    engine = engine_of(planner.model)(planner.model, how, planner.max_new_tokens)
    generator = torch.Generator(planner.model.device).manual_seed(seed)
    assessor = InProcessAssessor(partial(assess, metric=metric, source=source, steps=steps))
    for start in range(0, len(tokens), batch_size):
        tasks = [load(token) for token in tokens[start : start + batch_size]]
        yield from run_episodes(tasks, planner, engine, assessor, turns=turns, generator=generator)


def write_episodes(episodes: Sequence[Episode], path: Path) -> None:
    """One JSON line per episode: `token`, `status` and `turns`, each with `answer`, `status`, `score`, `columns` (null
    and empty without a plan) and the `feedback` text that it got."""
    with atomic_path(path) as temporary, temporary.open("w") as file:
        for episode in episodes:
            turns = [
                {
                    "answer": turn.text,
                    "status": turn.status.value,
                    "score": turn.score,
                    "columns": dict(turn.scores),
                    "feedback": turn.feedback_text,
                }
                for turn in episode.turns
            ]
            line = {"token": episode.scene_token, "status": episode.status.value, "turns": turns}
            file.write(json.dumps(line) + "\n")
