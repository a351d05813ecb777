"""The types of settings: bounded numbers, names from a registry, texts that are taken as typed."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetCoreSchemaHandler

ALLOWED = "allowed"  # in a JSON schema: what a value may be, in words
STRICT = ConfigDict(extra="forbid", strict=True, defer_build=True)

Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$", json_schema_extra={ALLOWED: "a name of letters, digits, _ and -"})
]
Processes = Annotated[int, Field(ge=1, le=1024)]
Workers = Processes | Literal["ray"]


@dataclass(frozen=True)
class OneOf:
    """Marks a text as a name in a registry. It is imported when a verb needs it: some take a second or need torch."""

    registry: str
    """Where it stands, as module:variable. It iterates over names."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler.generate_schema(Literal[tuple(pkgutil.resolve_name(self.registry))])


@dataclass(frozen=True)
class AsTyped:
    """Marks texts that Hydra must not read as numbers: a scene token can be all digits, or look like 1e10."""


Token = Annotated[str, Field(min_length=1), AsTyped()]
Folder = Annotated[str, Field(min_length=1), AsTyped()]
