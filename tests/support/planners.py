"""Planners that are small enough for tests."""

from dataclasses import replace

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
