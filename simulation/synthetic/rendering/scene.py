"""What the renderer is told to draw.

Frame: the ego rear-axle frame at the moment of the picture, x forward, y left, z up [m, rad]; the ground
is the plane z = 0. Colours are (red, green, blue), 0..255. Everything may lie anywhere, also behind the
camera or far away: the renderer clips, culls and sorts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from mtdrive.simulation.scene import ObjectType

Colour = tuple[int, int, int]


class Material(IntEnum):
    """Ground surfaces. What no polygon covers is grass."""

    GRASS = 0
    PAVEMENT = 1
    PARKING = 2
    ROAD = 3
    GRAVEL = 4


class LightState(IntEnum):
    """Lit lamp of a traffic light."""

    RED = 0
    YELLOW = 1
    GREEN = 2
    OFF = 3


class SceneryKind(IntEnum):
    """Things beside the road that are no tracked objects."""

    TREE = 0
    BUILDING = 1
    BUSH = 2
    LAMP_POST = 3


@dataclass(frozen=True)
class Surface:
    """One ground polygon; xy: (N, 2), N >= 3, simple, any orientation. Later surfaces cover earlier ones."""

    material: Material
    xy: np.ndarray


@dataclass(frozen=True)
class Marking:
    """A painted line on the ground along xy: (N, 2), N >= 2.

    dash: (painted, gap) lengths [m], or None for a solid line.
    """

    xy: np.ndarray
    width: float = 0.15
    dash: tuple[float, float] | None = None
    yellow: bool = False


@dataclass(frozen=True)
class Crosswalk:
    """Zebra stripes over the quadrilateral or longer polygon xy: (N, 2).

    heading: direction of the stripes, which is that of the traffic.
    """

    xy: np.ndarray
    heading: float


@dataclass(frozen=True)
class Box:
    """One tracked object as a box standing on the ground; x, y: its centre.

    colour: body paint (clothes of a pedestrian or rider). braking: brake lights on. walking: legs apart.
    length, width, height: as in the log's `gt_boxes`. A vehicle taller than 2.1 m is drawn as a van, over
    2.9 m as a lorry.
    """

    kind: ObjectType
    x: float
    y: float
    heading: float
    length: float
    width: float
    height: float
    colour: Colour
    braking: bool = False
    walking: bool = False


@dataclass(frozen=True)
class TrafficLight:
    """A light on a pole at x, y (the pole's foot); heading: direction of travel of the traffic that it stops.

    arm: length [m] of an arm from the pole's top to the left of that traffic (negative: to the right), with
    the head hanging from its end; 0 hangs the head on the pole.
    """

    x: float
    y: float
    heading: float
    state: LightState
    arm: float = 0.0


@dataclass(frozen=True)
class Scenery:
    """A tree, bush, lamp post or building centred at x, y. length, width are ignored for all but buildings."""

    kind: SceneryKind
    x: float
    y: float
    height: float
    heading: float = 0.0
    length: float = 10.0
    width: float = 10.0
    colour: Colour = (150, 140, 130)


@dataclass(frozen=True)
class Atmosphere:
    """Sky and light. sun_heading, sun_elevation [rad]: where the sun stands (it decides shading and shadows).

    haze: 0 (clear) to 1 (thick). overcast: 0 (blue sky, dark shadows) to 1 (grey, faint shadows).
    """

    sun_heading: float = 2.2
    sun_elevation: float = 0.8
    haze: float = 0.3
    overcast: float = 0.2


@dataclass(frozen=True)
class RenderScene:
    """One moment as the camera could see it. kerbs: polylines (N, 2) along the kerb stones' road side.

    seed: varies texture, clouds and the distant skyline; keep it equal over the frames of one drive.
    """

    surfaces: tuple[Surface, ...] = ()
    markings: tuple[Marking, ...] = ()
    crosswalks: tuple[Crosswalk, ...] = ()
    kerbs: tuple[np.ndarray, ...] = ()
    boxes: tuple[Box, ...] = ()
    traffic_lights: tuple[TrafficLight, ...] = ()
    scenery: tuple[Scenery, ...] = ()
    atmosphere: Atmosphere = field(default_factory=Atmosphere)
    seed: int = 0
