"""Planners that are small enough for tests."""

from dataclasses import replace

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mtdrive.planner.models import Planner, load_planner
from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings import planner_settings

SMALL = {"hidden_size": 32, "layers": 2, "mlp_size": 64, "vision_size": 32, "vision_layers": 1}
SMALL_STEP_FLASH = {
    "hidden_size": 32,
    "head_size": 8,
    "mlp_size": 32,
    "experts": 8,
    "expert_size": 16,
    "vision_layers": 1,
}


def tiny_config(*, tiny=(), **changes) -> PlannerSettings:
    """The settings of a tiny planner; tiny: other sizes of it."""
    settings = planner_settings("tiny")
    return replace(settings, tiny=replace(settings.tiny, **SMALL | dict(tiny)), **changes)


def step_flash_config(*, step_flash=(), **changes) -> PlannerSettings:
    """The settings of a small `step_flash_tiny` planner; step_flash: other sizes of it."""
    settings = planner_settings("step_flash_tiny")
    return replace(settings, step_flash=replace(settings.step_flash, **SMALL_STEP_FLASH | dict(step_flash)), **changes)


def windowed_planner(window: int) -> Planner:
    """A small tiny planner with the same weights, whose second layer attends within a window of so many tokens."""
    made = load_planner(tiny_config())
    text = made.model.config.get_text_config().to_dict()
    text |= {"use_sliding_window": True, "sliding_window": window}
    text |= {"layer_types": ["full_attention", "sliding_attention"]}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**{**made.model.config.to_dict(), "text_config": text}))
    model.load_state_dict(made.model.state_dict())
    return replace(made, model=model.eval())
