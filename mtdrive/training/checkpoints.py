"""Checkpoints to resume from, also after being killed at any moment, and the training log beside them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from accelerate import Accelerator, DistributedType
from peft import PeftModel
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mtdrive.planner.card import PlannerCard, saving
from mtdrive.planner.pretrained import check_loaded, fill_adapter, load_model
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path

LOG_NAME = "log.jsonl"
FILES_NAME = "files.json"  # in a checkpoint, written last: the names of its files and their sizes


def latest_checkpoint(directory: str | Path) -> Path | None:
    """The newest complete `checkpoint-N` in `directory`, or None."""
    return next((checkpoint for checkpoint in checkpoints(directory) if damage(checkpoint) is None), None)


def checkpoints(directory: str | Path) -> list[Path]:
    """The folders `checkpoint-N` in `directory`, newest first. Others, like `checkpoint-old`, are left alone."""
    found = [path for path in Path(directory).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    numbered = [path for path in found if re.fullmatch(f"{PREFIX_CHECKPOINT_DIR}-[0-9]+", path.name)]
    return sorted(numbered, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps after which a `checkpoint-N` was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None: every file must be there, with the size it was written with."""
    try:
        sizes = dict(json.loads((checkpoint / FILES_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return "it was cut off while it was written"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def train_from_latest(trainer: Trainer) -> None:
    """Train from the newest complete checkpoint in the trainer's folder, or from the beginning.

    Incomplete checkpoints are skipped, each with a sentence on stderr.

    Raises:
        MTDriveError: the checkpoint is from beyond `max_steps`.
    """
    assert trainer.args.output_dir is not None
    out = Path(trainer.args.output_dir)
    newest = latest_checkpoint(out)
    start = f"going on from {newest.name}" if newest else "starting from the beginning"
    for checkpoint in checkpoints(out):
        if checkpoint == newest:
            break
        if trainer.is_world_process_zero():
            print(f"{checkpoint} is not complete ({damage(checkpoint)}); {start}.", file=sys.stderr)
            (checkpoint / FILES_NAME).unlink(missing_ok=True)  # it will be written over, maybe not to its end
    if newest is not None and step_of(newest) > trainer.args.max_steps:
        raise MTDriveError(
            f"{newest} has gone further than max_steps={trainer.args.max_steps}; raise it, or choose another out=."
        )
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))


class Resumable(Trainer):
    """A Trainer that resumes exactly, from checkpoints of which each says whether it is complete.

    `Trainer` itself takes one step more when it resumes from its last checkpoint, logs the mean loss of the steps since
    it resumed as that of the run, and deletes old checkpoints, and what else is called `checkpoint-*`, before the new
    one is complete. Its `load_state_dict(strict=False)` silently resumes from the initial weights of a Qwen2.5-VL,
    which is saved under the names of its released weights.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        kept, self.args.save_total_limit = self.args.save_total_limit, None
        self.add_callback(CompleteCheckpoints(self.accelerator, kept))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Load weights that are whole and finite, whatever names they are saved under."""
        model = self.model if model is None else model
        if self.accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP):
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

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """As `Trainer`'s, but nothing when the run is at its end: `Trainer` would check that only after a step."""
        self.control.should_training_stop |= self.state.global_step >= self.state.max_steps
        if self.control.should_training_stop:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def save_planner(self, card: PlannerCard) -> None:
        """Save the model, its processor and, last, its card in the run's folder, so that `load_planner` reads them."""
        assert self.args.output_dir is not None
        with saving(self.args.output_dir, card) if self.is_world_process_zero() else nullcontext():
            self._save_model()

    def _save_model(self) -> None:
        if self.accelerator.distributed_type == DistributedType.FSDP:  # whose checkpoints may be shards
            self.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        self.save_model()
        if self.is_world_process_zero():  # a LoRA adapter comes without its model's, which the processor needs
            self.accelerator.unwrap_model(self.model).config.save_pretrained(self.args.output_dir)

    def log(self, logs, start_time=None):
        """As `Trainer`'s, with the mean loss of the whole run as `train_loss`."""
        lines = [entry for entry in self.state.log_history if "loss" in entry]
        if "train_loss" in logs and lines:
            weights = [entry.get("tokens", 1) for entry in lines]
            logs["train_loss"] = sum(w * e["loss"] for w, e in zip(weights, lines, strict=True)) / sum(weights)
        super().log(logs, start_time)


class CompleteCheckpoints(TrainerCallback):
    """Lists the files of every checkpoint once all processes have written theirs; then removes old checkpoints.

    accelerator: of the trainer. kept: how many complete checkpoints stay; None keeps all.
    """

    def __init__(self, accelerator: Accelerator, kept: int | None):
        self._accelerator, self._kept = accelerator, kept

    def on_save(self, args, state, control, **kwargs):
        """Called on every process, after it has written its part of a checkpoint."""
        self._accelerator.wait_for_everyone()
        if args.should_save:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            _list_files(folder)
            _remove_old(folder.parent, self._kept)


def _list_files(checkpoint: Path) -> None:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    with atomic_path(checkpoint / FILES_NAME) as path:
        path.write_text(
            json.dumps({str(file.relative_to(checkpoint)): file.stat().st_size for file in files}, indent=2)
        )


def _remove_old(directory: Path, kept: int | None) -> None:
    """Remove the checkpoints before the `kept` newest complete ones; None keeps all."""
    complete = [checkpoint for checkpoint in checkpoints(directory) if damage(checkpoint) is None]
    if kept and len(complete) > kept:
        for checkpoint in checkpoints(directory):
            if step_of(checkpoint) < step_of(complete[kept - 1]):
                shutil.rmtree(checkpoint)


class LogFile(TrainerCallback):
    """Writes the trainer's log history to `log.jsonl` in `directory`: one JSON object with `step` a line.

    The file is rewritten whole, so that a resumed run neither loses nor repeats a line. A line is also logged at every
    checkpoint and at the last step, so that no line averages over steps before and after a checkpoint.
    """

    def __init__(self, directory: str | Path):
        self.path = Path(directory) / LOG_NAME

    def on_step_end(self, args, state, control, **kwargs):
        """Have a line logged before a checkpoint and at the end."""
        control.should_log |= control.should_save or control.should_training_stop

    def on_log(self, args, state, control, **kwargs):
        """Write the file."""
        if not state.is_world_process_zero:
            return
        with atomic_path(self.path) as path:
            path.write_text("".join(json.dumps(entry, sort_keys=True) + "\n" for entry in state.log_history))
