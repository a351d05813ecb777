"""The arguments of TRL's trainers, from the configuration of a verb.

Keys of ours set most of them. `trl: {...}` passes on any other that has an effect: those of transformers'
TrainingArguments, but few of those that TRL adds, which are about data, sampling and losses that mtdrive does itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from mtdrive.simulation.errors import MTDriveError

# Exact resuming, losses as means over tokens and the token budget depend on these.
FIXED: dict[str, Any] = {
    "average_tokens_across_devices": True,
    "ignore_data_skip": False,
    "include_num_input_tokens_seen": "no",
    "label_smoothing_factor": 0.0,
    "load_best_model_at_end": False,
    "logging_strategy": "steps",
    "remove_unused_columns": False,
    "restore_callback_states_from_checkpoint": False,
    "save_only_model": False,
    "save_strategy": "steps",
    "train_sampling_strategy": "sequential",
}
DEFAULTS: dict[str, Any] = {"bf16": False, "save_total_limit": 2}  # which `trl` may change
WITH_EFFECT = {"activation_offloading", "disable_dropout"}  # of the arguments that TRL adds

# Argument -> the key whose value it takes.
_KEYS = {
    "output_dir": "out",
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "warmup_steps": "warmup_steps",
    "save_steps": "save_steps",
    "seed": "seed",
    "activation_checkpointing": "activation_checkpointing",
}
# Argument -> a key that decides it.
_DERIVED = {
    "lr_scheduler_type": "lr_schedule",
    "report_to": "report_to",
    "use_cpu": "planner.device",
    "num_train_epochs": "max_steps",
    "gradient_checkpointing": "activation_checkpointing",
}


@dataclass(frozen=True)
class Sources:
    """Who sets which argument of a verb's trainer; `trl` may set the rest."""

    arguments: type[TrainingArguments]
    """TRL's class."""

    keys: Mapping[str, str]
    """Argument -> the key whose value it takes."""

    derived: Mapping[str, str]
    """Argument -> a key that decides it."""

    fixed: Mapping[str, Any]
    """Argument -> its value, which no key sets."""


SFT = Sources(
    SFTConfig,
    keys={
        **_KEYS,
        "per_device_train_batch_size": "batch_size",
        "gradient_accumulation_steps": "gradient_accumulation_steps",
        "weight_decay": "weight_decay",
        "logging_steps": "logging_steps",
        "eval_steps": "eval_steps",
    },
    derived={**_DERIVED, "per_device_eval_batch_size": "batch_size", "eval_strategy": "val_dataset"},
    fixed=FIXED,
)
RL = Sources(
    GRPOConfig,
    keys={
        **_KEYS,
        "num_generations": "group_size",
        "num_iterations": "updates_per_step",
        "max_grad_norm": "max_grad_norm",
        "temperature": "temperature",
        "beta": "kl",
    },
    derived={
        **_DERIVED,
        "per_device_train_batch_size": "scenes_per_pass",
        "gradient_accumulation_steps": "scenes_per_pass",
        "steps_per_generation": "scenes_per_pass",
    },
    fixed={**FIXED, "eval_strategy": "no", "logging_steps": 1},
)


def check_arguments(config: Any, sources: Sources) -> None:
    """Refuse what a trainer cannot be told, before anything is loaded.

    Args:
        config: as configs/sft.yaml or configs/rl.yaml.
        sources: SFT or RL.

    Raises:
        MTDriveError: a reporter that is not installed, or a name in `trl` that does not exist, has no effect or is set
            already.
    """
    for package in config.report_to:
        try:
            version(package)
        except PackageNotFoundError:
            raise MTDriveError(f"report_to={package} needs a package that is missing: pip install {package}") from None
    for name in config.trl:
        if (reason := _unsupported_reason(name, sources)) is not None:
            raise MTDriveError(f"trl.{name} {reason}.")


def sft_arguments(config: Any, evaluates: bool, on_cpu: bool) -> SFTConfig:
    """TRL's arguments of `mtdrive sft`.

    Args:
        config: as configs/sft.yaml.
        evaluates: whether there is a validation set.
        on_cpu: train on the CPU even where there is a GPU.

    Raises:
        MTDriveError: TRL refuses their combination.
    """
    return _build(
        SFT,
        config,
        per_device_eval_batch_size=4 * config.batch_size,
        eval_strategy="steps" if evaluates else "no",
        use_cpu=on_cpu,
    )


def grpo_arguments(config: Any, passes: int, on_cpu: bool) -> GRPOConfig:
    """TRL's arguments of `mtdrive rl`.

    Args:
        config: as configs/rl.yaml.
        passes: forward and backward passes of this process in a step.
        on_cpu: train on the CPU even where there is a GPU.

    Raises:
        MTDriveError: TRL refuses their combination.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return _build(
        RL,
        config,
        per_device_train_batch_size=config.scenes_per_step // (processes * passes) * config.group_size,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes,
        use_cpu=on_cpu,
    )


def _unsupported_reason(name: object, sources: Sources) -> str | None:
    """Why an argument cannot be passed on, or None."""
    title = sources.arguments.__name__
    if name not in {field.name for field in fields(sources.arguments)}:
        return f"does not exist: allowed are the arguments of trl.{title} that no key of this command sets"
    if name in sources.keys or name in sources.derived:
        return f"cannot be given: the key {({**sources.keys, **sources.derived})[name]} decides it"
    if name in sources.fixed:
        return f"cannot be given: mtdrive depends on its value {sources.fixed[name]!r}"
    if name not in {field.name for field in fields(TrainingArguments)} | WITH_EFFECT:
        return "would have no effect: mtdrive has its own data, answers, rewards and losses, with keys of their own"
    return None


def _build(sources: Sources, config: Any, **derived: Any) -> Any:
    schedule = config.lr_schedule
    if schedule == "constant" and config.warmup_steps:
        schedule = "constant_with_warmup"
    values = {name: getattr(config, key) for name, key in sources.keys.items()}
    values |= {"lr_scheduler_type": schedule, "report_to": list(config.report_to)} | derived
    try:
        return sources.arguments(**values, **sources.fixed, **DEFAULTS | dict(config.trl))
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise MTDriveError(f"TRL refuses the arguments of this run, with trl={dict(config.trl)}: {reason}.") from error
