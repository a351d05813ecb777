"""Planners that are small enough for tests."""

from dataclasses import replace

from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings import planner_settings

SMALL = {"hidden_size": 32, "layers": 2, "mlp_size": 64, "vision_size": 32, "vision_layers": 1}


def tiny_config(*, tiny=(), **changes) -> PlannerSettings:
    """The settings of a tiny planner; tiny: other sizes of it."""
    settings = planner_settings("tiny")
    return replace(settings, tiny=replace(settings.tiny, **SMALL | dict(tiny)), **changes)
