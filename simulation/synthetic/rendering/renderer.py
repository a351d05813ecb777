"""The picture of a RenderScene: backdrop, ground, shadows, then everything upright from far to near."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import box_corners
from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.synthetic.rendering import ground
from mtdrive.simulation.synthetic.rendering.backdrop import GAIN_ONE, SUPERSAMPLING, Backdrop, backdrop
from mtdrive.simulation.synthetic.rendering.mesh import picture_polygons
from mtdrive.simulation.synthetic.rendering.order import painters_order
from mtdrive.simulation.synthetic.rendering.scene import Atmosphere, Box, RenderScene, Scenery, SceneryKind
from mtdrive.simulation.synthetic.rendering.things import footprint, shape, things_in_sight

SHADOW_REACH = 90.0  # [m] shadows farther away are a line
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
    things: list[Box | Scenery] = [*view.scenery, *view.boxes]
    casting = [thing for thing in things if -20 < thing.x < SHADOW_REACH]
    if not casting:
        return light
    feet = np.array([footprint(thing) for thing in casting])
    low, high = np.array([_shading_heights(thing) for thing in casting]).T
    crowns = np.array([isinstance(thing, Scenery) and thing.kind == SceneryKind.TREE for thing in casting])
    feet[crowns, 3:] = 0.5 * high[crowns, None]
    corners = box_corners(feet[:, :3], feet[:, 3:])
    sky = view.atmosphere
    per_height = -_sun(sky)[:2] / max(_sun(sky)[2], 0.15)
    ends = [corners + (height[:, None] * per_height)[:, None] for height in (low, high)]
    polygons = [cv2.convexHull(points)[:, 0] for points in np.concatenate(ends, axis=1).astype(np.float32)]
    darkness = [255 * (1 - 0.45 * (1 - sky.overcast))] * len(polygons)
    for box in view.boxes:
        spread, contact = (1.06, 105) if box.kind == ObjectType.VEHICLE else (0.9, 150)
        foot = np.array(footprint(box))
        polygons.append(box_corners(foot[:3], spread * foot[3:]))
        darkness.append(contact)
    grey = np.repeat(np.array(darkness, dtype=np.float64)[:, None], 3, axis=1)
    _fill(light, *_flat_polygons([ground.on_ground(xy) for xy in polygons], grey, camera), convex=True, smooth=True)
    return light


def _shading_heights(thing: Box | Scenery) -> tuple[float, float]:
    """From which height to which a thing keeps off the sun [m]."""
    crown = isinstance(thing, Scenery) and thing.kind == SceneryKind.TREE
    return 0.35 * thing.height if crown else 0.0, 0.9 * thing.height


def _upright(image: np.ndarray, view: RenderScene, camera: PinholeCamera, land: Backdrop) -> None:
    """Draw everything that stands on the ground."""
    things = things_in_sight(view, camera)
    if not things:
        return
    order = painters_order(np.array([footprint(thing) for thing in things]), camera.position[:2].copy())
    shapes = [shape(things[i]) for i in order]
    vertices, radii = [], []
    for i, (mesh, scale) in zip(order, shapes, strict=True):
        thing = things[i]
        c, s = np.cos(thing.heading), np.sin(thing.heading)
        placing = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) * scale
        vertices.append(mesh.vertices @ placing + [thing.x, thing.y, 0.0])
        radii.append(mesh.radii * scale)
    meshes = [mesh for mesh, _ in shapes]
    sizes = np.concatenate([np.diff(mesh.start) for mesh in meshes])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(mesh, name) for mesh in meshes])

    corners, offsets, colours = picture_polygons(
        np.concatenate(vertices), np.concatenate([[0], np.cumsum(sizes)]), np.concatenate(radii),
        joined("colours"), joined("glowing"), joined("two_sided"), joined("flat"),
        camera.from_ego, camera.intrinsic, camera.planes, camera.width, camera.height, _sun(view.atmosphere),
        0.55 + 0.25 * view.atmosphere.overcast, land.haze_colour, land.haze_length,
    )  # fmt: skip
    _fill(image, corners, offsets, colours, convex=True, smooth=True)


def _sun(sky: Atmosphere) -> np.ndarray:
    """Unit vector (3,) towards the sun."""
    flat = np.cos(sky.sun_elevation)
    return np.array([flat * np.cos(sky.sun_heading), flat * np.sin(sky.sun_heading), np.sin(sky.sun_elevation)])
