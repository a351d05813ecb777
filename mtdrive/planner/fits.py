"""What a planner has learned against what it is asked to do: what does not fit is refused by name.

These checks belong before any work. `planner.allow_misfit=true` leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mtdrive.planner.card import PlannerCard
from mtdrive.planner.prompt import PromptStyle
from mtdrive.planner.settings import PlannerSettings
from mtdrive.planner.wording import answer_fingerprint, wording_fingerprint
from mtdrive.simulation.errors import MTDriveError

CURE = "or say planner.allow_misfit=true to go on all the same."


def check_words(card: PlannerCard, style: PromptStyle, name: str | Path) -> None:
    """Refuse to use a planner in another wording, or read another format of answers, than it has learned.

    Args:
        card: of the planner's folder.
        style: that it is to be used in.
        name: of the planner.

    Raises:
        MTDriveError: names which of the two it is.
    """
    if card.prompt != style.name:
        raise MTDriveError(
            f"Planner {name} learned prompt={card.prompt}, not prompt={style.name}; leave planner.prompt as its "
            f"planner.yaml says, {CURE}"
        )
    if card.answer != answer_fingerprint(style):
        raise MTDriveError(
            f"Planner {name} learned another format of answers than mtdrive reads today; use mtdrive {card.mtdrive}, "
            f"which saved it, train it again, {CURE}"
        )
    if card.wording != (today := wording_fingerprint(style)):
        raise MTDriveError(
            f"Planner {name} learned other words than prompt={style.name} has today (wording {card.wording}, not "
            f"{today}); use mtdrive {card.mtdrive}, which saved it, train it again, {CURE}"
        )


def check_dataset(manifest: Mapping[str, object], style: PromptStyle, root: str | Path) -> None:
    """Refuse to train a planner on a dataset in another wording than its own.

    Args:
        manifest: of the dataset (`datasets.reader.read_manifest`).
        style: of the planner.
        root: folder of the dataset.

    Raises:
        MTDriveError: names style or wording.
    """
    if manifest["wording"] != style.name:
        raise MTDriveError(
            f"Dataset {root} was recorded with prompt={manifest['wording']}, and the planner's is {style.name}; record "
            f"another with prompt={style.name}, {CURE}"
        )
    if manifest.get("wording_fingerprint") != wording_fingerprint(style):
        raise MTDriveError(
            f"Dataset {root} was recorded in other words than prompt={style.name} has today; record it again, {CURE}"
        )


def check_feedback_steps(card: PlannerCard, feedback_steps: bool, name: str | Path) -> None:
    """Refuse feedback second by second for a planner that was trained without it.

    Args:
        card: of the planner; without a stage it has learned nothing that could not fit.
        feedback_steps: whether its feedback is to name changes second by second.
        name: of the planner.

    Raises:
        MTDriveError: no stage of its training had such feedback.
    """
    if feedback_steps and card.stages and not any(stage.feedback_steps for stage in card.stages):
        raise MTDriveError(
            f"Planner {name} was trained with feedback_steps=false and has never read feedback second by second; leave "
            f"feedback_steps out, {CURE}"
        )


def feedback_steps_for(card: PlannerCard, asked: bool | None, settings: PlannerSettings) -> bool:
    """Whether a planner's feedback is to name changes second by second.

    Args:
        card: of the planner.
        asked: the key `feedback_steps`; None stands for what its last stage had.
        settings: of the planner.

    Raises:
        MTDriveError: see `check_feedback_steps`.
    """
    if asked is None:
        return bool(card.stages) and card.stages[-1].feedback_steps
    if not settings.allow_misfit:
        check_feedback_steps(card, asked, settings.name)
    return asked
