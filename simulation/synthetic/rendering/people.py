"""Pedestrians and cyclists."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from mtdrive.simulation.synthetic.rendering.mesh import Mesh, MeshBuilder
from mtdrive.simulation.synthetic.rendering.scene import Colour

SKIN = (214, 168, 138)
HAIR = (58, 40, 30)
TROUSERS = (48, 54, 78)
SHOES = (30, 30, 32)
TYRE = (24, 24, 26)
HELMET = (236, 236, 240)


@lru_cache(maxsize=128)
def pedestrian_mesh(height: float, colour: Colour, walking: bool) -> Mesh:
    """A person facing +x; walking: in full stride."""
    mesh = MeshBuilder()
    hip, shoulder, stride = 0.50 * height, 0.80 * height, 0.17 * height if walking else 0.02 * height
    sleeve = tuple(int(0.86 * c) for c in colour)
    for sign in (-1.0, 1.0):
        foot = (sign * stride, sign * 0.08, 0.04)
        knee = (sign * stride * 0.5 + (0.05 if walking else 0.0), sign * 0.09, 0.27 * height)
        mesh.limb((0, sign * 0.09, hip), knee, TROUSERS, 0.095, 0.075)
        mesh.limb(knee, foot, TROUSERS, 0.072, 0.055)
        mesh.limb(foot, (foot[0] + 0.14, foot[1], 0.035), SHOES, 0.05, 0.04)
    for sign in (-1.0, 1.0):
        hand = (-sign * stride * 0.8 + 0.03, sign * 0.26, 0.46 * height)
        elbow = (-sign * stride * 0.35 - 0.03, sign * 0.25, 0.62 * height)
        mesh.limb((0, sign * 0.19, shoulder), elbow, sleeve, 0.06, 0.05)
        mesh.limb(elbow, hand, sleeve, 0.05, 0.045)
        mesh.ball(hand, SKIN, 0.05)
    for y in (-0.10, 0.0, 0.10):
        mesh.limb((0, y, hip + 0.02), (0, y * 1.2, shoulder), colour, 0.11, 0.10)
    _head(mesh, 0.01, 0.925 * height, 0.115, HAIR)
    return mesh.build()


@lru_cache(maxsize=64)
def cyclist_mesh(length: float, height: float, colour: Colour) -> Mesh:
    """A rider on a bicycle facing +x."""
    mesh = MeshBuilder()
    wheel = 0.34
    rear, front = (-length / 2 + wheel, 0, wheel), (length / 2 - wheel, 0, wheel)
    saddle, bars, crank = (-0.22 * length, 0, 0.52 * height), (0.24 * length, 0, 0.60 * height), (-0.04, 0, wheel)
    for x, _, z in (rear, front):
        rim = np.linspace(0, 2 * np.pi, 15)
        points = np.column_stack([x + (wheel - 0.03) * np.cos(rim), 0 * rim, z + (wheel - 0.03) * np.sin(rim)])
        for a, b in pairwise(points):
            mesh.limb(a, b, TYRE, 0.035)
    frame = tuple(int(0.55 * c + 20) for c in colour)
    for a, b in ((rear, crank), (rear, saddle), (crank, saddle), (crank, bars), (saddle, bars), (front, bars)):
        mesh.limb(a, b, frame, 0.03)
    mesh.limb((bars[0], -0.28, bars[2]), (bars[0], 0.28, bars[2]), TYRE, 0.03)
    hip = (saddle[0], saddle[2] + 0.06)
    for sign, pedal in ((-1.0, -0.13), (1.0, 0.13)):
        foot = (crank[0] + pedal * 0.6, sign * 0.10, crank[2] - pedal)
        knee = (crank[0] + 0.26, sign * 0.11, 0.5 * (hip[1] + foot[2]) + 0.06)
        mesh.limb((hip[0], sign * 0.10, hip[1]), knee, TROUSERS, 0.095, 0.07)
        mesh.limb(knee, foot, TROUSERS, 0.065, 0.05)
        mesh.limb(foot, (foot[0] + 0.14, foot[1], foot[2] - 0.02), SHOES, 0.045)
    chest = (hip[0] + 0.20 * height * 0.55, 0.82 * height)
    for y in (-0.09, 0.0, 0.09):
        mesh.limb((hip[0], y, hip[1] + 0.04), (chest[0], 1.4 * y, chest[1]), colour, 0.12, 0.11)
    for sign in (-1.0, 1.0):
        mesh.limb((chest[0], sign * 0.20, chest[1]), (bars[0], sign * 0.24, bars[2] + 0.03), colour, 0.055, 0.045)
    _head(mesh, chest[0] + 0.10, 0.94 * height, 0.115, HELMET)
    return mesh.build()


def _head(mesh: MeshBuilder, x: float, z: float, radius: float, top: Colour) -> None:
    """Face before, hair or helmet above and behind."""
    mesh.limb((x, 0, z - 2.0 * radius), (x, 0, z), SKIN, 0.5 * radius)
    mesh.ball((x, 0, z), SKIN, radius)
    mesh.limb((x - 0.25 * radius, 0, z + 0.30 * radius), (x - 0.1 * radius, 0, z + 0.42 * radius), top, 0.95 * radius)
