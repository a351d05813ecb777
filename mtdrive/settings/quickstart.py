"""Settings of the quickstart and its stages."""

from __future__ import annotations

from typing import Any

from pydantic.dataclasses import dataclass

from mtdrive.settings.shared import BaselineName
from mtdrive.settings.types import STRICT, Count, Processes, Seed, Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StageSettings:
    """One stage: a verb, its keys, and what it makes."""

    verb: Text
    makes: Text
    keys: dict[str, Any]
    baseline: BaselineName | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QuickstartSettings:
    """`configs/quickstart.yaml`"""

    out: Text
    seed: Seed
    workers: Processes
    turns: Count
    environment: dict[str, Text]
    stages: dict[str, StageSettings | None]
