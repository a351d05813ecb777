"""Configurations of planners that are small enough for tests."""

from pathlib import Path

from omegaconf import OmegaConf

CONFIGS = Path(__file__).parents[2] / "configs" / "planner"


def tiny_config(**changes):
    small = {"hidden_size": 32, "layers": 2, "mlp_size": 64, "vision_size": 32, "vision_layers": 1}
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / "tiny.yaml"), {"tiny": small})
    return OmegaConf.merge(config, changes)
