"""Which splits may be learned from."""

from __future__ import annotations

from mtdrive.simulation.errors import MTDriveError

EVALUATION = ("test", "navtest", "navhard", "private_test", "warmup")  # beginnings of their names


def check_training_split(split: str) -> None:
    """Refuse an evaluation split by its name.

    Raises:
        MTDriveError: the split is for evaluation.
    """
    if split.startswith(EVALUATION):
        raise MTDriveError(f"split={split} is for evaluation alone; name a training split.")
