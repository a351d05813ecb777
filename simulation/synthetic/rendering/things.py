"""What stands on the ground: the shape, the footprint and the sight of each thing in a RenderScene."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.synthetic.rendering import people, street, vehicles
from mtdrive.simulation.synthetic.rendering.mesh import Mesh
from mtdrive.simulation.synthetic.rendering.scene import Box, RenderScene, Scenery, SceneryKind, TrafficLight

REACH = 400.0  # [m] things farther away are left out
VARIETIES = 16  # different trees and bushes

Thing = Box | Scenery | TrafficLight


def things_in_sight(view: RenderScene, camera: PinholeCamera) -> list[Thing]:
    """All but the ego, what is out of reach and what is wholly beside or behind the camera's field of view."""
    things: list[Thing] = [box for box in view.boxes if box.kind != ObjectType.EGO]
    things += [*view.traffic_lights, *view.scenery]
    if not things:
        return []
    centres = camera.to_camera(np.array([(thing.x, thing.y, 0.0) for thing in things]))
    radii = np.array([_radius(thing) for thing in things])
    across, depth = centres[:, 0], centres[:, 2]
    left, right = (np.array([-0.5, camera.width - 0.5]) - camera.intrinsic[0, 2]) / camera.intrinsic[0, 0]
    inside = (depth > -radii) & (depth < REACH)
    inside &= (across - left * depth > -radii * np.hypot(1, left)) & (
        right * depth - across > -radii * np.hypot(1, right)
    )
    return [things[i] for i in np.flatnonzero(inside)]


def _radius(thing: Thing) -> float:
    """Of a circle on the ground around the thing's centre that holds everything of it [m]."""
    if isinstance(thing, TrafficLight):
        return abs(thing.arm) + 1.0
    if isinstance(thing, Scenery) and thing.kind != SceneryKind.BUILDING:
        return 0.6 * thing.height
    return 0.5 * float(np.hypot(thing.length, thing.width)) + 0.5


def footprint(thing: Thing) -> tuple[float, float, float, float, float]:
    """x, y, heading, length, width of the thing's foot on the ground."""
    if isinstance(thing, TrafficLight):
        return thing.x, thing.y, thing.heading, 0.2, 0.2
    if isinstance(thing, Scenery) and thing.kind != SceneryKind.BUILDING:
        return thing.x, thing.y, thing.heading, 0.4, 0.4
    return thing.x, thing.y, thing.heading, thing.length, thing.width


def shape(thing: Thing) -> tuple[Mesh, float]:
    """The thing's mesh, standing at the origin, and by what to enlarge it."""
    if isinstance(thing, TrafficLight):
        return street.traffic_light_mesh(thing.state, thing.arm), 1.0
    if isinstance(thing, Scenery):
        return _scenery(thing)
    return _object(thing), 1.0


def _scenery(thing: Scenery) -> tuple[Mesh, float]:
    if thing.kind == SceneryKind.BUILDING:
        return street.building_mesh(thing.length, thing.width, thing.height, thing.colour), 1.0
    variety = round(thing.height * 1000) % VARIETIES
    if thing.kind == SceneryKind.TREE:
        return street.tree_mesh(variety), thing.height
    if thing.kind == SceneryKind.BUSH:
        return street.bush_mesh(variety), thing.height
    return street.lamp_post_mesh(), thing.height


def _object(box: Box) -> Mesh:
    if box.kind == ObjectType.VEHICLE:
        return vehicles.vehicle_mesh(box.length, box.width, box.height, box.colour, box.braking)
    if box.kind == ObjectType.PEDESTRIAN:
        return people.pedestrian_mesh(box.height, box.colour, box.walking)
    if box.kind == ObjectType.BICYCLE:
        return people.cyclist_mesh(box.length, box.height, box.colour)
    if box.kind == ObjectType.TRAFFIC_CONE:
        return street.cone_mesh(box.width, box.height)
    if box.kind == ObjectType.BARRIER:
        return street.barrier_mesh(box.length, box.width, box.height)
    if box.kind == ObjectType.CZONE_SIGN:
        return street.sign_mesh(box.width, box.height)
    return street.bin_mesh(box.length, box.width, box.height, box.colour)
