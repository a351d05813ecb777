"""Road templates: parameters drawn by a family, geometry built here. The ego drives on group "main"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from mtdrive.simulation.synthetic.curves import Curve, band, connect
from mtdrive.simulation.synthetic.rendering.scene import Crosswalk, Marking, Material, Surface
from mtdrive.simulation.synthetic.site import KERB_MARGIN, PAVEMENT, Connector, GroupConnector, RoadEdge, Signal, Site

APPROACH = 100.0  # [m] road before the place where the ego is at t0
CROSSWALK_DEPTH = 3.0  # [m]
CROSSWALK_GAP = 0.8  # [m] between stop line and crosswalk


def road(
    pieces: Sequence[tuple[float, float]],
    *,
    forward: int,
    backward: int,
    lane_width: float,
    speed_limit: float | None,
    right: RoadEdge = PAVEMENT,
    left: RoadEdge = PAVEMENT,
    centre: str = "solid",
    ramp: float = 12.0,
) -> Site:
    """A road without junctions: `APPROACH` metres straight, then pieces of (length, curvature)."""
    curve = Curve.from_curvature([(APPROACH, 0.0), *pieces], ramp).moved((0.0, 0.0, 0.0), APPROACH)
    site = Site()
    site.add_road(
        "main",
        curve,
        forward=forward,
        backward=backward,
        lane_width=lane_width,
        speed_limit=speed_limit,
        right=right,
        left=left,
        centre=centre,
    )
    return site


def street(
    rng: np.random.Generator,
    *,
    lanes: int,
    limit: float,
    width: tuple[float, float] = (3.3, 3.7),
    right: RoadEdge | None = None,
    left: RoadEdge | None = None,
    bend: float = 0.6,
) -> Site:
    """A town street, straight or (with probability `bend`) curved for its speed limit, with `lanes` per direction."""
    tightest = min(1 / 45, 2.3 / limit**2)
    curvature = rng.choice([-1.0, 1.0]) * rng.uniform(1 / 250, tightest) if rng.uniform() < bend else 0.0
    pavement = RoadEdge(pavement=float(rng.choice([0.0, 2.0, 3.0])))
    return road(
        [(rng.uniform(0, 30), 0.0), (140.0, curvature)],
        forward=lanes,
        backward=lanes,
        lane_width=rng.uniform(*width),
        speed_limit=limit,
        right=right or pavement,
        left=left or pavement,
        centre=str(rng.choice(["solid", "dashed"])),
        ramp=20.0,
    )


def crossroads(
    rng: np.random.Generator,
    *,
    limit: float,
    signals: bool,
    main: int,
    cross: int,
    corner: tuple[float, float] = (8.0, 11.0),
) -> Site:
    """A junction with four arms, somewhat askew. main, cross: lanes per direction. corner: range of kerb radii [m]."""
    askew = rng.uniform(-0.12, 0.12, 3)
    angles = [np.pi, 1.5 * np.pi + askew[0], 2 * np.pi + 0.3 * askew[1], 2.5 * np.pi + askew[2]]
    return junction(
        angles,
        lanes=[main, cross, main, cross],
        lane_width=rng.uniform(3.3, 3.6),
        speed_limit=limit,
        corner=rng.uniform(*corner),
        signals=signals,
    )


def side_road(rng: np.random.Generator, *, limit: float) -> Site:
    """A T-junction, where the ego arrives on the road that ends. Arms 1 and 2 lead to the right and to the left."""
    askew = rng.uniform(-0.15, 0.15)
    return junction(
        [np.pi, 1.5 * np.pi + askew, 2.5 * np.pi + askew],
        lanes=[1, 1, 1],
        lane_width=rng.uniform(3.3, 3.6),
        speed_limit=limit,
        corner=rng.uniform(8.0, 11.0),
        signals=False,
    )


def junction(
    angles: Sequence[float],
    *,
    lanes: Sequence[int],
    lane_width: float,
    speed_limit: float | None,
    corner: float,
    signals: bool,
    length: float = 120.0,
) -> Site:
    """An intersection of three or four arms around the origin; the ego arrives on arm 0 from -x.

    angles: outward directions of the arms [rad], counter-clockwise, angles[0] = pi. lanes: per direction, by
    arm. corner: kerb radius [m]. Arm k has groups `arm<k>` (towards the junction) and `arm<k>_back`; arm 0 is
    named "main". Connectors are named `<lane>><lane>`.
    """
    site = Site()
    names = ["main" if k == 0 else f"arm{k}" for k in range(len(angles))]
    half = [count * lane_width for count in lanes]
    setback = max(half) + corner + CROSSWALK_GAP + CROSSWALK_DEPTH
    inner = max(half) + corner
    for name, angle, count in zip(names, angles, lanes, strict=True):
        out = np.array([np.cos(angle), np.sin(angle)])
        curve = Curve.from_points(np.linspace(length * out, setback * out, int(length - setback) + 1))
        site.add_road(name, curve, forward=count, backward=count, lane_width=lane_width, speed_limit=speed_limit)
    ring = _junction_ring(angles, half, setback, inner)
    site.intersections["junction"] = ring
    shape = shapely.Polygon(ring)
    painted = [width + KERB_MARGIN for width in half]
    site.kerbs += _kerbs(angles, painted, setback, inner)
    site.surfaces.insert(0, Surface(Material.PAVEMENT, np.array(shape.buffer(3.0).exterior.coords)))
    site.surfaces.append(Surface(Material.ROAD, _junction_ring(angles, painted, setback, inner)))
    for a, start in enumerate(names):
        heading = angles[a] + np.pi
        along, across = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
        mouth = -setback * along
        near, far = mouth + CROSSWALK_GAP * along, mouth + (CROSSWALK_GAP + CROSSWALK_DEPTH) * along
        side = half[a] * across
        site.crosswalks.append(Crosswalk(np.array([near - side, near + side, far + side, far - side]), heading))
        site.markings.append(Marking(np.array([mouth, mouth - side]), width=0.4))
        if signals:
            pole = (setback - 1.0) * along - (half[a] + 1.2) * across
            site.signals.append(Signal(start, pole[0], pole[1], heading, half[a] * 0.6 + 1.2))
        for b, end in enumerate(names):
            if a != b:
                _connect_arms(site, start, f"{end}_back", lanes[a], lanes[b])
    return site


def _junction_ring(angles, half, setback, inner) -> np.ndarray:
    """Closed outline of the junction: mouth, kerb, mouth, ..."""
    points = []
    for angle, width, kerb in zip(angles, half, _kerbs(angles, half, setback, inner), strict=True):
        out, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        points += [setback * out - width * across, *kerb]
    return np.vstack([*points, points[0]])


def _kerbs(angles, half, setback, inner) -> list[np.ndarray]:
    """For each arm the kerb (N, 2) from its left mouth corner (seen outwards) to the next arm's right one."""
    kerbs = []
    for k in range(len(angles)):
        after = (k + 1) % len(angles)
        ends = []
        for arm, side in ((k, 1.0), (after, -1.0)):
            out = np.array([np.cos(angles[arm]), np.sin(angles[arm])])
            across = np.array([-out[1], out[0]]) * side * half[arm]
            ends.append((setback * out + across, inner * out + across))
        corner = connect((*ends[0][1], angles[k] + np.pi), (*ends[1][1], angles[after]), ramp=0.05)
        kerbs.append(np.vstack([ends[0][0], corner.xy, ends[1][0]]))
    return kerbs


def _connect_arms(site: Site, start: str, end: str, lanes_in: int, lanes_out: int) -> None:
    """Add the connectors from lane group `start` to lane group `end`, and their group connector."""
    first, last = site.lanes[f"{start}/0"].curve, site.lanes[f"{end}/0"].curve
    bend = (last.heading[0] - first.heading[-1] + np.pi) % (2 * np.pi) - np.pi
    turn = "straight" if abs(bend) < np.pi / 5 else "left" if bend > 0 else "right"
    pairs = {
        "left": [(0, 0)],
        "right": [(lanes_in - 1, lanes_out - 1)],
        "straight": [(k, min(k, lanes_out - 1)) for k in range(lanes_in)],
    }[turn]
    name = f"{start}>{end}"
    shapes = []
    for k, m in pairs:
        a, b = site.lanes[f"{start}/{k}"], site.lanes[f"{end}/{m}"]
        lead = 0.5 * (CROSSWALK_GAP + CROSSWALK_DEPTH) if turn == "right" else 0.0
        curve = connect((*a.curve.xy[-1], a.curve.heading[-1]), (*b.curve.xy[0], b.curve.heading[0]), lead=lead)
        connector = Connector(
            f"{a.name}>{b.name}", name, "junction", a.name, b.name, turn, curve, a.width, a.speed_limit
        )
        site.connectors[connector.name] = connector
        shapes.append(shapely.Polygon(band(curve, a.width / 2, -a.width / 2)).buffer(0.01))
    ring = np.array(shapely.union_all(shapes).exterior.coords)
    site.group_connectors[name] = GroupConnector(name, "junction", start, end, ring)
