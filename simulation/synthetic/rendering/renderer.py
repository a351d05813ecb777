"""The picture of a RenderScene: backdrop, ground, shadows, then everything upright from far to near."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.synthetic.rendering import ground, people, street, vehicles
from mtdrive.simulation.synthetic.rendering.backdrop import GAIN_ONE, SUPERSAMPLING, Backdrop, backdrop
from mtdrive.simulation.synthetic.rendering.mesh import Mesh, picture_polygons
from mtdrive.simulation.synthetic.rendering.order import painters_order
from mtdrive.simulation.synthetic.rendering.scene import (
    Atmosphere,
    Box,
    RenderScene,
    Scenery,
    SceneryKind,
    TrafficLight,
)

REACH = 400.0  # [m] upright things farther away are left out
_SHIFT = 4  # fractional bits of OpenCV's polygon corners


def render_front_camera(view: RenderScene, camera: PinholeCamera) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB that a camera takes of a scene.

    Raises:
        MTDriveError: the camera has lens distortion, which this renderer does not draw.
    """
    if camera.distortion.any():
        raise MTDriveError("The renderer draws pictures without lens distortion: set the camera's distortion to zeros.")
    land = backdrop(camera, view.atmosphere, view.seed)
    image = land.image.copy()
    if land.top < camera.height:
        image[land.top :] = _ground(view, camera, land)
    _upright(image, view, camera, land)
    return image


def _ground(view: RenderScene, camera: PinholeCamera, land: Backdrop) -> np.ndarray:
    """The part of the picture from row `land.top` on, without what stands on the ground."""
    fine = _below(camera.resized(SUPERSAMPLING * camera.width, SUPERSAMPLING * camera.height), SUPERSAMPLING * land.top)
    canvas = land.ground.copy()
    eye = camera.position[:2]
    polygons: list[np.ndarray] = []
    colours: list = []

    def add(shapes: Iterable[np.ndarray], colour, height: float = 0.0) -> None:
        for xy in shapes:
            polygons.append(ground.on_ground(xy, height))
            colours.append(colour)

    for surface in view.surfaces:
        add([surface.xy], ground.SURFACE_COLOURS[surface.material])
    for crosswalk in view.crosswalks:
        add(ground.crosswalk_polygons(crosswalk), ground.WHITE_PAINT)
    for marking in view.markings:
        paint = ground.YELLOW_PAINT if marking.yellow else ground.WHITE_PAINT
        add(ground.marking_polygons(marking, eye), paint)
    for kerb in view.kerbs:
        stone = ground.ribbon(np.ascontiguousarray(kerb, dtype=np.float64), ground.KERB_WIDTH / 2)
        for edge in (stone[: len(kerb)], stone[len(kerb) :]):
            polygons.append(np.concatenate([ground.on_ground(edge), ground.on_ground(edge, ground.KERB_HEIGHT)[::-1]]))
            colours.append(ground.KERB_FACE)
        add([stone], ground.KERB_TOP, ground.KERB_HEIGHT)
    if polygons:
        corners, offsets, rgb = _flat_polygons(polygons, np.array(colours, dtype=np.float64), fine)
        _fill(canvas, corners, offsets, rgb, convex=False, smooth=False)
    canvas = cv2.resize(canvas, (camera.width, camera.height - land.top), interpolation=cv2.INTER_AREA)
    canvas = cv2.multiply(canvas, _shadows(view, _below(camera, land.top)), scale=1 / 255)
    return cv2.add(cv2.multiply(canvas, land.gain, scale=1 / GAIN_ONE), land.veil)


def _below(camera: PinholeCamera, top: int) -> PinholeCamera:
    """The camera of the picture without its first rows."""
    intrinsic = camera.intrinsic.copy()
    intrinsic[1, 2] -= top
    return replace(camera, intrinsic=intrinsic, height=camera.height - top)


def _flat_polygons(polygons: list[np.ndarray], colours: np.ndarray, camera: PinholeCamera):
    """Polygons (N, 3) to the picture in their own colours; see picture_polygons."""
    count = len(polygons)
    start = np.concatenate([[0], np.cumsum([len(polygon) for polygon in polygons])]).astype(np.int64)
    yes, no = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
    return picture_polygons(np.concatenate(polygons), start, np.full((count, 2), np.nan), colours, yes, yes, no,
                            camera.from_ego, camera.intrinsic, camera.planes, camera.width, camera.height,
                            np.array([0.0, 0.0, 1.0]), 1.0,
                            np.zeros(3), 1.0)  # fmt: skip


def _fill(image: np.ndarray, corners, offsets, colours, *, convex: bool, smooth: bool) -> None:
    """Draw polygons in order."""
    points = np.rint(corners * (1 << _SHIFT)).astype(np.int32)
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    for start, end, colour in zip(offsets[:-1].tolist(), offsets[1:].tolist(), colours.tolist(), strict=True):
        if convex:
            cv2.fillConvexPoly(image, points[start:end], colour, line, _SHIFT)
        else:
            cv2.fillPoly(image, [points[start:end]], colour, line, _SHIFT)


def _shadows(view: RenderScene, camera: PinholeCamera) -> np.ndarray:
    """How much light (0..255) reaches each pixel of the ground: cast shadows, and darkness under things."""
    light = np.full((camera.height, camera.width, 3), 255, np.uint8)
    sky = view.atmosphere
    cast = 255 * (1 - 0.45 * (1 - sky.overcast))
    per_height = -np.array([np.cos(sky.sun_heading), np.sin(sky.sun_heading)]) / np.tan(max(sky.sun_elevation, 0.15))
    polygons, darkness = [], []
    for thing in (*view.scenery, *view.boxes):
        low, high, outline = 0.0, 0.9 * thing.height, _footprint(thing)
        if isinstance(thing, Scenery) and thing.kind == SceneryKind.TREE:
            low, outline = 0.35 * thing.height, np.array([thing.x, thing.y, 0, *[0.5 * thing.height] * 2])
        foot = _footprint_corners(outline, 1.0)
        hull = cv2.convexHull(np.concatenate([foot + low * per_height, foot + high * per_height]).astype(np.float32))
        polygons.append(ground.on_ground(hull[:, 0].astype(np.float64)))
        darkness.append(cast)
    for box in view.boxes:
        spread, contact = (1.06, 105) if box.kind == ObjectType.VEHICLE else (0.9, 150)
        polygons.append(ground.on_ground(_footprint_corners(_footprint(box), spread)))
        darkness.append(contact)
    if polygons:
        grey = np.repeat(np.array(darkness, dtype=np.float64)[:, None], 3, axis=1)
        _fill(light, *_flat_polygons(polygons, grey, camera), convex=True, smooth=True)
    return light


def _footprint(thing: Box | Scenery | TrafficLight) -> np.ndarray:
    """x, y, heading, length, width on the ground."""
    if isinstance(thing, TrafficLight):
        return np.array([thing.x, thing.y, thing.heading, 0.2, 0.2])
    if isinstance(thing, Scenery) and thing.kind != SceneryKind.BUILDING:
        return np.array([thing.x, thing.y, thing.heading, 0.4, 0.4])
    return np.array([thing.x, thing.y, thing.heading, thing.length, thing.width])


def _footprint_corners(footprint: np.ndarray, spread: float) -> np.ndarray:
    """Corners (4, 2) of a footprint enlarged about its centre."""
    x, y, heading, length, width = footprint
    forward = np.array([np.cos(heading), np.sin(heading)]) * (0.5 * spread * length)
    left = np.array([-np.sin(heading), np.cos(heading)]) * (0.5 * spread * width)
    return np.array([x, y]) + np.array([forward + left, left - forward, -forward - left, forward - left])


def _mesh(thing: Box | Scenery | TrafficLight) -> Mesh:
    """The shape of a thing, standing at the origin."""
    if isinstance(thing, TrafficLight):
        return street.traffic_light_mesh(thing.state, thing.arm)
    if isinstance(thing, Scenery):
        variety = round(thing.height * 1000) % 97
        if thing.kind == SceneryKind.TREE:
            return street.tree_mesh(thing.height, variety)
        if thing.kind == SceneryKind.BUSH:
            return street.bush_mesh(thing.height, variety)
        if thing.kind == SceneryKind.LAMP_POST:
            return street.lamp_post_mesh(thing.height)
        return street.building_mesh(thing.length, thing.width, thing.height, thing.colour)
    if thing.kind == ObjectType.VEHICLE:
        return vehicles.vehicle_mesh(thing.length, thing.width, thing.height, thing.colour, thing.braking)
    if thing.kind == ObjectType.PEDESTRIAN:
        return people.pedestrian_mesh(thing.height, thing.colour, thing.walking)
    if thing.kind == ObjectType.BICYCLE:
        return people.cyclist_mesh(thing.length, thing.height, thing.colour)
    if thing.kind == ObjectType.TRAFFIC_CONE:
        return street.cone_mesh(thing.width, thing.height)
    if thing.kind == ObjectType.BARRIER:
        return street.barrier_mesh(thing.length, thing.width, thing.height)
    if thing.kind == ObjectType.CZONE_SIGN:
        return street.sign_mesh(thing.width, thing.height)
    return street.bin_mesh(thing.length, thing.width, thing.height, thing.colour)


def _visible(thing: Box | Scenery | TrafficLight, camera: PinholeCamera) -> bool:
    """Whether a thing may be seen: not the ego, within reach, not wholly behind the camera."""
    if isinstance(thing, Box) and thing.kind == ObjectType.EGO:
        return False
    depth = camera.to_camera(np.array([thing.x, thing.y, 0.0]))[2]
    radius = 10.0 if isinstance(thing, TrafficLight) else 0.5 * np.hypot(thing.length, thing.width) + 3.0
    return -radius < depth < REACH


def _upright(image: np.ndarray, view: RenderScene, camera: PinholeCamera, land: Backdrop) -> None:
    """Draw everything that stands on the ground."""
    things = [thing for thing in (*view.scenery, *view.traffic_lights, *view.boxes) if _visible(thing, camera)]
    if not things:
        return
    order = painters_order(np.array([_footprint(thing) for thing in things]), camera.position[:2].copy())
    meshes, vertices, start = [], [], [np.zeros(1, dtype=np.int64)]
    base = 0
    for i in order:
        thing, mesh = things[i], _mesh(things[i])
        c, s = np.cos(thing.heading), np.sin(thing.heading)
        vertices.append(mesh.vertices @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [thing.x, thing.y, 0.0])
        start.append(mesh.start[1:] + base)
        base += len(mesh.vertices)
        meshes.append(mesh)
    corners, offsets, colours = picture_polygons(
        np.concatenate(vertices), np.concatenate(start),
        *(np.concatenate([getattr(mesh, name) for mesh in meshes])
          for name in ("radii", "colours", "glowing", "two_sided", "flat")),
        camera.from_ego, camera.intrinsic, camera.planes, camera.width, camera.height, _sun(view.atmosphere),
        0.55 + 0.25 * view.atmosphere.overcast, land.haze_colour, land.haze_length,
    )  # fmt: skip
    _fill(image, corners, offsets, colours, convex=True, smooth=True)


def _sun(sky: Atmosphere) -> np.ndarray:
    """Unit vector (3,) towards the sun."""
    flat = np.cos(sky.sun_elevation)
    return np.array([flat * np.cos(sky.sun_heading), flat * np.sin(sky.sun_heading), np.sin(sky.sun_elevation)])
