"""Cars, vans and lorries."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mtdrive.simulation.synthetic.rendering.mesh import Mesh, MeshBuilder
from mtdrive.simulation.synthetic.rendering.scene import Colour

VAN_HEIGHT, LORRY_HEIGHT = 2.1, 2.9  # [m] from which a vehicle is drawn as one

GLASS = (58, 70, 84)
TYRE = (24, 24, 26)
RIM = (150, 152, 156)
TRIM = (44, 44, 48)
PLATE = (228, 228, 220)
HEADLIGHT = (250, 248, 235)
TAIL_LIGHT = (165, 22, 22)
BRAKE_LIGHT = (255, 30, 20)
CARGO = (222, 222, 218)


@lru_cache(maxsize=256)
def vehicle_mesh(length: float, width: float, height: float, colour: Colour, braking: bool) -> Mesh:
    """A motor vehicle of the given size [m], centred over the origin and facing +x."""
    mesh = MeshBuilder()
    if height >= LORRY_HEIGHT:
        _lorry(mesh, length, width, height, colour, braking)
    elif height >= VAN_HEIGHT:
        _van(mesh, length, width, height, colour, braking)
    else:
        _car(mesh, length, width, height, colour, braking)
    return mesh.build()


def _car(mesh: MeshBuilder, length: float, width: float, height: float, colour: Colour, braking: bool) -> None:
    half, side = length / 2, width / 2
    sill, belt = 0.13 * height, 0.56 * height
    wheel = 0.21 * height
    axles = (-0.30 * length, 0.31 * length)
    _tyres(mesh, axles, side, wheel)
    body = [(-half, sill), (half - 0.05, sill), (half, 0.30 * height), (half - 0.12, 0.43 * height),
            (0.21 * length, belt), (-0.455 * length, belt), (-half, 0.47 * height)]  # fmt: skip
    tuck = [0.95, 0.92, 0.90, 0.90, 0.97, 0.95, 0.95]
    right, left = [-side * t for t in tuck], [side * t for t in tuck]
    mesh.extrusion(body, right, left, [TRIM, TRIM, colour, colour, colour, colour, colour, colour])
    roof, base = 0.76 * side, 0.93 * side
    glasshouse = [(-0.43 * length, belt), (0.20 * length, belt), (0.02 * length, height), (-0.33 * length, height)]
    across = [base, base, roof, roof]
    mesh.extrusion(glasshouse, [-y for y in across], across, [colour, GLASS, colour, colour, colour])
    _pane(mesh, glasshouse[3], glasshouse[0], roof, base, 0.10, 0.16)  # rear window
    _pane(mesh, glasshouse[1], glasshouse[2], base, roof, 0.04, 0.06)  # windscreen
    for sign in (-1.0, 1.0):
        for front, rear in ((0.155, -0.085), (-0.115, -0.365)):
            top_front, top_rear = min(front, 0.01), max(rear, -0.315)
            _flank(mesh, sign, [(rear, belt + 0.03), (front, belt + 0.03), (top_front, 0.93 * height),
                                (top_rear, 0.93 * height)], length, base, roof, belt, height)  # fmt: skip
        for x in axles:
            _wheel(mesh, x, sign * side * 0.97, wheel)
        rear, front = -half - 0.01, half + 0.01
        light = BRAKE_LIGHT if braking else TAIL_LIGHT
        low, high = (0.37, 0.55) if braking else (0.39, 0.52)
        _panel(mesh, rear, sign * side * 0.52, sign * side * 0.93, low * height, high * height, light, braking)
        _panel(mesh, front, sign * side * 0.55, sign * side * 0.88, 0.32 * height, 0.42 * height, HEADLIGHT, True)
    _panel(mesh, -half - 0.01, -0.26, 0.26, 0.30 * height, 0.37 * height, PLATE)
    _panel(mesh, -half - 0.01, -side * 0.9, side * 0.9, sill, 0.25 * height, TRIM)
    _panel(mesh, half + 0.01, -side * 0.48, side * 0.48, 0.24 * height, 0.37 * height, TRIM)
    _panel(mesh, half + 0.015, -0.26, 0.26, 0.20 * height, 0.26 * height, PLATE)
    if braking:
        _panel(mesh, -0.42 * length, -0.3 * side, 0.3 * side, 0.92 * height, 0.97 * height, BRAKE_LIGHT, True)


def _van(mesh: MeshBuilder, length: float, width: float, height: float, colour: Colour, braking: bool) -> None:
    half, side = length / 2, width / 2
    sill = 0.12 * height
    axles = (-0.28 * length, 0.33 * length)
    _tyres(mesh, axles, side, 0.35)
    body = [(-half, sill), (half, sill), (half, 0.36 * height), (half - 0.14 * length, 0.50 * height),
            (half - 0.26 * length, height), (-half, height)]  # fmt: skip
    across = [side, 0.95 * side, 0.93 * side, 0.95 * side, 0.90 * side, 0.92 * side]
    mesh.extrusion(body, [-y for y in across], across, [TRIM, colour, colour, GLASS, colour, colour, colour])
    for sign in (-1.0, 1.0):
        _flank(mesh, sign, [(0.22, 0.54 * height), (0.335, 0.54 * height), (0.255, 0.86 * height),
                            (0.22, 0.86 * height)], length, side, 0.92 * side, sill, height)  # fmt: skip
        for x in axles:
            _wheel(mesh, x, sign * side, 0.35)
        light = BRAKE_LIGHT if braking else TAIL_LIGHT
        reach = 0.74 if braking else 0.82
        inner, outer = sign * side * reach, sign * side * 0.97
        _panel(mesh, -half - 0.01, inner, outer, 0.28 * height, 0.50 * height, light, braking)
        _panel(mesh, half + 0.01, sign * side * 0.55, sign * side * 0.86, 0.25 * height, 0.34 * height, HEADLIGHT, True)
        _panel(mesh, -half - 0.01, sign * side * 0.10, sign * side * 0.72, 0.56 * height, 0.84 * height, GLASS)
    shade = tuple(int(0.62 * c) for c in colour)
    _panel(mesh, -half - 0.012, -0.02, 0.02, 0.16 * height, 0.95 * height, shade)
    _panel(mesh, -half - 0.01, -0.26, 0.26, 0.22 * height, 0.27 * height, PLATE)
    _panel(mesh, -half - 0.01, -side * 0.95, side * 0.95, sill, 0.19 * height, TRIM)
    _panel(mesh, half + 0.01, -side * 0.5, side * 0.5, 0.20 * height, 0.30 * height, TRIM)


def _lorry(mesh: MeshBuilder, length: float, width: float, height: float, colour: Colour, braking: bool) -> None:
    half, side = length / 2, width / 2
    floor, cab = 0.30 * height, half - min(2.2, 0.35 * length)
    axles = (-0.34 * length, -0.34 * length + 1.1, cab + 0.9)
    _tyres(mesh, axles, side, 0.48)
    mesh.block((-half + 0.05, half - 0.1), (-0.4 * side, 0.4 * side), (0.4, floor), TRIM)
    cab_profile = [(cab, 0.35), (half, 0.35), (half, 0.52 * height), (half - 0.25, 0.86 * height), (cab, 0.86 * height)]
    across = [0.95 * side] * 5
    mesh.extrusion(cab_profile, [-y for y in across], across, [TRIM, colour, GLASS, colour, colour, colour])
    mesh.block((-half, cab - 0.15), (-side, side), (floor, height), CARGO)
    for sign in (-1.0, 1.0):
        _flank(mesh, sign, [((cab + 0.7) / length, 0.52 * height), ((half - 0.15) / length, 0.52 * height),
                            ((half - 0.35) / length, 0.80 * height), ((cab + 0.7) / length, 0.80 * height)],
               length, 0.96 * side, 0.96 * side, floor, height)  # fmt: skip
        for x in axles:
            _wheel(mesh, x, sign * side, 0.48)
        light = BRAKE_LIGHT if braking else TAIL_LIGHT
        _panel(mesh, -half - 0.01, sign * side * 0.6, sign * side * 0.95, floor - 0.28, floor - 0.04, light, braking)
        _panel(mesh, half + 0.01, sign * side * 0.6, sign * side * 0.88, 0.55, 0.78, HEADLIGHT, True)
        right, left = sorted((sign * side * 0.05, sign * side * 0.97))
        _panel(
            mesh, -half - 0.012, right, left, floor + 0.02, floor + 0.14, BRAKE_LIGHT if sign < 0 else (240, 200, 40)
        )
    _panel(mesh, -half - 0.012, -0.02, 0.02, floor, height, (120, 120, 118))
    _panel(mesh, half + 0.01, -side * 0.8, side * 0.8, 0.85, 0.45 * height, TRIM)


def _tyres(mesh: MeshBuilder, axles, side: float, radius: float) -> None:
    """The treads under the body, as seen from behind and before."""
    for x in axles:
        for sign in (-1.0, 1.0):
            right, left = sorted((sign * side * 0.70, sign * side * 0.96))
            mesh.block((x - 0.8 * radius, x + 0.8 * radius), (right, left), (0.0, 1.4 * radius), TYRE)


def _wheel(mesh: MeshBuilder, x: float, y: float, radius: float) -> None:
    """A disc on a flank."""
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False) * -np.sign(y)
    for scale, colour, lift in ((1.12, TRIM, 0.0), (1.0, TYRE, 0.005), (0.58, RIM, 0.01)):
        outward = y + np.sign(y) * lift
        ring = np.column_stack([x + scale * radius * np.cos(angles), np.full(14, outward),
                                radius + scale * radius * np.sin(angles)])  # fmt: skip
        ring[:, 2] = np.maximum(ring[:, 2], 0.0)
        mesh.face(ring, colour)


def _panel(mesh: MeshBuilder, x: float, y0: float, y1: float, z0: float, z1: float, colour, glowing=False) -> None:
    """An upright rectangle across the vehicle at x, facing away from its centre."""
    y0, y1 = (y0, y1) if (y0 < y1) == (x > 0) else (y1, y0)
    mesh.face([(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], colour, glowing=glowing)


def _pane(mesh: MeshBuilder, first, second, first_half: float, second_half: float, frame: float, inset: float) -> None:
    """A window in the slanted strip from profile corner first to second, within a frame."""
    a, b = np.array(first), np.array(second)
    (xa, za), (xb, zb) = a + (b - a) * inset, b + (a - b) * inset
    ya = (first_half + (second_half - first_half) * inset) * (1 - frame)
    yb = (second_half + (first_half - second_half) * inset) * (1 - frame)
    mesh.face([(xb, -yb, zb), (xa, -ya, za), (xa, ya, za), (xb, yb, zb)], GLASS)


def _flank(
    mesh: MeshBuilder, sign: float, corners, length: float, low: float, high: float, z0: float, z1: float
) -> None:
    """A window in a flank that leans from half width low at z0 to high at z1; corners: (x / length, z)."""
    points = []
    for x, z in corners:
        y = low + (high - low) * (z - z0) / (z1 - z0)
        points.append((x * length, sign * (y + 0.008), z))
    mesh.face(points if sign < 0 else points[::-1], GLASS)
