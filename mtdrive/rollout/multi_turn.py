"""Multi-turn episodes: the planner proposes, the simulation assesses and answers, the planner revises.

All plans of a scene in one turn are submitted to the assessor together, as soon as the last of them is generated, while
answers of other scenes are still being generated; feedback is awaited when the turn is over. An episode ends with a
clean plan (`completed`), at the last turn (`truncated`), or when the scorer raises (`error`): a failure of the scorer
is never held against the planner. A text that holds no trajectory is answered with the reason, and the episode goes on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mtdrive.planner.answer import Parsed
from mtdrive.planner.models import Planner
from mtdrive.planner.prompt import SceneView
from mtdrive.planner.tokens import feedback_delta_ids
from mtdrive.rollout.encoding import Prompt, encode_prompt
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.generation import Completion, GenerationEngine
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import Assessment
from mtdrive.simulation.feedback.text import INVALID, render_text
from mtdrive.simulation.feedback.worker_pool import Assessor
from mtdrive.simulation.navsim_format.images import image_hash
from mtdrive.simulation.scene import Scene

logger = logging.getLogger(__name__)

Reward = Callable[[TurnStatus, float], float]
NO_IDS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Task:
    """A scene to drive."""

    scene: Scene
    """The scene, against which plans are assessed."""
    image_hash: str
    """Content hash of the scene's front image."""
    prompt: Prompt
    """The planner's first prompt, tokenised, with the image."""

    @classmethod
    def from_scene(cls, planner: Planner, scene: Scene, image: np.ndarray) -> Task:
        """image: the scene's front image (H, W, 3) uint8 RGB, which is processed here."""
        inputs = planner.processor.image_processor(image, return_tensors="pt")
        return cls.from_inputs(planner, scene, image_hash(image), inputs)

    @classmethod
    def from_inputs(cls, planner: Planner, scene: Scene, image_hash: str, inputs: Mapping[str, Tensor]) -> Task:
        """inputs: what the image processor made of the scene's front image, whose hash is `image_hash`."""
        return cls(scene, image_hash, encode_prompt(planner, SceneView.from_scene(scene, image_hash), inputs))


def pdms_reward(status: TurnStatus, score: float) -> float:
    """The PDM score of a valid trajectory, else 0."""
    return score if status is TurnStatus.OK else 0.0


def run_episodes(
    tasks: Sequence[Task],
    planner: Planner,
    engine: GenerationEngine,
    assessor: Assessor,
    *,
    turns: int,
    group: int = 1,
    reward: Reward = pdms_reward,
    generator: torch.Generator | None = None,
    weights_version: int | None = None,
) -> list[Episode]:
    """Drive `group` episodes of every task through up to `turns` turns.

    Args:
        planner: whose processor and wording are used and who reads the answers; `engine` runs its model.
        assessor: its exceptions end the scene's episodes with status `error`, except MTDriveError, which is bad input
            and is raised.
        reward: of an answer that the scorer did not fail on; the score is NaN unless the status is `ok`.
        generator: source of the engine's randomness.
        weights_version: optimizer step of the weights that `engine` samples with, put into every turn.

    Returns:
        len(tasks) * group episodes; those of a task stand together.
    """
    session = engine.open([task.prompt for task in tasks], group, generator)
    history: list[tuple[Turn, ...]] = [()] * (len(tasks) * group)
    active, feedback_ids = list(range(len(history))), dict.fromkeys(range(len(history)), NO_IDS)
    for _ in range(turns):
        completions: dict[int, Completion] = {}
        answers: dict[int, _Answers] = {}
        awaited = Counter(episode // group for episode in active)
        for episode, completion in session.generate(active, [feedback_ids[episode] for episode in active]):
            completions[episode] = completion
            index = episode // group
            awaited[index] -= 1
            if not awaited[index]:
                of_scene = {member: completions[member] for member in active if member // group == index}
                answers[index] = _submit(tasks[index], planner, of_scene, assessor)
        for index, task in enumerate(tasks):
            if index in answers:
                for episode, turn in _turns(task, answers[index], reward).items():
                    delta = feedback_ids[episode] if history[episode] else task.prompt.ids
                    history[episode] += (replace(turn, delta_ids=delta, weights_version=weights_version),)
        active = [episode for episode in active if _goes_on(history[episode][-1])]
        if not active:
            break
        feedback_ids = {episode: _feedback_ids(planner, history[episode][-1]) for episode in active}
    return [
        Episode(task.scene.token, task.image_hash, history[episode], _status(history[episode][-1]))
        for index, task in enumerate(tasks)
        for episode in range(index * group, (index + 1) * group)
    ]


@dataclass(frozen=True)
class _Answers:
    """What a scene's active episodes answered in one turn."""

    completions: Mapping[int, Completion]
    """The answers by episode index."""
    texts: Sequence[str]
    """The decoded answers, in the same order."""
    parsed: Sequence[Parsed]
    """What was read in the texts, in the same order."""
    assessments: Future[Sequence[Assessment]] | None
    """Assessments of the plans that parsed, in the same order; None if none did."""


def _submit(task: Task, planner: Planner, completions: Mapping[int, Completion], assessor: Assessor) -> _Answers:
    texts = [planner.processor.tokenizer.decode(c.ids, skip_special_tokens=True) for c in completions.values()]
    parsed = [planner.parse_answer(text) for text in texts]
    plans = [answer.poses for answer in parsed if answer.poses is not None]
    return _Answers(completions, texts, parsed, assessor.submit(task.scene, np.stack(plans)) if plans else None)


def _turns(task: Task, answers: _Answers, reward: Reward) -> dict[int, Turn]:
    """The turn of each of a scene's active episodes, still without `delta_ids`."""
    failure: str | None = None
    assessments: Iterator[Assessment] = iter(())
    if answers.assessments is not None:
        try:
            assessments = iter(answers.assessments.result())
        except MTDriveError:
            raise
        except Exception as error:
            logger.exception("The scorer failed on scene %s.", task.scene.token)
            failure = f"{type(error).__name__}: {error}"

    def turn(completion: Completion, text: str, answer: Parsed) -> Turn:
        said = Turn(
            delta_ids=NO_IDS,
            completion_ids=completion.ids,
            log_probs=completion.log_probs,
            text=text,
            status=TurnStatus.SCORER_ERROR,
            reward=np.nan,
            feedback_text="",
            error=failure,
            poses=answer.poses,
        )
        if failure is not None:
            return said
        if answer.error is not None:
            return replace(
                said,
                status=TurnStatus.PARSE_ERROR,
                error=answer.error,
                reward=reward(TurnStatus.PARSE_ERROR, np.nan),
                feedback_text=INVALID.format(problem=answer.error),
            )
        assessment = next(assessments)
        status = TurnStatus.OK if assessment.status == "ok" else TurnStatus.INVALID_TRAJECTORY
        return replace(
            said,
            status=status,
            error=None if status is TurnStatus.OK else assessment.status,
            score=assessment.score,
            scores=assessment.scores,
            extended_comfort=assessment.extended_comfort,
            clean=assessment.clean,
            feedback=assessment.feedback,
            feedback_text=render_text(assessment.feedback),
            reward=reward(status, assessment.score),
        )

    parts = zip(answers.completions.items(), answers.texts, answers.parsed, strict=True)
    return {episode: turn(completion, text, answer) for (episode, completion), text, answer in parts}


def _goes_on(turn: Turn) -> bool:
    return not turn.clean and turn.status is not TurnStatus.SCORER_ERROR


def _feedback_ids(planner: Planner, turn: Turn) -> np.ndarray:
    closed = turn.completion_ids[-1] == planner.processor.tokenizer.eos_token_id
    return np.array(feedback_delta_ids(planner.processor, turn.feedback_text, closed=closed), dtype=np.int64)


def _status(last: Turn) -> EpisodeStatus:
    if last.status is TurnStatus.SCORER_ERROR:
        return EpisodeStatus.ERROR
    return EpisodeStatus.COMPLETED if last.clean else EpisodeStatus.TRUNCATED
