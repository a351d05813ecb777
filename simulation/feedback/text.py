"""Feedback as text: one fixed sentence per violation over the structure, worst first.

Numbers are written like those of an answer (sign, two or more digits, two decimals) in SI units, places as x, y in
the ego frame at t0, amounts of change in metres; the planner's system prompt says so once.
"""

from __future__ import annotations

from mtdrive.simulation.feedback.structured import Change, ChangeKind, Feedback, Finding
from mtdrive.simulation.metrics.comfort import QUANTITIES
from mtdrive.simulation.scene import ObjectType

MAX_VIOLATIONS = 3

SENTENCES = {
    "no_at_fault_collisions": "Collision at {time} with {object} at {place}.",
    "drivable_area_compliance": "Off road at {time} on the {side} by {measured}.",
    "time_to_collision_within_bound": "Too close at {time} to {object} at {place}.",
    "driving_direction_compliance": "Wrong lane at {time} for {measured}.",
    "comfort": "Too much {quantity}: {measured}, limit {limit}.",
    "ego_progress": "Progress {measured} of {limit}.",
}
CHANGES = {
    ChangeKind.TRAVEL: "Travel {amount} by {time}.",  # along the same path: + farther, - less far
    ChangeKind.SHIFT: "Shift {amount} by {time}.",  # + to the left, - to the right
}
CLEAN = "Clean plan."
SCORE = "PDMS {score}."
INVALID = "Invalid plan: {problem}."

# What a tokenizer made for this text has to know: the sentences, and the words that fill them in beside numbers.
TEMPLATES = (*SENTENCES.values(), *CHANGES.values(), CLEAN, SCORE)
TERMS = (*(kind.name.lower() for kind in ObjectType), "left", "right", *QUANTITIES)


def render_text(feedback: Feedback) -> str:
    """The message that a planner gets.

    For instance `Collision at +02.30 with vehicle at +18.20, -00.40. Travel -04.50 by +04.00. PDMS +00.00.`
    """
    if feedback.problem is not None:
        return INVALID.format(problem=feedback.problem)
    score = SCORE.format(score=number(feedback.score))
    if feedback.clean:
        return f"{CLEAN} {score}"
    sentences: list[str] = []
    for finding in feedback.violations[:MAX_VIOLATIONS]:
        sentences.append(_violation(finding))
        if finding.change is not None:
            sentences.append(_change(finding.change))
    return " ".join([*dict.fromkeys(sentences), score])


def number(value: float) -> str:
    """`+02.34`; never `-00.00`."""
    return f"{round(value, 2) + 0.0:+06.2f}"


def _violation(finding: Finding) -> str:
    fields = {"object": finding.object_class, "side": finding.side, "quantity": finding.quantity}
    fields |= {name: number(value) for name in ("time", "measured", "limit") if (value := getattr(finding, name)) is not None}
    if finding.object_position is not None:
        fields["place"] = ", ".join(map(number, finding.object_position))
    return SENTENCES[finding.metric].format(**fields)


def _change(change: Change) -> str:
    return CHANGES[change.kind].format(amount=number(change.amount), time=number(change.time))
