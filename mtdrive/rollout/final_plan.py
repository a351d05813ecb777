"""The one plan that counts of a scene, where no score tells: for a leaderboard, or in navsim's own scripts.

An answer that holds no plan must not cost the scene. Constant velocity (`baselines.keep_velocity`, navsim's
`ConstantVelocityAgent`) then drives in the planner's place, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mtdrive.planner.models import Planner
from mtdrive.planner.prompt import SceneView
from mtdrive.rollout.encoding import encode_prompt
from mtdrive.rollout.engine import engine_of
from mtdrive.rollout.episode import TurnStatus
from mtdrive.rollout.multi_turn import NO_IDS, Task, run_episodes
from mtdrive.rollout.sampling import sampling_params
from mtdrive.simulation.baselines import keep_velocity
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor
from mtdrive.simulation.scene import Scene

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


class Driver:
    """A planner that takes the likeliest token at every step, so that the same scene gives the same plan."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        params = sampling_params(planner.model, planner.processor.tokenizer, greedy=True)
        self._engine = engine_of(planner.model)(planner.model, params, planner.max_new_tokens)

    def single_turn(self, sights: Sequence[tuple[SceneView, np.ndarray]]) -> list[FinalPlan]:
        """Plans of scenes, from a view and the front image (H, W, 3) uint8 RGB of each: turn 1 of `run_episodes`."""
        process = partial(self._planner.processor.image_processor, return_tensors="pt")
        prompts = [encode_prompt(self._planner, view, process(image)) for view, image in sights]
        session, everyone = self._engine.open(prompts, 1), range(len(prompts))
        answers = dict(session.generate(list(everyone), [NO_IDS] * len(prompts)))
        decode = partial(self._planner.processor.tokenizer.decode, skip_special_tokens=True)
        parsed = [self._planner.parse_answer(decode(answers[index].ids)) for index in everyone]
        return [
            FinalPlan.without_planner(view, str(answer.error)) if answer.poses is None else FinalPlan(answer.poses)
            for (view, _), answer in zip(sights, parsed, strict=True)
        ]

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
            if turn.status is TurnStatus.OK and turn.poses is not None:
                return FinalPlan(turn.poses)
        return FinalPlan.without_planner(SceneView.from_scene(scene, task.image_hash), str(episode.turns[-1].error))
