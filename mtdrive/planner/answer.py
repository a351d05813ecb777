"""The planner's answer: a trajectory as text, and how it is parsed.

`Here is the planning trajectory [PT, (+x.xx, +y.yy, +h.hh), ... x8].` with x and y in metres and the heading in
radians, ego rear-axle frame at t0, one pose every 0.5 s. `recogdrive.parse_answer` is for the released checkpoints.
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


def format_number(value: float, integer_digits: int = 1, near_zero: float | None = None) -> str:
    """`+x.xx` with a sign always; never `-0.00`.

    Args:
        value: any finite number.
        integer_digits: least number of digits before the point.
        near_zero: what rounds to no more than this is written `0.0`; None for no such exception.
    """
    rounded = round(float(value), 2) + 0.0
    if near_zero is not None and abs(rounded) <= near_zero:
        return "0.0"
    return f"{rounded:+0{integer_digits + 4}.2f}"


def format_poses(poses: np.ndarray, integer_digits: int = 1, near_zero: float | None = None) -> str:
    """Poses (N, 3) as `(+x.xx, +y.yy, +h.hh), (...)`; see `format_number`."""
    rows = ((format_number(value, integer_digits, near_zero) for value in pose) for pose in poses)
    return ", ".join(f"({', '.join(row)})" for row in rows)


def format_answer(poses: np.ndarray, integer_digits: int = 1, near_zero: float | None = None) -> str:
    """`poses`, (8, 3) x, y [m], heading [rad], as an answer; see `format_number`.

    Raises:
        ValueError: not (8, 3), or a value that is not finite or that `parse_answer` would refuse.
    """
    poses = np.asarray(poses, dtype=np.float64)
    if poses.shape != (NUM_POSES, 3):
        raise ValueError(f"An answer has ({NUM_POSES}, 3) poses, not {poses.shape}.")
    if not _in_range(np.round(poses, 2)):
        raise ValueError(f"Poses beyond {MAX_DISTANCE} m or pi rad, or not finite, do not fit into an answer.")
    return f"{PREFIX}{format_poses(poses, integer_digits, near_zero)}{SUFFIX}"


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
    return parse_poses(body)


def parse_poses(body: str) -> Parsed:
    """Parse the poses of an answer, `(+x.xx, +y.yy, +h.hh), ...` without brackets, as strictly as `parse_answer`."""
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
