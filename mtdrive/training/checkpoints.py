"""Checkpoints to go on from, also after being killed at any moment, and the training log beside them."""

from __future__ import annotations

import json
from pathlib import Path

from peft import PeftModel
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mtdrive.planner.pretrained import check_loaded, check_saved, fill_adapter, load_model
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


class LoadsRenamedWeights:
    """Mixin for a Trainer whose checkpoints name weights otherwise than the model does, and are whole and finite.

    Qwen2.5-VL is saved under the names of its released weights. `Trainer` reads them back with
    `load_state_dict(strict=False)`, which matches nothing and silently goes on from the initial weights.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        model = self.model if model is None else model
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        if isinstance(model, PeftModel):
            for adapter in model.peft_config:  # TRL keeps what training began with as another one
                of_default = adapter == "default"
                fill_adapter(model, Path(resume_from_checkpoint) / ("" if of_default else adapter), adapter)
        else:
            saved = load_model(type(model), resume_from_checkpoint, model.dtype, config=model.config)
            model.load_state_dict(saved.state_dict())
        check_loaded(model.state_dict(), resume_from_checkpoint)

    def _save(self, output_dir=None, state_dict=None):
        check_saved(self.model.state_dict() if state_dict is None else state_dict, output_dir or self.args.output_dir)
        super()._save(output_dir, state_dict)


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
