"""Writing the page: a template, its script and style, and every scene's data in one file.

A scene's data stands in a script element of its own, which the browser keeps as text until the scene is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mtdrive.simulation import vehicle
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.scene import NUM_STEPS, STEP, ObjectType
from mtdrive.visualization import bev, style
from mtdrive.visualization.turns import FAULT
from mtdrive.visualization.viewer.scenes import ViewerScene

FOLDER = Path(__file__).parent
SCRIPTS = ("draw.js", "list.js", "details.js", "keys.js")


def write_viewer(path: Path, title: str, scenes: Iterable[ViewerScene], change: str = "First to last turn") -> None:
    """Write the page, atomically; scenes are taken one by one.

    change: what a score that gained or lost is compared with, to head that filter.
    """
    environment = Environment(
        loader=FileSystemLoader([FOLDER, FOLDER.parent]), autoescape=True, undefined=StrictUndefined
    )
    rows: list[dict[str, Any]] = []

    def contents() -> Iterator[Markup]:
        for scene in scenes:
            rows.append(scene.row)
            yield embedded(scene.content)

    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for part in environment.get_template("viewer.html").generate(
            title=title,
            change=change,
            style=Markup((FOLDER.parent / "page.css").read_text() + (FOLDER / "viewer.css").read_text()),
            script=Markup("\n".join((FOLDER / name).read_text() for name in SCRIPTS)),
            contents=contents(),
            rows=lambda: embedded(rows),  # known when all contents have been written
            look=embedded(look()),
        ):
            file.write(part)


def embedded(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def look() -> dict[str, Any]:
    """What the script must know of the pictures' look and of the car, so that it is said once."""
    return {
        "objects": [style.OBJECTS[kind] for kind in ObjectType],
        "names": [style.CLASS_NAMES.get(kind, "") for kind in ObjectType],
        "small": [kind in style.SMALL_KINDS for kind in ObjectType],
        "agent": [kind.is_agent for kind in ObjectType],
        "ego": style.EGO,
        "violation": style.VIOLATION,
        "laneEdge": style.LANE_EDGE,
        "centerline": style.CENTERLINE,
        "fault": FAULT,
        "step": STEP,
        "steps": NUM_STEPS,
        "view": {"behind": bev.BEHIND, "leastAhead": bev.LEAST_AHEAD, "margin": bev.MARGIN},
        "car": {"length": vehicle.LENGTH, "width": vehicle.WIDTH, "axleToCentre": vehicle.REAR_AXLE_TO_CENTER},
    }
