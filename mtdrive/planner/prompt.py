"""What the planner is told: system prompt, the first user message, and the conversation over several turns.

Numbers are written as in the answer (`answer.format_number`): a sign, two decimals, metres, seconds and radians.
A conversation holds exactly one image, in its first user message. Questions about plans, which are asked in training
alone, begin with the same situation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtdrive.planner.answer import NUM_POSES, format_number, format_poses
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import DrivingCommand, Scene


@dataclass(frozen=True)
class SceneView:
    """What a planner may see of a scene at t0: nothing of the map, of other objects, or of the future.

    token: scene token. image_hash: content hash of the front camera's image, by which its pixels are found.
    history_poses: (4, 3) x, y [m], heading [rad] at -1.5, -1.0, -0.5 and 0 s, ego frame at t0 (last row zero).
    velocity [m/s], acceleration [m/s^2]: (2,) of the rear axle, ego frame. command: the route's next direction.
    """

    token: str
    image_hash: str
    history_poses: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    command: DrivingCommand

    @classmethod
    def from_scene(cls, scene: Scene, image_hash: str) -> SceneView:
        """The view of a compiled scene whose front image has that hash."""
        return cls(
            token=scene.token,
            image_hash=image_hash,
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
    question_system, question: likewise where a question about plans is asked, a template over the question, too.
    questions: by kind (`datasets.schema.Question`), templates over the plans `first` and `second`.
    """

    system: str
    user: str
    integer_digits: int
    question_system: str
    question: str
    questions: Mapping[str, str]


FRAME = (
    "You are the motion planner of a car. You see the front camera image at this moment. Coordinates are in the ego "
    "frame: origin at the rear axle now, x forward and y to the left in metres, heading counter-clockwise in radians. "
)
SITUATION = (
    "Velocity ({velocity}) m/s. Acceleration ({acceleration}) m/s^2. Poses 1.5 s, 1.0 s and 0.5 s ago: {history}. "
    "Driving command: {command}. "
)
COMPACT_SITUATION = "velocity {velocity} acceleration {acceleration} history {history} command {command}"

PROMPTS = {
    # For pretrained models.
    "full": PromptStyle(
        system=(
            f"{FRAME}Plan the next 4 seconds as {NUM_POSES} poses (x, y, heading), 0.5 s apart, the first one 0.5 s "
            "from now. Answer with exactly `Here is the planning trajectory [PT, (+x.xx, +y.yy, +h.hh), ...].` and "
            "nothing else. If you are told what is wrong with a plan, answer with a corrected plan in the same format."
        ),
        user=f"{SITUATION}Plan the trajectory.",
        integer_digits=1,
        question_system=(
            f"{FRAME}A plan is {NUM_POSES} poses (x, y, heading), 0.5 s apart, the first one 0.5 s from now. Answer "
            "the question about plans."
        ),
        question=f"{SITUATION}{{question}}",
        questions={
            "collision": "Do you cause a collision if you drive {first}, when and with what?",
            "off_road": "Do you leave the road if you drive {first}, when and where?",
            "comparison": "Which plan is safer, A {first} or B {second}, and what is wrong with the other one?",
        },
    ),
    # For models trained from scratch on this task alone: no word more than what differs between scenes, and a fixed
    # number of digits, which a tokenizer made for it turns into a fixed number of tokens.
    "compact": PromptStyle(
        system="",
        user=COMPACT_SITUATION,
        integer_digits=2,
        question_system="",
        question=f"{COMPACT_SITUATION} {{question}}",
        questions={
            "collision": "{first} Collision?",
            "off_road": "{first} Off road?",
            "comparison": "A {first} B {second} safer?",
        },
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
    return style.user.format(**_situation(view, style))


def _situation(view: SceneView, style: PromptStyle) -> dict[str, str]:
    def row(values: np.ndarray) -> str:
        return ", ".join(format_number(value, style.integer_digits) for value in values)

    return {
        "velocity": row(view.velocity),
        "acceleration": row(view.acceleration),
        "history": format_poses(view.history_poses[:-1], style.integer_digits),
        "command": view.command.name.lower(),
    }


def messages(view: SceneView, exchanges: Sequence[tuple[str, str]], style: PromptStyle) -> list[dict]:
    """The conversation up to the planner's next answer, in TRL's conversational format.

    Args:
        view: the scene; its image is the one `{"type": "image"}` part, first in the first user message.
        exchanges: the turns so far, each the planner's answer and the feedback it got.
        style: wording.
    """
    conversation = _opening(style.system, user_text(view, style))
    for answer, feedback in exchanges:
        conversation += [_message("assistant", answer), _message("user", feedback)]
    return conversation


def question_messages(view: SceneView, kind: str, plans: np.ndarray, style: PromptStyle) -> list[dict]:
    """The conversation up to the answer of a question about plans (K, 8, 3), K = 2 for a comparison.

    kind: of `datasets.schema.Question`.
    """
    stated = (f"[PT, {format_poses(plan, style.integer_digits)}]" for plan in plans)
    question = style.questions[kind].format(**dict(zip(("first", "second"), stated)))
    return _opening(style.question_system, style.question.format(question=question, **_situation(view, style)))


def _opening(system: str, user: str) -> list[dict]:
    first = _message("user", user)
    first["content"].insert(0, {"type": "image"})
    return [_message("system", system), first] if system else [first]


def _message(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}
