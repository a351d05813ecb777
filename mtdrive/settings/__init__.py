"""What each verb can be told: Hydra composes `configs/VERB.yaml` with the overrides, the dataclasses here type it.

Defaults and help stand in the YAML files, types and bounds here, and a test holds the two together. pydantic checks the
values: OmegaConf's own structured configs know types alone, neither bounds nor choices nor alternatives.
"""

from mtdrive.settings.compose import CONFIGS, load_settings, planner_settings

__all__ = ["CONFIGS", "load_settings", "planner_settings"]
