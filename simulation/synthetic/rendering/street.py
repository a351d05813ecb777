"""Static things: cones, barriers, signs, bins, traffic lights, and the scenery beside the road."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mtdrive.simulation.synthetic.rendering.mesh import Mesh, MeshBuilder
from mtdrive.simulation.synthetic.rendering.scene import Colour, LightState

ORANGE = (255, 106, 20)
WHITE = (244, 244, 240)
RED = (206, 32, 34)
BLACK = (26, 26, 28)
METAL = (120, 124, 128)
CONCRETE = (186, 184, 178)
TRUNK = (92, 70, 50)
WINDOW = (74, 92, 112)
STOREY = 3.4  # [m]
LIT = {LightState.RED: (255, 34, 26), LightState.YELLOW: (255, 196, 20), LightState.GREEN: (30, 240, 120)}
UNLIT = {LightState.RED: (70, 20, 20), LightState.YELLOW: (70, 56, 18), LightState.GREEN: (18, 60, 36)}


@lru_cache(maxsize=32)
def cone_mesh(width: float, height: float) -> Mesh:
    """An orange cone with white bands."""
    mesh, base = MeshBuilder(), width / 2
    mesh.block((-base, base), (-base, base), (0.0, 0.05), ORANGE)
    bottom, top = 0.74 * base, 0.16 * base
    bands = ((0.04, 0.34, ORANGE), (0.34, 0.56, WHITE), (0.56, 0.70, ORANGE), (0.70, 0.84, WHITE), (0.84, 1.0, ORANGE))
    for low, high, colour in bands:
        radii = (bottom + (top - bottom) * low, bottom + (top - bottom) * high)
        mesh.limb((0, 0, low * height), (0, 0, high * height), colour, *radii, flat=True)
    return mesh.build()


@lru_cache(maxsize=32)
def barrier_mesh(length: float, width: float, height: float) -> Mesh:
    """A road-works barrier: a concrete foot under a board with slanted red and white stripes on all sides."""
    mesh, board = MeshBuilder(), 0.40 * height
    mesh.block((-length / 2, length / 2), (-width / 2, width / 2), (0.0, board), CONCRETE)
    mesh.block((-length / 2, length / 2), (-0.4 * width, 0.4 * width), (board, height), WHITE)
    for start, end in (
        ((-length / 2, -0.41 * width), (length / 2, -0.41 * width)),
        ((length / 2, 0.41 * width), (-length / 2, 0.41 * width)),
        ((length / 2 + 0.01, -0.4 * width), (length / 2 + 0.01, 0.4 * width)),
        ((-length / 2 - 0.01, 0.4 * width), (-length / 2 - 0.01, -0.4 * width)),
    ):
        _stripes(mesh, np.array(start), np.array(end), board + 0.06 * height, 0.96 * height)
    return mesh.build()


def _stripes(mesh: MeshBuilder, start: np.ndarray, end: np.ndarray, low: float, high: float) -> None:
    """Red slanted stripes on an upright board from start to end (2,), seen from its right-hand side."""
    span = np.linalg.norm(end - start)
    count = max(2, round(span / 0.7))
    slant = 0.5 / count
    for i in range(count):
        left = i / count
        corners = ((left, low), (left + 0.5 / count, low), (left + 0.5 / count + slant, high), (left + slant, high))
        mesh.face([(*(start + (end - start) * min(s, 1.0)), z) for s, z in corners], RED)


@lru_cache(maxsize=32)
def sign_mesh(width: float, height: float) -> Mesh:
    """A road-works sign: an orange diamond with a black bar on a stand, legible from before and behind."""
    mesh = MeshBuilder()
    half = min(0.5 * max(width, 0.8), 0.42 * height)
    middle = height - half
    mesh.limb((0, 0, middle), (0, 0.3, 0), METAL, 0.03)
    mesh.limb((0, 0, middle), (0, -0.3, 0), METAL, 0.03)
    for side in (-1.0, 1.0):
        for size, colour, lift in ((1.0, BLACK, 0.02), (0.9, ORANGE, 0.03)):
            diamond = [(0, half), (-half, 0), (0, -half), (half, 0)]
            mesh.face([(side * lift, side * y * size, middle + z * size) for y, z in diamond], colour)
        for low, high, reach in ((0.05, 0.30, 0.42), (-0.32, -0.06, 0.42)):
            bar = [(-reach, low), (reach, low), (reach, high), (-reach, high)]
            mesh.face([(side * 0.04, side * y * half, middle + z * half) for y, z in bar], BLACK)
    return mesh.build()


@lru_cache(maxsize=32)
def bin_mesh(length: float, width: float, height: float, colour: Colour) -> Mesh:
    """A container with a darker lid and a light band: the generic object."""
    mesh = MeshBuilder()
    lid = tuple(int(0.6 * c) for c in colour)
    mesh.block((-length / 2, length / 2), (-width / 2, width / 2), (0.0, 0.84 * height), colour)
    mesh.block((-0.52 * length, 0.52 * length), (-0.52 * width, 0.52 * width), (0.84 * height, height), lid)
    band = (0.44 * height, 0.60 * height)
    for x, y in ((length / 2, width / 2), (-length / 2, -width / 2)):
        for (x0, y0), (x1, y1) in (((1.01 * x, -y), (1.01 * x, y)), ((x, 1.01 * y), (-x, 1.01 * y))):
            mesh.face([(x0, y0, band[0]), (x1, y1, band[0]), (x1, y1, band[1]), (x0, y0, band[1])], WHITE)
    return mesh.build()


@lru_cache(maxsize=32)
def traffic_light_mesh(state: LightState, arm: float) -> Mesh:
    """A light that stops traffic driving along +x, its pole's foot at the origin; see TrafficLight."""
    mesh = MeshBuilder()
    top = 3.2 if arm == 0 else 6.0
    mesh.limb((0, 0, 0), (0, 0, top), METAL, 0.10, 0.08, flat=True)
    _light_head(mesh, 0.0, 3.1, state)
    if arm:
        mesh.limb((0, 0, top - 0.05), (0, arm, top - 0.05), METAL, 0.07, 0.06)
        _light_head(mesh, arm, top - 0.9, state)
    return mesh.build()


def _light_head(mesh: MeshBuilder, y: float, z: float, state: LightState) -> None:
    """Three lamps in a black housing before a bright-edged board; z: its middle."""
    boards = ((-0.14, 0.44, 0.92, (208, 190, 70)), (-0.15, 0.39, 0.87, BLACK), (-0.10, -0.44, 0.92, BLACK))
    for x, left, half, colour in boards:  # a negative left turns a board's visible side to the back
        corners = ((left, -half), (-left, -half), (-left, half), (left, half))
        mesh.face([(x, y + across, z + up) for across, up in corners], colour)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for lamp, height in ((LightState.RED, 0.56), (LightState.YELLOW, 0.0), (LightState.GREEN, -0.56)):
        lit = lamp == state
        radius = 0.27 if lit else 0.22
        disc = np.column_stack([np.full(12, -0.16), y - radius * np.cos(angles), z + height + radius * np.sin(angles)])
        mesh.face(disc, LIT[lamp] if lit else UNLIT[lamp], glowing=lit)
        if lit:
            disc = np.column_stack([np.full(12, -0.17), y - 0.13 * np.cos(angles), z + height + 0.13 * np.sin(angles)])
            mesh.face(disc, tuple(min(255, c + 90) for c in LIT[lamp]), glowing=True)


@lru_cache(maxsize=64)
def tree_mesh(variety: int) -> Mesh:
    """A leafy tree of height 1; variety changes its crown and green."""
    mesh = MeshBuilder()
    random = np.random.default_rng(variety)
    green = np.array([62, 104, 44]) + random.integers(-16, 17, 3)
    mesh.limb((0, 0, 0), (0, 0, 0.55), TRUNK, 0.035, 0.02, flat=True)
    crown = [(0.0, 0.0, 0.68, 0.27)]
    for angle in random.uniform(0, 2 * np.pi) + np.arange(5) * 2 * np.pi / 5:
        reach, level = random.uniform(0.12, 0.20), random.uniform(0.52, 0.72)
        crown.append((reach * np.cos(angle), reach * np.sin(angle), level, random.uniform(0.15, 0.20)))
    crown.append((0.0, 0.0, 0.84, 0.16))
    for shade, shrink, lift in ((0.72, 1.0, 0.0), (1.0, 0.80, 0.035), (1.18, 0.45, 0.08)):
        for x, y, z, radius in crown:
            mesh.ball((x, y, z + lift), tuple(np.clip(green * shade, 0, 255)), radius * shrink)
    return mesh.build()


@lru_cache(maxsize=64)
def bush_mesh(variety: int) -> Mesh:
    """A round shrub of height 1."""
    mesh = MeshBuilder()
    random = np.random.default_rng(variety)
    green = np.array([72, 110, 52]) + random.integers(-14, 15, 3)
    for shade, shrink in ((0.75, 1.0), (1.05, 0.7)):
        for y in (-0.4, 0.4, 0.0):
            mesh.ball((0, y, 0.5), tuple(green * shade), 0.55 * shrink)
    return mesh.build()


@lru_cache(maxsize=1)
def lamp_post_mesh() -> Mesh:
    """A street lamp of height 1 whose arm points to +y."""
    mesh = MeshBuilder()
    mesh.limb((0, 0, 0), (0, 0, 1), METAL, 0.014, 0.010, flat=True)
    mesh.limb((0, 0, 1), (0, 0.25, 1.04), METAL, 0.008)
    mesh.limb((0, 0.18, 1.03), (0, 0.30, 1.04), WHITE, 0.014)
    return mesh.build()


@lru_cache(maxsize=256)
def building_mesh(length: float, width: float, height: float, colour: Colour) -> Mesh:
    """A house block with rows of windows and a darker foot and roof edge."""
    mesh = MeshBuilder()
    mesh.block((-length / 2, length / 2), (-width / 2, width / 2), (0.0, height), colour)
    dark = tuple(int(0.72 * c) for c in colour)
    sills = 1.1 + STOREY * np.arange(max(1, int(height // STOREY)))
    for along, depth, front in ((length, width, False), (width, length, True)):
        bays = max(1, int(along // 4.5))
        middles = (np.arange(bays) + 0.5) * along / bays - along / 2
        middle, sill = (grid.ravel() for grid in np.meshgrid(middles, sills))
        windows = np.column_stack([middle - 1.1, middle + 1.1, sill, sill + 1.6])
        edges = np.array([[-along / 2, along / 2, 0.0, 0.5], [-along / 2, along / 2, height - 0.4, height]])
        for side in (-1.0, 1.0):
            for rectangles, paint in ((edges, dark), (windows, WINDOW)):
                across, up = side * rectangles[:, [0, 1, 1, 0]], rectangles[:, [2, 2, 3, 3]]
                out = np.full_like(across, side * (depth / 2 + 0.02))
                mesh.faces(np.stack([out, across, up] if front else [-across, out, up], axis=-1), paint)
    return mesh.build()
