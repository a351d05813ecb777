"""From composed values to typed settings, or one sentence that names the key, its value and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mtdrive.settings.types import ALLOWED
from mtdrive.simulation.errors import MTDriveError

Settings = TypeVar("Settings")
Schema = Mapping[str, Any]
LONGEST_VALUE = 200  # characters of a value that a sentence shows


def typed(settings: type[Settings], values: Any) -> Settings:
    """Check values against a class of settings.

    Raises:
        MTDriveError: a value is of the wrong type or out of bounds, or two do not go together.
    """
    kind: Any = settings  # mypy does not take classes for hashable
    adapter: TypeAdapter[Settings] = _adapter(kind)
    try:
        # As JSON, so that a list is a tuple's form and everything else is taken strictly.
        return adapter.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise MTDriveError(_sentence(_schema(kind), values, problem["loc"])) from None


@cache
def _adapter(settings: Any) -> TypeAdapter[Any]:
    return TypeAdapter(settings)


@cache
def _schema(settings: Any) -> Schema:
    return _adapter(settings).json_schema()


def _sentence(schema: Schema, values: Any, place: tuple[int | str, ...]) -> str:
    """What is wrong at a place of pydantic's, which names alternatives of a type as well as keys."""
    definitions, key = schema.get("$defs", {}), []
    for part in place:
        inner = _inside(_resolved(schema, definitions), part, definitions)
        if inner is None or not _has(values, part):
            break
        schema, values = inner, values[part]
        key.append(str(part))
    name = ".".join(key)
    if isinstance(values, Mapping) and (unknown := sorted(set(values) - set(_keys(schema, definitions) or values))):
        known = ", ".join(_keys(schema, definitions))
        return f"There is no key {'.'.join([*key, unknown[0]])}; choose from {known}."
    return f"{name}={shown(values)} must be {_allowed(schema, definitions)}."


def _has(values: Any, part: int | str) -> bool:
    if isinstance(values, Mapping):
        return part in values
    return isinstance(values, list) and isinstance(part, int) and part < len(values)


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def _inside(schema: Schema, part: int | str, definitions: Mapping[str, Schema]) -> Schema | None:
    """The schema of an item, or None if there is no such item."""
    for choice in schema.get("anyOf", ()):
        if (found := _inside(_resolved(choice, definitions), part, definitions)) is not None:
            return found
    if isinstance(part, int):
        items = schema.get("prefixItems")
        return (items[part] if part < len(items) else None) if items else schema.get("items")
    if part in schema.get("properties", {}):
        return schema["properties"][part]
    others = schema.get("additionalProperties")
    return others if isinstance(others, Mapping) else None


def _keys(schema: Schema, definitions: Mapping[str, Schema]) -> list[str]:
    schema = _resolved(schema, definitions)
    return list(schema.get("properties", ())) + [
        key for choice in schema.get("anyOf", ()) for key in _keys(choice, definitions)
    ]


def _allowed(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """What a value may be, in words."""
    schema = _resolved(schema, definitions)
    if ALLOWED in schema:
        return schema[ALLOWED]
    if "anyOf" in schema:
        return ", or ".join(_allowed(choice, definitions) for choice in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        count = f"{len(items)} values" if "prefixItems" in schema else "values"
        return f"a list of {count}, each {_allowed(items[0], definitions)}"
    if kind == "object":
        keys = _keys(schema, definitions)
        return "a group of keys" + (f" ({', '.join(keys)})" if keys else "")
    return {"boolean": "true or false", "null": "null", "string": "a text"}.get(str(kind), "a value")


def _bounds(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None and most < 10**9:
        return f" from {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']}"
    return ""


def shown(value: Any) -> str:
    """A value as one would type it."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + " ..."
