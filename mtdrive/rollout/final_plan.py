"""The one plan that counts of a scene, where no score tells: for a leaderboard, or in navsim's own scripts.

An answer that holds no plan must not cost the scene. Constant velocity (`baselines.keep_velocity`, navsim's
`ConstantVelocityAgent`) then drives in the planner's place, and the plan says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mtdrive.planner.models import Planner
from mtdrive.planner.prompt import SceneView
from mtdrive.rollout.encoding import encode_prompt
from mtdrive.rollout.engine import engine_of
from mtdrive.rollout.episode import TurnStatus
from mtdrive.rollout.multi_turn import NO_IDS, Task, run_episodes
from mtdrive.rollout.sampling import sampling_params
from mtdrive.simulation.baselines import keep_velocity
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor
from mtdrive.simulation.navsim_format.images import decode_image, image_hash
from mtdrive.simulation.scene import Scene

logger = logging.getLogger(__name__)

MISSING_IMAGE = "missing_image"  # beside the values of AnswerError
FALLBACK = "constant velocity"  # what drives then, in words


@dataclass(frozen=True)
class FinalPlan:
    """The plan of one scene."""

    poses: np.ndarray
    """(8, 3) x [m], y [m], heading [rad] at 0.5 s, ego frame at t0."""

    fallback: str = ""
    """Why constant velocity drives in the planner's place: a value of AnswerError, or MISSING_IMAGE; empty if the plan
    is the planner's own."""

    @classmethod
    def without_planner(cls, view: SceneView, reason: str) -> FinalPlan:
        """Constant velocity."""
        return cls(keep_velocity(view.velocity), reason)


@dataclass(frozen=True)
class Sight:
    """What the planner sees of a scene in its first turn."""

    view: SceneView
    """The text of its prompt is made of this."""

    image: np.ndarray | None
    """The front image (H, W, 3) uint8 RGB; None if there is none that reads."""

    @classmethod
    def from_file(cls, view: SceneView, path: Path | None) -> Sight:
        """A view, and the image in a file; None for no file. The view gets the image's hash."""
        try:
            image = None if path is None else decode_image(path)
        except MTDriveError as error:
            logger.warning("%s", error)
            image = None
        return cls(view if image is None else replace(view, image_hash=image_hash(image)), image)


class Driver:
    """A planner that takes the likeliest token at every step, so that the same scene gives the same plan."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        params = sampling_params(planner.model, planner.processor.tokenizer, greedy=True)
        self._engine = engine_of(planner)(planner.model, params, planner.max_new_tokens)

    def single_turn(self, sights: Sequence[Sight]) -> list[FinalPlan]:
        """Plans of scenes: those of turn 1 of `run_episodes`."""
        plans = [FinalPlan.without_planner(sight.view, MISSING_IMAGE) for sight in sights]
        seen = [(index, sight) for index, sight in enumerate(sights) if sight.image is not None]
        if not seen:
            return plans
        process = partial(self._planner.processor.image_processor, return_tensors="pt")
        prompts = [encode_prompt(self._planner, sight.view, process(sight.image)) for _, sight in seen]
        answers = dict(self._engine.open(prompts, 1).generate(list(range(len(seen))), [NO_IDS] * len(seen)))
        for answer, (index, sight) in enumerate(seen):
            text = self._planner.processor.tokenizer.decode(answers[answer].ids, skip_special_tokens=True)
            parsed = self._planner.parse_answer(text)
            if parsed.poses is None:
                plans[index] = FinalPlan.without_planner(sight.view, str(parsed.error))
            else:
                plans[index] = FinalPlan(parsed.poses)
        return plans

    def multi_turn(self, scene: Scene, image: np.ndarray, turns: int, metric: str, feedback_steps: bool) -> FinalPlan:
        """The newest plan that can be driven after up to so many turns with perceived feedback.

        Args:
            scene: its recorded future, if it has one, is not looked at.
            image: its front image (H, W, 3) uint8 RGB.
            turns: that the planner may take.
            metric, feedback_steps: of the feedback, see `assess`.
        """
        task = Task.from_scene(self._planner, scene, image)
        assessor = InProcessAssessor(partial(assess, metric=metric, source="perceived", steps=feedback_steps))
        [episode] = run_episodes([task], self._planner, self._engine, assessor, turns=turns)
        for turn in reversed(episode.turns):
            if turn.poses is not None and turn.status is not TurnStatus.INVALID_TRAJECTORY:
                return FinalPlan(turn.poses)
        return FinalPlan.without_planner(SceneView.from_scene(scene, task.image_hash), str(episode.turns[-1].error))
