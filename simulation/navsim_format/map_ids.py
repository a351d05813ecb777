"""Ids in the columns of a map, found and written as nuplan-devkit does (`nuplan_map/utils.py`, `lane_connector.py`).

nuplan-devkit reads a column into pandas, where whole numbers beside a NULL become floats. It looks an id up by
comparing `int(value)` with `int(id)`, and names what a row points to `str(value)`. So ids may be text, but where one
connector has no entry lane, all of them lead to lanes such as "64353.0", which no map has.
"""

from __future__ import annotations

import math

from mtdrive.simulation.navsim_format.geopackage import BadLayer


def id_numbers(layer: str, values: list) -> list[int | None]:
    """The ids that the N values of a column match; None where a value matches none.

    Raises:
        BadLayer: a value is text that is no whole number, or NULL among text, at which nuplan-devkit fails too.
    """
    values = _as_read(layer, values)
    try:
        return [int(value) if isinstance(value, str) or math.isfinite(value) else None for value in values]
    except ValueError:
        raise BadLayer(f"layer {layer} holds an id that is no whole number") from None


def id_texts(layer: str, values: list) -> list[str]:
    """The ids that the N values of a column name as text.

    Raises:
        BadLayer: a value is neither number nor text.
    """
    return [str(value) for value in _as_read(layer, values)]


def _as_read(layer: str, values: list) -> list[int | float | str]:
    """The values as pandas holds them; NULL is "nan" among text and NaN among numbers."""
    kinds = set(map(type, values))
    if not kinds <= {int, float, str, type(None)}:
        raise BadLayer(f"layer {layer} holds an id that is neither number nor text")
    if str in kinds:
        return ["nan" if value is None else str(value) for value in values]
    if kinds <= {int}:
        return values
    return [math.nan if value is None else float(value) for value in values]
