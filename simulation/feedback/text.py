"""Feedback as text: one fixed sentence for each violation, the worst first, then the changes and the score.

Numbers are written like those of an answer (sign, two or more digits, two decimals) in SI units, positions as x, y in
the ego frame at t0, changes in metres; the planner's system prompt says so once.
"""

from __future__ import annotations

from mtdrive.simulation.feedback.structured import Change, ChangeKind, Feedback, Finding
from mtdrive.simulation.metrics.registry import all_metrics
from mtdrive.simulation.scene import ObjectType

MAX_VIOLATIONS = 3

CHANGES = {
    ChangeKind.TRAVEL: "Travel {amount} to {place} by {time}.",
    ChangeKind.SHIFT: "Shift {amount} to {place} by {time}.",
}
CLEAN = "Clean plan."
SCORE = "PDMS {score}."
INVALID = "Invalid plan: {problem}."
NOT_FINITE, NOT_DRIVABLE = "numbers that are not finite", "poses that no car can follow"  # problems


def templates() -> list[str]:
    """All sentence templates, for a tokenizer that must know their words."""
    sentences = (metric.sentence for metric in all_metrics().values())
    return [*dict.fromkeys(sentences), *CHANGES.values(), CLEAN, SCORE]


def terms() -> list[str]:
    """The words that fill the templates beside numbers: object classes and the terms of the metrics."""
    words = (word for metric in all_metrics().values() for word in metric.terms)
    return [*(kind.name.lower() for kind in ObjectType), *dict.fromkeys(words)]


def render_text(feedback: Feedback) -> str:
    """The feedback message to a planner.

    For instance `Collision at +02.30 with vehicle at +18.20, -00.40. Travel -04.50 to +13.10, +00.00 by
    +04.00. PDMS +00.00.` Changes are given second by second if the feedback has `steps`.
    """
    if feedback.problem is not None:
        return INVALID.format(problem=feedback.problem)
    score = SCORE.format(score=number(feedback.score))
    if feedback.clean:
        return f"{CLEAN} {score}"
    violations = [render_violation(finding) for finding in _reported(feedback)]
    return " ".join([*violations, *map(_change, feedback.steps or feedback.changes), score])


def _reported(feedback: Feedback) -> list[Finding]:
    """The worst violations, without those that another one implies."""
    metrics = all_metrics()
    objects = {finding.metric: finding.object_token for finding in feedback.findings}

    def implied(finding: Finding) -> bool:
        by = metrics[finding.metric].implied_by
        return by is not None and finding.object_token is not None and finding.object_token == objects.get(by)

    return [finding for finding in feedback.violations if not implied(finding)][:MAX_VIOLATIONS]


def number(value: float) -> str:
    """A number as text, such as `+02.34`; never `-00.00`."""
    return f"{round(value, 2) + 0.0:+06.2f}"


def render_violation(finding: Finding) -> str:
    """The sentence on a finding that has not passed, such as `Red light at +01.20.`"""
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
    """A position x, y [m] as text, such as `+18.20, -00.40`."""
    return ", ".join(map(number, position))
