"""Values in the grammar of Hydra's overrides, so that they reach a verb unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.types import Quote, QuotedString

UNQUOTED = re.compile(r"[A-Za-z_/][\w./-]*")  # text that Hydra's grammar takes as it is,
KEYWORDS = {"true", "false", "null", "nan", "inf"}  # unless it is one of these


def override_value(value: object) -> str:
    """A number, text, boolean, None, list or mapping as the right side of `key=value`."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(override_value(item) for item in value) + "]"
    if isinstance(value, str) and (not UNQUOTED.fullmatch(value) or value.lower() in KEYWORDS):
        return QuotedString(value, Quote.single).with_quotes()
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def to_overrides(keys: Mapping[str, object]) -> tuple[str, ...]:
    """The overrides `key=value` that set the keys."""
    return tuple(f"{key}={override_value(value)}" for key, value in keys.items())
