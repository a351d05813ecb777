"""What the planner is told: system prompt, the first user message, and the conversation over several turns.

Numbers are written as in the answer (`answer.format_number`): a sign, two decimals, metres, seconds and radians.
A conversation holds exactly one image, in its first user message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtdrive.planner.answer import NUM_POSES, format_number, format_poses
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import image_hash
from mtdrive.simulation.scene import DrivingCommand, Scene


@dataclass(frozen=True)
class SceneView:
    """What a planner may see of a scene at t0: nothing of the map, of other objects, or of the future.

    token: scene token. image: front camera (H, W, 3) uint8 RGB. image_hash: see the function of that name.
    history_poses: (4, 3) x, y [m], heading [rad] at -1.5, -1.0, -0.5 and 0 s, ego frame at t0 (last row zero).
    velocity [m/s], acceleration [m/s^2]: (2,) of the rear axle, ego frame. command: the route's next direction.
    """

    token: str
    image: np.ndarray
    image_hash: str
    history_poses: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    command: DrivingCommand

    @classmethod
    def from_scene(cls, scene: Scene, image: np.ndarray) -> SceneView:
        """The view of a compiled scene and its front image (H, W, 3) uint8 RGB."""
        return cls(
            token=scene.token,
            image=image,
            image_hash=image_hash(image),
            history_poses=scene.history_poses,
            velocity=scene.velocity,
            acceleration=scene.acceleration,
            command=DrivingCommand(scene.command),
        )


@dataclass(frozen=True)
class PromptStyle:
    """Wording of the prompt.

    system: system message, or empty for none. user: first user message, a template over velocity, acceleration,
    history and command. integer_digits: digits before the point that numbers of prompt and answer are padded to.
    """

    system: str
    user: str
    integer_digits: int


PROMPTS = {
    # For pretrained models.
    "full": PromptStyle(
        system=(
            "You are the motion planner of a car. You see the front camera image at this moment. Coordinates are in "
            "the ego frame: origin at the rear axle now, x forward and y to the left in metres, heading "
            "counter-clockwise in radians. Plan the next 4 seconds as "
            f"{NUM_POSES} poses (x, y, heading), 0.5 s apart, the first one 0.5 s from now. Answer with exactly "
            "`Here is the planning trajectory [PT, (+x.xx, +y.yy, +h.hh), ...].` and nothing else. If you are told "
            "what is wrong with a plan, answer with a corrected plan in the same format."
        ),
        user=(
            "Velocity ({velocity}) m/s. Acceleration ({acceleration}) m/s^2. Poses 1.5 s, 1.0 s and 0.5 s ago: "
            "{history}. Driving command: {command}. Plan the trajectory."
        ),
        integer_digits=1,
    ),
    # For models trained from scratch on this task alone: no word more than what differs between scenes, and a fixed
    # number of digits, which a tokenizer made for it turns into a fixed number of tokens.
    "compact": PromptStyle(
        system="",
        user="velocity {velocity} acceleration {acceleration} history {history} command {command}",
        integer_digits=2,
    ),
}


def prompt_style(name: str) -> PromptStyle:
    """The style of that name.

    Raises:
        MTDriveError: unknown name.
    """
    if name not in PROMPTS:
        raise MTDriveError(f"There is no prompt style {name!r}; choose from {', '.join(PROMPTS)}.")
    return PROMPTS[name]


def user_text(view: SceneView, style: PromptStyle) -> str:
    """The text of the first user message, which follows the image."""

    def row(values: np.ndarray) -> str:
        return ", ".join(format_number(value, style.integer_digits) for value in values)

    return style.user.format(
        velocity=row(view.velocity),
        acceleration=row(view.acceleration),
        history=format_poses(view.history_poses[:-1], style.integer_digits),
        command=view.command.name.lower(),
    )


def messages(view: SceneView, exchanges: Sequence[tuple[str, str]], style: PromptStyle) -> list[dict]:
    """The conversation up to the planner's next answer, in TRL's conversational format.

    Args:
        view: the scene; its image is the one `{"type": "image"}` part, first in the first user message.
        exchanges: the turns so far, each the planner's answer and the feedback it got.
        style: wording.
    """
    conversation = [_message("system", style.system)] if style.system else []
    first = _message("user", user_text(view, style))
    first["content"].insert(0, {"type": "image"})
    conversation.append(first)
    for answer, feedback in exchanges:
        conversation += [_message("assistant", answer), _message("user", feedback)]
    return conversation


def _message(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}
