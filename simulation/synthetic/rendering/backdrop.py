"""Sky, skyline, grass, texture and haze: all that depends only on the camera, the weather and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.synthetic.rendering.ground import SURFACE_COLOURS
from mtdrive.simulation.synthetic.rendering.scene import Atmosphere, Material

SUPERSAMPLING = 2  # the ground is drawn finer and reduced, which keeps distant markings thin and smooth
GAIN_ONE = 100  # the gain image holds 100 for a pixel that keeps its colour
FAR = 2000.0  # [m]
HAZIEST = 500.0  # [m] from which ground gets no paler, or a bright band would lie along the horizon
VARIETIES = 4  # different textures; more would only cost time
NOISE_CELLS = 512


@dataclass(frozen=True, eq=False)
class Backdrop:
    """Sky and bare ground of an (H, W) picture.

    Texture and haze turn a ground colour c into c * gain / GAIN_ONE + veil.
    """

    image: np.ndarray
    """(H, W, 3) uint8 bare land under the sky."""

    top: int
    """First image row that holds ground."""

    ground: np.ndarray
    """(2 (H - top), 2 W, 3) uint8 grass without haze, at twice the resolution."""

    gain: np.ndarray
    """(H - top, W, 3) uint8 factor of texture and haze."""

    veil: np.ndarray
    """(H - top, W, 3) uint8 haze in front of the ground."""

    haze_colour: np.ndarray
    """(3,) colour of the haze."""

    haze_length: float
    """Distance [m] over which a thing keeps 1 / e of its colour."""


@dataclass(frozen=True, eq=False)
class _Land:
    """What a camera sees of the bare ground and of the sky, in one variety of texture; the sky fills B rows."""

    elevation: np.ndarray
    """(B, W) elevation [rad] of each pixel's ray."""

    ceiling: np.ndarray
    """(B, W, 2) where each ray meets a plane at unit height."""

    top: int
    """First image row that holds ground."""

    distance: np.ndarray
    """(H - top, W) distance of the ground [m], inf above the horizon."""

    grain: np.ndarray
    """(H - top, W) relative brightness of the texture."""

    grass: np.ndarray
    """(2 (H - top), 2 W, 3) uint8, see `Backdrop.ground`."""


def backdrop(camera: PinholeCamera, atmosphere: Atmosphere, seed: int) -> Backdrop:
    """The backdrop of a picture; kept for the next picture with the same arguments."""
    return _backdrop(_key(camera), atmosphere, seed)


def _key(camera: PinholeCamera) -> tuple[bytes, bytes, int, int]:
    return camera.intrinsic.tobytes(), camera.to_ego.tobytes(), camera.width, camera.height


def _camera(key: tuple[bytes, bytes, int, int]) -> PinholeCamera:
    intrinsic, to_ego = np.frombuffer(key[0]).reshape(3, 3), np.frombuffer(key[1]).reshape(4, 4)
    return PinholeCamera(intrinsic, to_ego, np.zeros(5), key[2], key[3])


@lru_cache(maxsize=4)
def _backdrop(key: tuple, atmosphere: Atmosphere, seed: int) -> Backdrop:
    land = _land(key, seed % VARIETIES)
    grey = atmosphere.overcast
    haze_colour = np.array([206.0, 218.0, 232.0]) * (1 - grey) + np.array([196.0, 200.0, 206.0]) * grey
    haze_length = 90.0 + 1100.0 * (1 - atmosphere.haze) ** 2
    camera = _camera(key)
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    image[: len(land.elevation)] = _sky(land, atmosphere, seed, haze_colour)
    _skyline(image, camera, atmosphere, seed, haze_colour)
    distance = np.where(land.distance < FAR, np.minimum(land.distance, HAZIEST), land.distance)
    keep = np.exp(-distance / haze_length)  # 0 above the horizon, where the veil is the sky
    gain = np.clip(np.rint(keep * land.grain * GAIN_ONE), 0, 255).astype(np.uint8)
    veil = np.rint(haze_colour * (1 - keep[..., None])).astype(np.uint8)
    veil = np.where((keep > 0)[..., None], veil, image[land.top :])
    return Backdrop(image, land.top, land.grass, cv2.merge([gain] * 3), veil, haze_colour, haze_length)


@lru_cache(maxsize=2 * VARIETIES)
def _land(key: tuple, variety: int) -> _Land:
    camera = _camera(key)
    rays = _rays(camera)
    distance, xy = _ground_geometry(camera, rays)
    top = int(np.argmax(np.isfinite(distance).any(axis=1))) if np.isfinite(distance).any() else camera.height
    fine = camera.resized(SUPERSAMPLING * camera.width, SUPERSAMPLING * camera.height)
    fine_distance, fine_xy = _ground_geometry(fine, _rays(fine)[SUPERSAMPLING * top :])
    grass = 1 + _texture(variety, fine_xy, fine_distance, ((0.05, 0.04, 10.0), (0.09, 0.35, 60.0), (0.06, 6.0, 300.0)))
    colours = np.clip(np.array(SURFACE_COLOURS[Material.GRASS]) * grass[..., None], 0, 255).astype(np.uint8)
    grain = 1 + _texture(variety, xy[top:], distance[top:], ((0.022, 0.05, 12.0), (0.022, 0.6, 70.0)))
    sky_rows = int(np.count_nonzero(np.isinf(distance).any(axis=1)))
    above = rays[:sky_rows].astype(np.float32)
    elevation = np.arcsin(np.clip(above[..., 2] / np.linalg.norm(above, axis=-1), -1, 1))
    ceiling = above[..., :2] / np.maximum(above[..., 2:], 0.02)
    return _Land(elevation, ceiling, top, distance[top:].astype(np.float32), grain.astype(np.float32), colours)


def _rays(camera: PinholeCamera) -> np.ndarray:
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1).astype(np.float64)
    return pixels @ np.linalg.inv(camera.intrinsic).T @ camera.to_ego[:3, :3].T


def _ground_geometry(camera: PinholeCamera, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (H, W) [m], inf above the horizon, and ego x, y (H, W, 2) of the ground in each pixel."""
    below = rays[..., 2] < -1e-9
    scale = np.where(below, camera.position[2] / np.where(below, -rays[..., 2], 1.0), np.inf)
    xy = camera.position[:2] + rays[..., :2] * np.minimum(scale, FAR)[..., None]
    return scale * np.linalg.norm(rays, axis=-1), xy


def _texture(variety: int, xy: np.ndarray, distance: np.ndarray, layers) -> np.ndarray:
    """Noise (H, W) with mean 0 on the ground; layers: strength, cell size [m], distance [m] over which it fades."""
    noise = _noise(variety)
    return sum(strength * _sample(noise, xy, cell) * np.exp(-distance / fades) for strength, cell, fades in layers)


@lru_cache(maxsize=2 * VARIETIES)
def _noise(seed: int, grains: tuple[int, ...] = (8, 32, 128, 512)) -> np.ndarray:
    """Tileable noise (512, 512) float32 with mean 0 and standard deviation 1; grains: cells per side of each octave."""
    random = np.random.default_rng(seed)
    total = np.zeros((NOISE_CELLS, NOISE_CELLS), np.float32)
    for cells, weight in zip(grains, (1.0, 0.8, 0.7, 0.6), strict=False):
        layer: np.ndarray = np.pad(random.standard_normal((cells, cells)).astype(np.float32), 2, mode="wrap")
        scale = NOISE_CELLS // cells
        layer = cv2.resize(layer, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        layer = layer[2 * scale : -2 * scale, 2 * scale : -2 * scale]
        total += weight * layer / layer.std()
    return (total - total.mean()) / total.std()


def _sample(noise: np.ndarray, xy: np.ndarray, cell: float) -> np.ndarray:
    """Noise at places xy (H, W, 2), one texture cell being `cell` metres."""
    places = np.mod(xy / cell, NOISE_CELLS).astype(np.float32)
    return cv2.remap(noise, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _sky(land: _Land, atmosphere: Atmosphere, seed: int, haze_colour: np.ndarray) -> np.ndarray:
    """Gradient from the haze at the horizon to the zenith, with clouds; (B, W, 3) uint8."""
    grey = np.float32(atmosphere.overcast)
    zenith = np.array([92, 146, 214], np.float32) * (1 - grey) + np.array([158, 164, 172], np.float32) * grey
    height = np.clip(land.elevation / 0.5, 0, 1)[..., None] ** 0.75
    colour = haze_colour.astype(np.float32) * (1 - height) + zenith * height
    clouds = _sample(_noise(seed % VARIETIES, (8, 32, 128)), land.ceiling + np.float32(seed % 97), 0.12)
    cover = np.clip((clouds - 0.4 + 0.8 * grey) * 0.8, 0, 0.8) * np.clip(land.elevation / 0.16, 0, 1)
    colour += cover[..., None] * (np.array([246, 247, 250], np.float32) - 40 * grey - colour)
    return np.clip(colour, 0, 255).astype(np.uint8)


def _skyline(
    image: np.ndarray, camera: PinholeCamera, atmosphere: Atmosphere, seed: int, haze_colour: np.ndarray
) -> None:
    """Two ranges of hills and a line of woods on the horizon, each nearer one less hazy."""
    random = np.random.default_rng(seed)
    columns = np.arange(-4, camera.width + 8, 4)
    bearing = -np.arctan((columns - camera.intrinsic[0, 2]) / camera.intrinsic[0, 0])
    ranges = (
        (0.055, (2.0, 5.0, 11.0), (104, 124, 146), 0.62 + 0.3 * atmosphere.haze),
        (0.034, (3.0, 8.0, 17.0), (96, 118, 108), 0.50 + 0.4 * atmosphere.haze),
        (0.016, (9.0, 37.0, 90.0), (70, 92, 62), 0.34 + 0.4 * atmosphere.haze),
    )
    for height, waves, colour, hidden in ranges:
        profile = sum(np.sin(w * bearing + random.uniform(0, 2 * np.pi)) / (i + 1.5) for i, w in enumerate(waves))
        elevation = height * (0.62 + 0.38 * profile / 1.5)
        far = np.column_stack([np.cos(bearing), np.sin(bearing), np.tan(elevation)]) * FAR + camera.position
        foot = far * [1, 1, 0] - [0, 0, 40.0]
        outline = camera.project_polygon(np.concatenate([far, foot[::-1]]))
        shade = tuple(np.array(colour) * (1 - hidden) + haze_colour * hidden)
        cv2.fillPoly(image, [np.rint(outline * 16).astype(np.int32)], shade, cv2.LINE_AA, 4)
