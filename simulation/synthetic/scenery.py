"""What stands beside the roads: houses that block the view at corners and in bends, other houses, trees, bushes.

Only pictures show it; maps and labels do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import shapely
import shapely.affinity

from mtdrive.simulation.synthetic.rendering.scene import Scenery, SceneryKind
from mtdrive.simulation.synthetic.site import Site

CLEARANCE = 3.5  # [m] between a blocking house and the pavement
SHARP = 1 / 60  # [1/m] bends sharper than this have a house on the inside
BLOCKED = 0.8  # share of corners and bends with a house


def plant(site: Site, rng: np.random.Generator, density: float) -> None:
    """Add scenery to a site. density: 0 (bare) to 1 (a dense street)."""
    ground = shapely.union_all([shapely.Polygon(surface.xy).buffer(0.3) for surface in site.surfaces])
    for place, away in _blind_spots(site):
        if rng.uniform() < BLOCKED:
            house = _house(rng, np.arctan2(away[1], away[0]), rng.uniform(10.0, 16.0))
            _move_clear(house, place, away, ground, site)
    taken = shapely.union_all([ground, *map(_footprint, site.scenery)])
    shapely.prepare(taken)
    min_x, min_y, max_x, max_y = ground.bounds
    spots = rng.uniform((min_x, min_y - 40), (max_x, max_y + 40), (int(1500 * density), 2))
    for (x, y), gap in zip(spots, shapely.distance(taken, shapely.points(spots)), strict=True):
        dice = rng.uniform()
        if gap > 14.0 and dice < 0.25 * density and np.hypot(x, y) < 110.0:
            site.scenery.append(_house(rng, rng.choice([0.0, 0.1, -0.1]), rng.uniform(8.0, 16.0), x, y))
        elif 1.0 < gap < 12.0 and dice < 0.5:
            kind, low, high = ((SceneryKind.TREE, 4.0, 9.0), (SceneryKind.BUSH, 0.7, 1.6))[int(rng.uniform() < 0.3)]
            site.scenery.append(Scenery(kind, x, y, float(rng.uniform(low, high))))


def _house(rng: np.random.Generator, heading: float, length: float, x: float = 0.0, y: float = 0.0) -> Scenery:
    red, green, blue = (int(c) for c in np.clip(rng.normal((165, 145, 125), 30), 60, 230))
    width, height = float(rng.uniform(8.0, 16.0)), float(rng.uniform(5.0, 18.0))
    return Scenery(SceneryKind.BUILDING, x, y, height, float(heading), float(length), width, (red, green, blue))


def _blind_spots(site: Site) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points on the road and directions (unit) away from it in which a house would hide traffic."""
    if site.intersections:
        arms = [
            lane.curve.xy[0] for lane in site.lanes.values() if lane.index == 0 and not lane.group.endswith("_back")
        ]
        angles = np.sort([np.arctan2(y, x) for x, y in arms])
        for angle, gap in zip(angles, np.diff(angles, append=angles[0] + 2 * np.pi), strict=True):
            if gap < 0.75 * np.pi:
                middle = angle + gap / 2
                yield np.zeros(2), np.array([np.cos(middle), np.sin(middle)])
        return
    curve = site.lanes["main/0"].curve
    bends = curve.curvature(curve.s)
    sharpest = int(np.argmax(np.abs(bends)))
    if abs(bends[sharpest]) > SHARP:
        bent = np.flatnonzero(np.abs(bends) > 0.9 * abs(bends[sharpest]))
        x, y, heading = curve.at(curve.s[bent[len(bent) // 2]])
        yield np.array([x, y]), np.sign(bends[sharpest]) * np.array([-np.sin(heading), np.cos(heading)])


def _move_clear(house: Scenery, place: np.ndarray, away: np.ndarray, ground: shapely.Geometry, site: Site) -> None:
    """Add the house at the first spot from `place` on along `away` that keeps clear of the ground in use."""
    for distance in np.arange(6.0, 60.0, 1.0):
        x, y = place + away * distance
        moved = replace(house, x=float(x), y=float(y))
        if shapely.distance(_footprint(moved), ground) > CLEARANCE:
            site.scenery.append(moved)
            return


def _footprint(thing: Scenery) -> shapely.Polygon:
    box = shapely.box(-thing.length / 2, -thing.width / 2, thing.length / 2, thing.width / 2)
    turned = shapely.affinity.rotate(box, thing.heading, origin=(0, 0), use_radians=True)
    return shapely.affinity.translate(turned, thing.x, thing.y)
