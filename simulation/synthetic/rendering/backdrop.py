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


@dataclass(frozen=True, eq=False)
class Backdrop:
    """image: (H, W, 3) uint8 empty land under the sky. top: first image row that holds ground.

    ground: (2 (H - top), 2 W, 3) uint8, the grass without haze. gain, veil: (H - top, W, 3) uint8: texture and haze
    turn a drawn ground colour c into c * gain / GAIN_ONE + veil. haze_colour: (3,); haze_length [m].
    """

    image: np.ndarray
    top: int
    ground: np.ndarray
    gain: np.ndarray
    veil: np.ndarray
    haze_colour: np.ndarray
    haze_length: float


@lru_cache(maxsize=4)
def _noise(seed: int, grains: tuple[int, ...] = (8, 32, 128, 512)) -> np.ndarray:
    """Tileable noise (512, 512) float32 with mean 0 and standard deviation 1; grains: cells per side of each octave."""
    random = np.random.default_rng(seed)
    size = 512
    total = np.zeros((size, size), np.float32)
    for cells, weight in zip(grains, (1.0, 0.8, 0.7, 0.6), strict=False):
        layer = random.standard_normal((cells, cells)).astype(np.float32)
        layer = np.pad(layer, 2, mode="wrap")
        scale = size // cells
        layer = cv2.resize(layer, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        layer = layer[2 * scale : -2 * scale, 2 * scale : -2 * scale]
        total += weight * layer / layer.std()
    return (total - total.mean()) / total.std()


def _sample(noise: np.ndarray, xy: np.ndarray, cell: float) -> np.ndarray:
    """Noise at ground places xy (H, W, 2), one texture cell being `cell` metres."""
    size = noise.shape[0]
    places = np.mod(xy / cell, size - 1).astype(np.float32)
    return cv2.remap(noise, places[..., 0], places[..., 1], cv2.INTER_LINEAR)


def _rays(camera: PinholeCamera) -> np.ndarray:
    """Viewing directions (H, W, 3) in the ego frame, of length >= 1."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1).astype(np.float64)
    return pixels @ np.linalg.inv(camera.intrinsic).T @ camera.to_ego[:3, :3].T


def backdrop(camera: PinholeCamera, atmosphere: Atmosphere, seed: int) -> Backdrop:
    """The backdrop of a picture; kept for the next picture with the same arguments."""
    key = (camera.intrinsic.tobytes(), camera.to_ego.tobytes(), camera.width, camera.height)
    return _cached(key, atmosphere, seed)


@lru_cache(maxsize=4)
def _cached(key: tuple, atmosphere: Atmosphere, seed: int) -> Backdrop:
    intrinsic, to_ego = (np.frombuffer(raw).reshape(n, n) for raw, n in zip(key[:2], (3, 4), strict=True))
    camera = PinholeCamera(intrinsic, to_ego, np.zeros(5), key[2], key[3])
    grey = np.array([196.0, 200.0, 206.0])
    haze_colour = np.array([206.0, 218.0, 232.0]) * (1 - atmosphere.overcast) + grey * atmosphere.overcast
    haze_length = 90.0 + 1100.0 * (1 - atmosphere.haze) ** 2
    rays = _rays(camera)
    image = _sky(rays, atmosphere, seed, haze_colour)
    _skyline(image, camera, atmosphere, seed, haze_colour)
    distance, xy = _ground_geometry(camera, rays)
    top = int(np.argmax(np.isfinite(distance).any(axis=1)))
    rows = slice(top, camera.height)
    distance, xy = distance[rows], xy[rows]
    seen = np.isfinite(distance)
    near = np.where(seen, distance, FAR)
    keep = np.where(seen, np.exp(-near / haze_length), 0.0)
    noise = _noise(seed % 4)
    grain = _sample(noise, xy, 0.05) * np.exp(-near / 12.0) + _sample(noise, xy, 0.6) * np.exp(-near / 70.0)
    gain = keep * (1 + 0.022 * grain)
    veil = np.where(seen[..., None], haze_colour * (1 - keep[..., None]), image[rows])
    ground = _grass(camera, noise, top)
    gain_image = cv2.merge([np.clip(np.rint(gain * GAIN_ONE), 0, 255).astype(np.uint8)] * 3)
    return Backdrop(image, top, ground, gain_image, np.rint(veil).astype(np.uint8), haze_colour, haze_length)


def _ground_geometry(camera: PinholeCamera, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (H, W) [m], inf above the horizon, and ego x, y (H, W, 2) of the ground in each pixel."""
    down = np.where(rays[..., 2] < -1e-9, -rays[..., 2], np.nan)
    scale = np.nan_to_num(camera.position[2] / down, nan=FAR)
    xy = camera.position[:2] + rays[..., :2] * np.minimum(scale, FAR)[..., None]
    distance = np.where(np.isfinite(down), scale * np.linalg.norm(rays, axis=-1), np.inf)
    return distance, xy


def _grass(camera: PinholeCamera, noise: np.ndarray, top: int) -> np.ndarray:
    """Untouched land at the finer scale, mottled."""
    fine = camera.resized(SUPERSAMPLING * camera.width, SUPERSAMPLING * camera.height)
    distance, xy = _ground_geometry(fine, _rays(fine)[SUPERSAMPLING * top :])
    near = np.where(np.isfinite(distance), distance, FAR)
    mottle = sum(
        strength * _sample(noise, xy, cell) * np.exp(-near / reach)
        for strength, cell, reach in ((0.05, 0.04, 10.0), (0.09, 0.35, 60.0), (0.06, 6.0, 300.0))
    )
    return np.clip(np.array(SURFACE_COLOURS[Material.GRASS]) * (1 + mottle[..., None]), 0, 255).astype(np.uint8)


def _sky(rays: np.ndarray, atmosphere: Atmosphere, seed: int, haze_colour: np.ndarray) -> np.ndarray:
    """Gradient from the haze at the horizon to the zenith, with clouds."""
    elevation = np.arcsin(np.clip(rays[..., 2] / np.linalg.norm(rays, axis=-1), -1, 1))
    grey = atmosphere.overcast
    zenith = np.array([92.0, 146.0, 214.0]) * (1 - grey) + np.array([158.0, 164.0, 172.0]) * grey
    height = np.clip(elevation / 0.5, 0, 1)[..., None] ** 0.75
    colour = haze_colour * (1 - height) + zenith * height
    up = np.maximum(rays[..., 2], 0.02)
    clouds = _sample(_noise(seed % 4, (8, 32, 128)), rays[..., :2] / up[..., None] + seed % 97, 0.12)
    cover = np.clip((clouds - 0.4 + 0.8 * grey) * 0.8, 0, 0.8) * np.clip(elevation / 0.16, 0, 1)
    colour += cover[..., None] * (np.array([246.0, 247.0, 250.0]) - 40 * grey - colour)
    return np.clip(colour, 0, 255).astype(np.uint8)


def _skyline(image, camera: PinholeCamera, atmosphere: Atmosphere, seed: int, haze_colour: np.ndarray) -> None:
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
