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
    """One polygon on the ground; later surfaces cover earlier ones."""

    material: Material
    """What it is covered with."""

    xy: np.ndarray
    """(N, 2) corners [m], N >= 3, of a simple polygon of either orientation."""


@dataclass(frozen=True)
class Marking:
    """A painted line on the ground."""

    xy: np.ndarray
    """(N, 2) polyline [m], N >= 2."""

    width: float = 0.15
    """Width of the paint [m]."""

    dash: tuple[float, float] | None = None
    """Painted length and gap [m]; None for a solid line."""

    yellow: bool = False
    """Whether the paint is yellow rather than white."""


@dataclass(frozen=True)
class Crosswalk:
    """Zebra stripes on the ground."""

    xy: np.ndarray
    """(N, 2) corners [m] of a convex polygon, N >= 4."""

    heading: float
    """Direction of the stripes [rad], which is that of the traffic."""


@dataclass(frozen=True)
class Box:
    """One tracked object, standing on the ground.

    A vehicle over 2.1 m high is drawn as a van, over 2.9 m as a lorry.
    """

    kind: ObjectType
    """Its class."""

    x: float
    """x of the centre [m]."""

    y: float
    """y of the centre [m]."""

    heading: float
    """Heading [rad]."""

    length: float
    """Length [m], as in the log's `gt_boxes`."""

    width: float
    """Width [m]."""

    height: float
    """Height [m]."""

    colour: Colour
    """Paint of the body, or clothes of a pedestrian or rider."""

    braking: bool = False
    """Whether the brake lights are on."""

    walking: bool = False
    """Whether the legs are apart."""


@dataclass(frozen=True)
class TrafficLight:
    """A traffic light on a pole."""

    x: float
    """x of the pole's foot [m]."""

    y: float
    """y of the pole's foot [m]."""

    heading: float
    """Direction of travel [rad] of the traffic that it stops."""

    state: LightState
    """The lamp that is lit."""

    arm: float = 0.0
    """Length [m] of an arm from the pole's top to the left of that traffic (negative: to the right), from whose end the
    head hangs; 0 puts the head on the pole."""


@dataclass(frozen=True)
class Scenery:
    """A tree, bush, lamp post or building."""

    kind: SceneryKind
    """What it is."""

    x: float
    """x of the centre [m]."""

    y: float
    """y of the centre [m]."""

    height: float
    """Height [m]."""

    heading: float = 0.0
    """Heading [rad]."""

    length: float = 10.0
    """Length of a building [m]; ignored for all else."""

    width: float = 10.0
    """Width of a building [m]; ignored for all else."""

    colour: Colour = (150, 140, 130)
    """Paint of a building."""


@dataclass(frozen=True)
class Atmosphere:
    """Sky and light."""

    sun_heading: float = 2.2
    """Direction [rad] of the sun, which decides shading and shadows."""

    sun_elevation: float = 0.8
    """Height of the sun above the horizon [rad]."""

    haze: float = 0.3
    """From 0 (clear) to 1 (thick)."""

    overcast: float = 0.2
    """From 0 (blue sky, dark shadows) to 1 (grey, faint shadows)."""


@dataclass(frozen=True)
class RenderScene:
    """One moment as the camera could see it."""

    surfaces: tuple[Surface, ...] = ()
    """Polygons on the ground."""

    markings: tuple[Marking, ...] = ()
    """Painted lines."""

    crosswalks: tuple[Crosswalk, ...] = ()
    """Zebra crossings."""

    kerbs: tuple[np.ndarray, ...] = ()
    """Polylines (N, 2) [m] along the road side of the kerb stones."""

    boxes: tuple[Box, ...] = ()
    """Tracked objects."""

    traffic_lights: tuple[TrafficLight, ...] = ()
    """Traffic lights."""

    scenery: tuple[Scenery, ...] = ()
    """Trees, bushes, lamp posts and buildings."""

    atmosphere: Atmosphere = field(default_factory=Atmosphere)
    """Sky and light."""

    seed: int = 0
    """Varies texture, clouds and the distant skyline; keep it equal over the frames of one drive."""
