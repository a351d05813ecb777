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
    "traffic_light_compliance": "Red light at {time}.",
    "comfort": "Too much {quantity}: {measured} exceeds {limit}.",
    "history_comfort": "Too much {quantity}: {measured} exceeds {limit}.",
    "lane_keeping": "Off the lane's centre at {time}.",
    "ego_progress": "Progress {measured} of {limit}.",
}
CHANGES = {
    ChangeKind.TRAVEL: "Travel {amount} to {place} by {time}.",  # along the same path: + farther, - less far
    ChangeKind.SHIFT: "Shift {amount} to {place} by {time}.",  # + to the left, - to the right
}
CLEAN = "Clean plan."
SCORE = "PDMS {score}."
INVALID = "Invalid plan: {problem}."

# What a tokenizer made for this text has to know: the sentences, and the words that fill them in beside numbers.
TEMPLATES = (*dict.fromkeys(SENTENCES.values()), *CHANGES.values(), CLEAN, SCORE)
TERMS = (*(kind.name.lower() for kind in ObjectType), "left", "right", *QUANTITIES)


def render_text(feedback: Feedback) -> str:
    """The message that a planner gets.

    For instance `Collision at +02.30 with vehicle at +18.20, -00.40. Travel -04.50 to +13.10, +00.00 by
    +04.00. PDMS +00.00.` Changes are told second by second where the feedback holds such steps.
    """
    if feedback.problem is not None:
        return INVALID.format(problem=feedback.problem)
    score = SCORE.format(score=number(feedback.score))
    if feedback.clean:
        return f"{CLEAN} {score}"
    violations = [render_violation(finding) for finding in _told(feedback)]
    return " ".join([*violations, *map(_change, feedback.steps or feedback.changes), score])


def _told(feedback: Feedback) -> list[Finding]:
    """The worst violations; coming too close to what is hit later goes without saying."""
    hit = feedback.finding("no_at_fault_collisions").object_token
    return [
        finding
        for finding in feedback.violations
        if finding.metric != "time_to_collision_within_bound" or finding.object_token != hit
    ][:MAX_VIOLATIONS]


def number(value: float) -> str:
    """`+02.34`; never `-00.00`."""
    return f"{round(value, 2) + 0.0:+06.2f}"


def render_violation(finding: Finding) -> str:
    """The sentence about a finding that has not passed, for instance `Red light at +01.20.`"""
    fields = {"object": finding.object_class, "side": finding.side, "quantity": finding.quantity}
    for name in ("time", "measured", "limit"):
        value = getattr(finding, name)
        fields[name] = None if value is None else number(value)
    if finding.object_position is not None:
        fields["place"] = render_place(finding.object_position)
    return SENTENCES[finding.metric].format(**fields)


def _change(change: Change) -> str:
    amount, time = number(change.amount), number(change.time)
    return CHANGES[change.kind].format(amount=amount, place=render_place(change.position), time=time)


def render_place(position: tuple[float, float]) -> str:
    """`+18.20, -00.40`"""
    return ", ".join(map(number, position))
