"""A recorded sample as the conversation that a planner learns from."""

from __future__ import annotations

from mtdrive.datasets.schema import Question, Sample
from mtdrive.planner.prompt import SceneView, messages, prompt_style, question_messages
from mtdrive.simulation.feedback.text import render_place, render_violation
from mtdrive.simulation.scene import Scene

NO = "No."
YES = "Yes. {violation}"
WHERE = " Rear axle at {place}."  # of a violation whose sentence names no place, such as leaving the road
SAFER = "{safer} is safer. {other}: {violation}"


def conversation(scene: Scene, image_hash: str, sample: Sample, style_name: str) -> list[dict]:
    """The messages of one sample in TRL's conversational format, the target answer last.

    Raises:
        MTDriveError: unknown prompt style.
    """
    style = prompt_style(style_name)
    view = SceneView.from_scene(scene, image_hash)
    if isinstance(sample, Question):
        prompt, answer = question_messages(view, sample.kind, sample.plans, style), question_answer(sample)
    else:
        exchanges = [(style.format_answer(turn.poses), turn.feedback) for turn in sample.exchanges]
        prompt, answer = messages(view, exchanges, style), style.format_answer(sample.target.poses)
    return [*prompt, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def question_answer(question: Question) -> str:
    """The answer to a question in words, in the language of the feedback.

    For instance `Yes. Collision at +02.30 with vehicle at +18.20, -00.40.` or `B is safer. A: Off road at +01.10 on the
    left by +00.40. Rear axle at +09.10, +01.00.`
    """
    finding = question.finding
    if finding.passed:
        return NO
    violation = render_violation(finding)
    if finding.object_position is None and finding.ego_position is not None:
        violation += WHERE.format(place=render_place(finding.ego_position))
    if question.safer is None:
        return YES.format(violation=violation)
    return SAFER.format(safer="AB"[question.safer], other="BA"[question.safer], violation=violation)
