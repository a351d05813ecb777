"""Settings of the verbs that train: sft, rl."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings.shared import DrafterName, MetricName, Paths, Scenes
from mtdrive.settings.types import (
    STRICT,
    Count,
    CountOrNone,
    NotNegative,
    Number,
    OneOf,
    Positive,
    Seed,
    Share,
    Text,
)
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import Source

Schedule = Literal["constant", "linear", "cosine"]
Reporter = Literal["tensorboard", "trackio", "wandb"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExpertSettings:
    """How the experts of a planner are balanced."""

    balance_rate: NotNegative
    groups: Count
    group_weight: NotNegative


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SftSettings(Paths):
    """`configs/sft.yaml`"""

    planner: PlannerSettings
    dataset: Text
    val_dataset: Text | None
    out: Text
    max_steps: Count
    batch_size: Count
    gradient_accumulation_steps: Count
    learning_rate: Positive
    lr_schedule: Schedule
    warmup_steps: CountOrNone
    weight_decay: NotNegative
    eval_steps: Count
    eval_samples: Count
    save_steps: Count
    logging_steps: Count
    activation_checkpointing: bool
    experts: ExpertSettings
    report_to: list[Reporter]
    trl: dict[str, Any]
    seed: Seed


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VllmSettings:
    """How rollouts use vLLM."""

    mode: Literal["colocate", "server"]
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RlSettings(Scenes):
    """`configs/rl.yaml`"""

    SPLIT = "train"

    planner: PlannerSettings
    out: Text
    estimator: Annotated[str, OneOf("mtdrive.training.advantages:ESTIMATORS")]
    turns: Count
    feedback: Source
    feedback_steps: bool | None
    metric: MetricName
    max_steps: Count
    max_generated_tokens: Count | None
    scenes_per_step: Count
    group_size: Annotated[int, Field(ge=2, le=10**9)]
    scenes_per_pass: Count | None
    updates_per_step: Count
    learning_rate: Positive
    lr_schedule: Schedule
    warmup_steps: CountOrNone
    max_grad_norm: NotNegative
    temperature: Positive
    policy_loss: Annotated[str, OneOf("mtdrive.training.policy_losses:POLICY_LOSSES")]
    clip: Positive
    kl: NotNegative
    scale_advantages: bool
    outcome_weight: Number
    discount: Share
    anchor_weight: Number
    anchor_width: Positive
    filter_groups: bool
    format_bonus: Number
    shared_prefix: bool
    draft: DrafterName
    train_draft_heads: bool
    engine: Literal["hf", "vllm"]
    vllm: VllmSettings
    activation_checkpointing: bool
    experts: ExpertSettings
    max_scorer_errors: Share
    max_parse_errors: Share
    save_steps: Count
    scoring_workers: Annotated[int, Field(ge=0, le=1024)]
    max_missing_images: Share
    report_to: list[Reporter]
    trl: dict[str, Any]
    seed: Seed

    def __post_init__(self) -> None:
        """Raises MTDriveError where two numbers do not go together, or images are missing."""
        _ = self.data_root  # is needed
        if self.draft != "none" and (self.engine == "vllm" or not self.shared_prefix):
            raise MTDriveError(f"draft={self.draft} needs engine=hf and shared_prefix=true.")
        if self.save_steps % self.updates_per_step:
            raise MTDriveError(
                f"save_steps={self.save_steps} must be a multiple of updates_per_step={self.updates_per_step}, "
                "so that a checkpoint never falls between two updates on the same episodes."
            )
