"""Fingerprints of everything that is said to a planner, and of how it answers.

A planner that was trained knows one wording, and other words make it worse without any error. So its card and the
dataset that it learned from carry a fingerprint of the texts themselves: fixed inputs are rendered as in training, and
what comes out is hashed. A sentence that changes anywhere changes the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np

from mtdrive.datasets.schema import Question
from mtdrive.planner.answer import NUM_POSES, AnswerError
from mtdrive.planner.conversation import question_answer
from mtdrive.planner.prompt import PromptStyle, SceneView, messages, question_messages
from mtdrive.simulation.feedback.structured import Change, ChangeKind, Feedback, Finding
from mtdrive.simulation.feedback.text import NOT_DRIVABLE, NOT_FINITE, render_text, templates, terms
from mtdrive.simulation.metrics.registry import all_metrics
from mtdrive.simulation.scene import DrivingCommand

PLAN = np.linspace((0.5, -0.25, -0.1), (12.345, 3.0, 0.2), NUM_POSES)
VIEW = SceneView(
    token="",
    image_hash="",
    history_poses=np.linspace((-6.0, 0.1, 0.02), (0.0, 0.0, 0.0), 4),
    velocity=np.array([4.0, -0.1]),
    acceleration=np.array([-0.5, 0.004]),
    command=DrivingCommand.LEFT,
)
FINDING = Finding(
    metric="",
    passed=False,
    value=0.0,
    time=1.5,
    object_class="vehicle",
    ego_position=(9.0, 0.25),
    quantity="gap",
    measured=0.5,
    limit=2.0,
    side="left",
)


def wording_fingerprint(style: PromptStyle) -> str:
    """16 hex digits that stand for all that is said to a planner in a style: prompts, feedback and questions."""
    feedback = _feedback()
    exchange = style.format_answer(PLAN), " ".join(feedback)
    return _fingerprint(
        [messages(replace(VIEW, command=command), [exchange], style) for command in DrivingCommand],
        [question_messages(VIEW, kind, np.stack([PLAN, -PLAN]), style) for kind in style.questions],
        _answers(),
        feedback,
        sorted(templates()),
        sorted(terms()),
    )


def answer_fingerprint(style: PromptStyle) -> str:
    """16 hex digits that stand for the format of a planner's answers in a style."""
    return _fingerprint(style.format_answer(PLAN))


def _findings() -> list[Finding]:
    """A violation of every metric, with a place where its sentence names one."""
    return [
        replace(FINDING, metric=column, object_position=(12.0, -3.5) if "{place}" in metric.sentence else None)
        for column, metric in sorted(all_metrics().items())
    ]


def _feedback() -> list[str]:
    """Feedback of every kind."""
    findings = tuple(_findings())
    changes = tuple(Change(kind, -1.5, 4.0, (8.0, 0.5), 1.0) for kind in ChangeKind)
    flawed = Feedback("pdms_v1", "privileged", 0.25, clean=False, findings=findings, changes=changes)
    return [
        *(render_text(replace(flawed, findings=(finding,))) for finding in findings),
        render_text(flawed),
        render_text(replace(flawed, steps=changes[:1])),
        render_text(replace(flawed, clean=True)),
        *(render_text(replace(flawed, problem=problem)) for problem in (*AnswerError, NOT_FINITE, NOT_DRIVABLE)),
    ]


def _answers() -> list[str]:
    """Answers of every kind to questions."""
    findings = _findings()
    one = Question("", "", PLAN[None], (), (), findings[0])
    questions = [
        replace(one, finding=replace(findings[0], passed=True)),
        *(replace(one, finding=finding) for finding in findings),
        *(replace(one, safer=index) for index in (0, 1)),
    ]
    return [question_answer(question) for question in questions]


def _fingerprint(*texts: object) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()
