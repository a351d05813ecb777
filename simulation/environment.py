"""The closed loop as a gymnasium environment: propose a trajectory, get scores and feedback, propose again."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.structured import Source
from mtdrive.simulation.feedback.text import render_text
from mtdrive.simulation.scene import DrivingCommand, Scene

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 +-.,:;()[]/_'"
MAX_FEEDBACK = 600  # characters
LIMIT = 200.0  # [m], [m/s], [m/s^2]: bound of the ego's past and present
REACH = np.array([LIMIT, LIMIT, np.pi])  # bounds of an action: x, y [m], heading [rad]


class SceneEnvironment(gymnasium.Env):
    """One scene and up to `max_turns` proposals. Time does not advance between turns: every proposal starts at t0.

    Action: poses (8, 3), x, y [m] and heading [rad] of the rear axle at 0.5 s steps in the ego frame at t0.
    Observation: `image` (H, W, 3) uint8 RGB, `velocity` (2,) [m/s], `acceleration` (2,) [m/s^2], `history` (4, 3)
    past poses (oldest first), `command` (DrivingCommand) and `feedback`, the text on the last action (empty at first).
    Reward: the score of the action against log replay. `terminated`: the plan is clean. `truncated`: no turn is left.
    `info` of a step: `scores` (navsim's column names), `feedback` (structured) and `turn` (1, 2, ...).
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own attribute)

    def __init__(
        self,
        scene: Scene,
        image: np.ndarray,
        *,
        max_turns: int = 3,
        metric: str = "pdms_v1",
        source: Source = "privileged",
    ):
        if max_turns < 1:
            raise MTDriveError(f"max_turns is {max_turns}: give at least one turn.")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise MTDriveError(f"The image is {image.dtype} {image.shape}: give an (H, W, 3) uint8 RGB array.")
        self.scene, self.image, self.max_turns = scene, image, max_turns
        self.metric, self.source = metric, source
        self.turn = 0
        self.action_space = spaces.Box(-np.tile(REACH, (8, 1)), np.tile(REACH, (8, 1)), dtype=np.float64)
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, image.shape, np.uint8),
                "velocity": spaces.Box(-LIMIT, LIMIT, (2,), np.float64),
                "acceleration": spaces.Box(-LIMIT, LIMIT, (2,), np.float64),
                "history": spaces.Box(-LIMIT, LIMIT, (4, 3), np.float64),
                "command": spaces.Discrete(len(DrivingCommand)),
                "feedback": spaces.Text(MAX_FEEDBACK, min_length=0, charset=CHARACTERS),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict]:
        """Back to the first turn: the first observation, without feedback, and an empty `info`."""
        super().reset(seed=seed)
        self.turn = 0
        return self._observe(""), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Score one proposal.

        Raises:
            MTDriveError: the action is not eight finite poses within the action space.
        """
        if not self.action_space.contains(action):
            raise MTDriveError(
                "The action lies outside the action space: give a float64 array (8, 3) of finite "
                f"x, y [m] and heading [rad] within +-{REACH[0]:.0f} m and +-pi."
            )
        self.turn += 1
        assessment = assess(self.scene, action[None], metric=self.metric, source=self.source)[0]
        info = {"scores": assessment.scores, "feedback": assessment.feedback, "turn": self.turn}
        observation = self._observe(render_text(assessment.feedback))
        truncated = not assessment.clean and self.turn >= self.max_turns
        return observation, assessment.score, assessment.clean, truncated, info

    def _observe(self, feedback: str) -> dict[str, Any]:
        return {
            "image": self.image.copy(),
            "velocity": np.array(self.scene.velocity),
            "acceleration": np.array(self.scene.acceleration),
            "history": np.array(self.scene.history_poses),
            "command": int(self.scene.command),
            "feedback": feedback,
        }
