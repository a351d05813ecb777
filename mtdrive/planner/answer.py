"""The planner's answer: a trajectory as text, and how it is parsed.

`Here is the planning trajectory [PT, (+x.xx, +y.yy, +h.hh), ... x8].` with x and y in metres and the heading in
radians, ego rear-axle frame at t0, one pose every 0.5 s. The released MTDrive checkpoints answer in this format.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

NUM_POSES = 8
PREFIX = "Here is the planning trajectory [PT, "
SUFFIX = "]."
MAX_DISTANCE = 200.0  # [m] no drivable plan of 4 s gets further than 50 m/s along one axis
MAX_HEADING = math.pi + 0.005  # [rad] pi, rounded to two decimals, must pass

_NUMBER = re.compile(r"[+-]?[0-9]{1,4}(\.[0-9]{1,6})?")


class AnswerError(StrEnum):
    """Why an answer is refused; the values are what logs and records count."""

    MISSING_PREFIX = "missing_prefix"  # the text does not begin with PREFIX
    REPEATED_ANSWER = "repeated_answer"  # PREFIX occurs more than once
    NOT_CLOSED = "not_closed"  # no SUFFIX: usually cut off at the token limit
    TEXT_AFTER = "text_after"  # something follows SUFFIX
    MALFORMED_POSE = "malformed_pose"  # parentheses, commas, or not three values in a pose
    NOT_A_NUMBER = "not_a_number"  # a value that is not a plain decimal number
    WRONG_COUNT = "wrong_count"  # not NUM_POSES poses
    OUT_OF_RANGE = "out_of_range"  # beyond MAX_DISTANCE or MAX_HEADING


@dataclass(frozen=True)
class Parsed:
    """A parsed answer: exactly one of the two fields is set."""

    poses: np.ndarray | None
    """(8, 3) float64 x, y [m], heading [rad], ego frame at t0."""

    error: AnswerError | None
    """The first reason why the text is refused."""


def format_number(value: float, integer_digits: int = 1) -> str:
    """`+x.xx` with a sign always and at least `integer_digits` digits before the point; never `-0.00`."""
    rounded = round(float(value), 2) + 0.0
    return f"{rounded:+0{integer_digits + 4}.2f}"


def format_poses(poses: np.ndarray, integer_digits: int = 1) -> str:
    """Poses (N, 3) as `(+x.xx, +y.yy, +h.hh), (...)`."""
    return ", ".join(f"({', '.join(format_number(value, integer_digits) for value in pose)})" for pose in poses)


def format_answer(poses: np.ndarray, integer_digits: int = 1) -> str:
    """`poses`, (8, 3) x, y [m], heading [rad], as an answer.

    Raises:
        ValueError: not (8, 3), or a value that is not finite or that `parse_answer` would refuse.
    """
    poses = np.asarray(poses, dtype=np.float64)
    if poses.shape != (NUM_POSES, 3):
        raise ValueError(f"An answer has ({NUM_POSES}, 3) poses, not {poses.shape}.")
    if not _in_range(np.round(poses, 2)):
        raise ValueError(f"Poses beyond {MAX_DISTANCE} m or pi rad, or not finite, do not fit into an answer.")
    return f"{PREFIX}{format_poses(poses, integer_digits)}{SUFFIX}"


def parse_answer(text: str) -> Parsed:
    """Parse an answer strictly: nothing before, nothing after, eight poses, plain numbers of any width, in range."""
    text = text.strip()
    if not text.startswith(PREFIX):
        return _refuse(AnswerError.MISSING_PREFIX)
    if text.count(PREFIX) > 1:
        return _refuse(AnswerError.REPEATED_ANSWER)
    body, closed, rest = text[len(PREFIX) :].partition(SUFFIX)
    if not closed:
        return _refuse(AnswerError.NOT_CLOSED)
    if rest:
        return _refuse(AnswerError.TEXT_AFTER)
    if not (body.startswith("(") and body.endswith(")")):
        return _refuse(AnswerError.MALFORMED_POSE)
    poses = [pose.split(", ") for pose in body[1:-1].split("), (")]
    if any(len(pose) != 3 for pose in poses):
        return _refuse(AnswerError.MALFORMED_POSE)
    if not all(_NUMBER.fullmatch(value) for pose in poses for value in pose):
        return _refuse(AnswerError.NOT_A_NUMBER)
    if len(poses) != NUM_POSES:
        return _refuse(AnswerError.WRONG_COUNT)
    values = np.array(poses, dtype=np.float64)
    if not _in_range(values):
        return _refuse(AnswerError.OUT_OF_RANGE)
    return Parsed(values, None)


def _in_range(poses: np.ndarray) -> bool:
    return bool(np.all(np.abs(poses) <= (MAX_DISTANCE, MAX_DISTANCE, MAX_HEADING)))


def _refuse(error: AnswerError) -> Parsed:
    return Parsed(None, error)
