"""Checkpoints that survive being killed at any moment, and the training log beside them."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mtdrive.simulation.files import atomic_path

LOG_NAME = "log.jsonl"


def latest_checkpoint(directory: str | Path) -> Path | None:
    """The newest complete `checkpoint-N` in `directory`, or None.

    The trainer writes its state last, so a checkpoint whose state does not read was cut off and is passed over.
    """
    found = sorted(
        Path(directory).glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rpartition("-")[2])
    )
    for checkpoint in reversed(found):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            continue
        return checkpoint
    return None


class LogFile(TrainerCallback):
    """Keeps `log.jsonl` equal to the trainer's log history: one JSON object with `step` a line.

    Rewritten whole, so that a resumed run neither loses nor doubles a line.
    """

    def __init__(self, directory: str | Path):
        self.path = Path(directory) / LOG_NAME

    def on_log(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        with atomic_path(self.path) as path:
            path.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history))
