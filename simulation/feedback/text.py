"""Feedback as text: one fixed sentence per violation over the structure, worst first.

Numbers are written like those of an answer (sign, two or more digits, two decimals) in SI units, places as x, y in
the ego frame at t0, amounts of change in metres; the planner's system prompt says so once.
"""

from __future__ import annotations

from mtdrive.simulation.feedback.structured import Change, ChangeKind, Feedback, Finding
from mtdrive.simulation.metrics.registry import all_metrics
from mtdrive.simulation.scene import ObjectType

MAX_VIOLATIONS = 3

CHANGES = {
    ChangeKind.TRAVEL: "Travel {amount} to {place} by {time}.",  # along the same path: + farther, - less far
    ChangeKind.SHIFT: "Shift {amount} to {place} by {time}.",  # + to the left, - to the right
}
CLEAN = "Clean plan."
SCORE = "PDMS {score}."
INVALID = "Invalid plan: {problem}."


def templates() -> list[str]:
    """The sentences that a tokenizer made for this text has to know."""
    sentences = (metric.sentence for metric in all_metrics().values())
    return [*dict.fromkeys(sentences), *CHANGES.values(), CLEAN, SCORE]


def terms() -> list[str]:
    """The words that fill in the sentences beside numbers."""
    words = (word for metric in all_metrics().values() for word in metric.terms)
    return [*(kind.name.lower() for kind in ObjectType), *dict.fromkeys(words)]


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
    """The worst violations, without those that another one implies."""
    metrics = all_metrics()
    objects = {finding.metric: finding.object_token for finding in feedback.findings}
    return [
        finding
        for finding in feedback.violations
        if finding.object_token is None or finding.object_token != objects.get(metrics[finding.metric].implied_by)
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
    return all_metrics()[finding.metric].sentence.format(**fields)


def _change(change: Change) -> str:
    amount, time = number(change.amount), number(change.time)
    return CHANGES[change.kind].format(amount=amount, place=render_place(change.position), time=time)


def render_place(position: tuple[float, float]) -> str:
    """`+18.20, -00.40`"""
    return ", ".join(map(number, position))
