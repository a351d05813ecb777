"""One look for every picture: colours, widths, type.

Categories take Okabe and Ito's colours (Okabe and Ito 2008, "Color Universal Design"), turns an ordered scale
whose lightness rises (viridis), so that both survive colour blindness and a grey printer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from mtdrive.simulation.scene import MapLayer, ObjectType
from mtdrive.visualization.plan import Plan, Role

BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

VIOLATION = VERMILLION
RED_LIGHT = VERMILLION
EGO = "#222222"
ROUTE = "#d7e8f5"
CENTERLINE = "#7aa6c8"
BACKGROUND = "#ffffff"
LAYERS = {  # bottom to top
    MapLayer.DRIVABLE_AREA: "#f1f1f1",
    MapLayer.CARPARK_AREA: "#e9e6f0",
    MapLayer.ROADBLOCK: "#ececec",
    MapLayer.ROADBLOCK_CONNECTOR: "#ececec",
    MapLayer.INTERSECTION: "#e4e4e4",
    MapLayer.LANE: "#e4e4e4",
    MapLayer.LANE_CONNECTOR: "#e4e4e4",
}
LANE_EDGE = "#c2c2c2"
OBJECTS = {
    ObjectType.VEHICLE: "#7d8c9a",
    ObjectType.PEDESTRIAN: ORANGE,
    ObjectType.BICYCLE: PURPLE,
    ObjectType.TRAFFIC_CONE: YELLOW,
    ObjectType.BARRIER: YELLOW,
    ObjectType.CZONE_SIGN: YELLOW,
    ObjectType.GENERIC_OBJECT: "#b9a58a",
    ObjectType.EGO: EGO,
}
SMALL_KINDS = (ObjectType.PEDESTRIAN, ObjectType.BICYCLE, ObjectType.TRAFFIC_CONE)  # get a dot: their boxes are tiny
CLASS_NAMES = {
    ObjectType.VEHICLE: "vehicle",
    ObjectType.PEDESTRIAN: "pedestrian",
    ObjectType.BICYCLE: "cyclist",
    ObjectType.BARRIER: "road works",
    ObjectType.GENERIC_OBJECT: "object",
}
DASHES = {Role.HUMAN: (1, 1), Role.PDM_CLOSED: (4, 2), Role.TURN: (None, None)}
ROLES = {Role.HUMAN: BLACK, Role.PDM_CLOSED: BLUE}
MUTED, FAINT, TRACK = "#5c6975", "#8a96a1", "#e9ecef"  # small print, what has no colour of its own, empty bars
VIOLATION_TEXT = "#b04a00"  # vermillion, dark enough for small print
TEXT: dict[str, Any] = {"family": "DejaVu Sans", "color": "#222222", "parse_math": False}  # a $ is a $
SMALL, NORMAL, LARGE = 7.5, 9.0, 11.0  # [pt]


def plan_colours(plans: Sequence[Plan]) -> list[str]:
    """One colour per plan: the turns along the ordered scale, references their own."""
    turns = sum(plan.role == Role.TURN for plan in plans)
    places = iter(np.linspace(0.12, 0.88, turns) if turns > 1 else [0.55])
    return [ROLES[plan.role] if plan.role in ROLES else to_hex(colormaps["viridis"](next(places))) for plan in plans]


def palette() -> list[str]:
    """Every colour that drawings use, without repeats; of the turns' scale, what up to three turns take."""
    turns = [to_hex(colormaps["viridis"](place)) for place in (0.12, 0.5, 0.55, 0.88)]
    plain = [EGO, ROUTE, CENTERLINE, BACKGROUND, LANE_EDGE, VIOLATION]
    return list(dict.fromkeys([*plain, *LAYERS.values(), *OBJECTS.values(), *ROLES.values(), *turns]))


def rgb(colour: str) -> tuple[int, int, int]:
    """A colour as 0..255 components, for OpenCV."""
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return red, green, blue
