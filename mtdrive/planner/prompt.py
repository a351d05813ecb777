"""The text that a planner reads: system prompt, first user message, and the conversation over several turns.

Numbers have the format of the answer (`answer.format_number`): a sign, two decimals, metres, seconds and radians.
The styles of the released checkpoints take their words from `recogdrive`.
A conversation holds exactly one image, in its first user message. Questions about plans are asked in training only and
begin with the same situation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtdrive.planner import recogdrive
from mtdrive.planner.answer import NUM_POSES, Parsed, format_answer, format_number, format_poses, parse_answer
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import DrivingCommand, Scene


@dataclass(frozen=True)
class SceneView:
    """What a planner may see of a scene at t0: nothing of the map, of other objects, or of the future."""

    token: str
    """Scene token."""

    image_hash: str
    """Content hash of the front camera's image, by which its pixels are found."""

    history_poses: np.ndarray
    """(4, 3) x, y [m], heading [rad] at -1.5, -1.0, -0.5 and 0 s, ego frame at t0 (last row zero)."""

    velocity: np.ndarray
    """(2,) velocity of the rear axle [m/s], ego frame at t0."""

    acceleration: np.ndarray
    """(2,) acceleration of the rear axle [m/s^2], ego frame at t0."""

    command: DrivingCommand
    """Next direction of the route."""

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
    """Wording of the prompt."""

    name: str
    """Name in `PROMPTS` and in the configuration."""

    system: str
    """System message; empty for none."""

    user: str
    """First user message: a template with `velocity`, `acceleration`, `history` (before t0), `poses[0]` (1.5 s ago) to
    `poses[3]` (now) and `command`."""

    integer_digits: int
    """Digits before the decimal point that numbers of prompt and answer are padded to."""

    question_system: str
    """System message where a question about plans is asked; empty for none."""

    question: str
    """First user message where a question about plans is asked: the template of `user` with `question`."""

    questions: Mapping[str, str]
    """Kind (`datasets.schema.Question`) -> question: a template with the plans `first` and `second`."""

    commands: Mapping[DrivingCommand, str]
    """Command -> its name in the prompt."""

    near_zero: float | None = None
    """What rounds to no more than this is written `0.0` in prompt and answer; None for no such exception."""

    parse_answer: Callable[[str], Parsed] = parse_answer
    """Reads a plan in the text of an answer."""

    def format_number(self, value: float) -> str:
        """See `answer.format_number`."""
        return format_number(value, self.integer_digits, self.near_zero)

    def format_poses(self, poses: np.ndarray) -> str:
        """See `answer.format_poses`."""
        return format_poses(poses, self.integer_digits, self.near_zero)

    def format_answer(self, poses: np.ndarray) -> str:
        """See `answer.format_answer`."""
        return format_answer(poses, self.integer_digits, self.near_zero)


FRAME = (
    "You are the motion planner of a car. You see the front camera image at this moment. Coordinates are in the ego "
    "frame: origin at the rear axle now, x forward and y to the left in metres, heading counter-clockwise in radians. "
)
SITUATION = (
    "Velocity ({velocity}) m/s. Acceleration ({acceleration}) m/s^2. Poses 1.5 s, 1.0 s and 0.5 s ago: {history}. "
    "Driving command: {command}. "
)
QUESTIONS = {
    "collision": "Do you cause a collision if you drive {first}, when and with what?",
    "off_road": "Do you leave the road if you drive {first}, when and where?",
    "comparison": "Which plan is safer, A {first} or B {second}, and what is wrong with the other one?",
}
LOWER_CASE = {command: command.name.lower() for command in DrivingCommand}
COMPACT_SITUATION = "velocity {velocity} acceleration {acceleration} history {history} command {command}"

STYLES = (
    # For pretrained models.
    PromptStyle(
        name="full",
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
        questions=QUESTIONS,
        commands=LOWER_CASE,
    ),
    # For models trained from scratch on this task alone: no word more than what differs between scenes, and a fixed
    # number of digits, which a tokenizer made for it turns into a fixed number of tokens.
    PromptStyle(
        name="compact",
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
        commands=LOWER_CASE,
    ),
    # For the released MTDrive checkpoints. The questions are ours; nothing is public of those that they learned from.
    *(
        PromptStyle(
            name=name,
            system=recogdrive.SYSTEM,
            user=f"{situation}{recogdrive.OUTPUT}",
            integer_digits=1,
            question_system=recogdrive.SYSTEM,
            question=f"{situation}\n{{question}}",
            questions=QUESTIONS,
            commands=recogdrive.COMMANDS,
            near_zero=recogdrive.NEAR_ZERO,
            parse_answer=recogdrive.parse_answer,
        )
        for name, situation in recogdrive.SITUATIONS.items()
    ),
)
PROMPTS = {style.name: style for style in STYLES}


def prompt_style(name: str) -> PromptStyle:
    """The style of that name.

    Raises:
        MTDriveError: unknown name.
    """
    if name not in PROMPTS:
        raise MTDriveError(f"There is no prompt style prompt={name}; choose from {', '.join(PROMPTS)}.")
    return PROMPTS[name]


def user_text(view: SceneView, style: PromptStyle) -> str:
    """The text of the first user message, which follows the image."""
    return style.user.format(**_situation(view, style))


def _situation(view: SceneView, style: PromptStyle) -> dict[str, str | list[str]]:
    def row(values: np.ndarray) -> str:
        return ", ".join(style.format_number(value) for value in values)

    return {
        "velocity": row(view.velocity),
        "acceleration": row(view.acceleration),
        "history": style.format_poses(view.history_poses[:-1]),
        "poses": [style.format_poses(view.history_poses[[index]]) for index in range(len(view.history_poses))],
        "command": style.commands[view.command],
    }


def messages(view: SceneView, exchanges: Sequence[tuple[str, str]], style: PromptStyle) -> list[dict]:
    """The conversation up to the planner's next answer, in TRL's conversational format.

    Args:
        view: the scene; its image is the one `{"type": "image"}` part, first in the first user message.
        exchanges: the turns so far, each the planner's answer and the feedback on it.
        style: wording of the first messages.
    """
    conversation = _opening(style.system, user_text(view, style))
    for answer, feedback in exchanges:
        conversation += [_message("assistant", answer), _message("user", feedback)]
    return conversation


def question_messages(view: SceneView, kind: str, plans: np.ndarray, style: PromptStyle) -> list[dict]:
    """The conversation up to the answer to a question about plans, in TRL's conversational format.

    Args:
        view: the scene, as in `messages`.
        kind: of the question (`datasets.schema.Question`).
        plans: (K, 8, 3) x, y [m], heading [rad]; K is 2 for a comparison, else 1.
        style: wording of the question.
    """
    texts = (f"[PT, {style.format_poses(plan)}]" for plan in plans)
    question = style.questions[kind].format(**dict(zip(("first", "second"), texts)))
    return _opening(style.question_system, style.question.format(question=question, **_situation(view, style)))


def _opening(system: str, user: str) -> list[dict]:
    first = _message("user", user)
    first["content"].insert(0, {"type": "image"})
    return [_message("system", system), first] if system else [first]


def _message(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}
