"""Bird's-eye view of a scene and of plans in it. Up is ahead, left is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.patches import Patch, Polygon
from matplotlib.path import Path

from mtdrive.simulation import vehicle
from mtdrive.simulation.geometry.frames import box_corners, translate_forward
from mtdrive.simulation.scene import NUM_STEPS, STEP, MapLayer, ObjectType, Polygons, Scene
from mtdrive.visualization import style
from mtdrive.visualization.plan import Plan, Role, Violation, ego_corners, pose_at, violation_place

BEHIND, LEAST_AHEAD, MARGIN = 9.0, 28.0, 8.0  # [m]


def to_page(xy: np.ndarray) -> np.ndarray:
    """Ego-frame points (..., 2), x ahead and y left, to page coordinates, right and up [m]."""
    xy = np.asarray(xy, dtype=np.float64)
    return np.stack([-xy[..., 1], xy[..., 0]], axis=-1)


def draw_bird_view(axes: Axes, scene: Scene, plans: Sequence[Plan], metric: str = "pdms_v1") -> None:
    """Draw map, route, agents with their recorded futures, ego, and plans with their violations into axes.

    The view reaches as far as the plans do; its width follows from the shape of the axes.
    """
    draw_ground(axes, scene, plans, metric)
    _draw_red_lights(axes, scene, metric, 0)
    _draw_agents(axes, scene, metric)
    _draw_ego(axes, scene)
    for plan, colour in zip(plans, style.plan_colours(plans), strict=True):
        _draw_end(axes, plan, colour)
    for plan in plans:
        if plan.violation is not None and plan.role == Role.TURN:
            _draw_violation(axes, scene, plan, plan.violation, metric)


def draw_ground(axes: Axes, scene: Scene, plans: Sequence[Plan], metric: str) -> None:
    """What does not move: the map, the paths of agents and plans, the key."""
    _frame(axes, plans)
    _draw_map(axes, scene)
    _draw_traces(axes, scene, metric)
    _draw_key(axes, scene)
    for plan, colour in zip(plans, style.plan_colours(plans), strict=True):
        _draw_plan(axes, plan, colour)


def draw_moment(axes: Axes, scene: Scene, plans: Sequence[Plan], step: int, metric: str) -> None:
    """What moves, `step` tenths of a second after t0: lights, agents, the ego on each turn's plan, and the violations
    that have happened."""
    observation = scene.observations[metric]
    _draw_red_lights(axes, scene, metric, step)
    there = observation.present[step]
    _draw_boxes(axes, observation.poses[step, there], observation.size[there], observation.kind[there])
    for plan, colour in zip(plans, style.plan_colours(plans), strict=True):
        if plan.role != Role.TURN:
            continue
        corners = to_page(ego_corners(pose_at(plan, step)))
        car = Polygon(corners, closed=True, facecolor=colour, edgecolor="white", linewidth=0.8, alpha=0.85, zorder=8)
        axes.add_patch(car)
        if plan.violation is not None and plan.violation.time <= step * STEP:
            _draw_violation(axes, scene, plan, plan.violation, metric)


def _frame(axes: Axes, plans: Sequence[Plan]) -> None:
    """Limits in metres with equal scales that fill the axes."""
    reach = np.concatenate([np.zeros((1, 2)), *[plan.path[:, :2] for plan in plans]])
    bottom, top = min(reach[:, 0].min(), 0) - BEHIND, max(reach[:, 0].max() + MARGIN, LEAST_AHEAD)
    box = axes.get_window_extent()
    half = max(0.5 * (top - bottom) * box.width / box.height, np.abs(reach[:, 1]).max() + MARGIN)
    top = max(top, bottom + 2 * half * box.height / box.width)
    axes.set(xlim=(-half, half), ylim=(bottom, top), xticks=[], yticks=[], facecolor=style.BACKGROUND)
    for spine in axes.spines.values():
        spine.set_color(style.LANE_EDGE)
    length = 10 if top - bottom < 90 else 20
    x, y = -0.92 * half, bottom + 0.03 * (top - bottom)
    axes.plot([x, x + length], [y, y], color=style.EGO, linewidth=1.5, solid_capstyle="butt", zorder=9)
    axes.text(x + length / 2, y + 0.012 * (top - bottom), f"{length} m", ha="center", fontsize=style.SMALL, zorder=9)


def _draw_map(axes: Axes, scene: Scene) -> None:
    map_ = scene.drivable_map
    visible = _in_view(axes, map_.polygons)
    for layer, colour in style.LAYERS.items():
        lanes = layer in (MapLayer.LANE, MapLayer.LANE_CONNECTOR)
        for on_route in (False, True) if lanes else (False,):
            chosen = visible & (map_.layer == layer) & ((map_.on_route == on_route) if lanes else True)
            if chosen.any():
                edge = style.LANE_EDGE if layer == MapLayer.LANE else "none"
                face = style.ROUTE if on_route else colour
                paths = polygon_paths(map_.polygons, np.flatnonzero(chosen))
                axes.add_collection(
                    PathCollection(paths, facecolors=face, edgecolors=edge, linewidths=0.6, zorder=1), autolim=False
                )
    line = to_page(scene.centerline[:, :2])
    axes.plot(*line.T, color=style.CENTERLINE, linewidth=0.9, dashes=(5, 3), zorder=2, scalex=False, scaley=False)


def polygon_paths(polygons: Polygons, chosen: np.ndarray) -> list[Path]:
    """Page paths, holes included, of the chosen polygons."""
    page = to_page(polygons.xy)
    paths = []
    for p in chosen:
        rings = polygons.ring_start[polygons.polygon_start[p] : polygons.polygon_start[p + 1] + 1]
        codes = np.full(rings[-1] - rings[0], Path.LINETO, dtype=Path.code_type)
        codes[rings[:-1] - rings[0]] = Path.MOVETO
        codes[rings[1:] - rings[0] - 1] = Path.CLOSEPOLY
        paths.append(Path(page[rings[0] : rings[-1]], codes))
    return paths


def _in_view(axes: Axes, polygons: Polygons) -> np.ndarray:
    """(P,) which polygons' bounds meet the view."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x0, y0, x1, y1 = polygons.bounds.T
    return (x1 >= bottom) & (x0 <= top) & (-y0 >= left) & (-y1 <= right)


def _draw_red_lights(axes: Axes, scene: Scene, metric: str, step: int) -> None:
    """The connectors that are closed then, hatched."""
    observation = scene.observations[metric]
    red = np.flatnonzero(observation.light_red[step]) if observation.light_red.size else np.array([], dtype=int)
    if len(red):
        paths = polygon_paths(observation.light_polygons, red)
        axes.add_collection(
            PathCollection(
                paths, facecolors="none", edgecolors=style.RED_LIGHT, hatch="////", linewidths=0.8, zorder=2
            ),
            autolim=False,
        )


def _draw_agents(axes: Axes, scene: Scene, metric: str) -> None:
    """Boxes at t0; objects that appear later as dotted boxes where they appear."""
    _draw_boxes(axes, scene.current_boxes[:, :3], scene.current_boxes[:, 3:5], scene.current_kind)
    observation = scene.observations[metric]
    late, colours = [], []
    for track, kind in enumerate(observation.kind):
        seen = np.flatnonzero(observation.present[:NUM_STEPS, track])
        if len(seen) and seen[0] > 0:
            late.append(to_page(box_corners(observation.poses[seen[0], track], observation.size[track])))
            colours.append(style.OBJECTS[ObjectType(kind)])
    axes.add_collection(
        PolyCollection(late, facecolors="none", edgecolors=colours, linewidths=0.9, linestyles="dotted", zorder=4),
        autolim=False,
    )


def _draw_boxes(axes: Axes, poses: np.ndarray, sizes: np.ndarray, kinds: np.ndarray) -> None:
    """Objects at poses (N, 3) of sizes (N, 2), with a line to the nose."""
    corners = to_page(box_corners(poses, sizes)) if len(poses) else np.empty((0, 4, 2))
    faces = [style.OBJECTS[ObjectType(kind)] for kind in kinds]
    axes.add_collection(
        PolyCollection(list(corners), facecolors=faces, edgecolors=style.EGO, linewidths=0.6, zorder=5), autolim=False
    )
    small = np.array([ObjectType(kind) in style.SMALL_KINDS for kind in kinds], dtype=bool)
    if small.any():
        x, y = to_page(poses[small, :2]).T
        axes.scatter(x, y, s=22, c=[faces[i] for i in np.flatnonzero(small)],
                     edgecolors=style.EGO, linewidths=0.6, zorder=5)  # fmt: skip
    noses = [[(quad[0] + quad[3]) / 2, quad.mean(axis=0)] for quad in corners]
    axes.add_collection(LineCollection(noses, colors=style.EGO, linewidths=0.6, zorder=5), autolim=False)


def _draw_traces(axes: Axes, scene: Scene, metric: str) -> None:
    """The recorded paths of the agents that move."""
    observation = scene.observations[metric]
    tracks, colours = [], []
    for track, kind in enumerate(observation.kind):
        path = observation.poses[np.flatnonzero(observation.present[:NUM_STEPS, track]), track, :2]
        if len(path) and ObjectType(kind).is_agent and np.ptp(path, axis=0).max() > 0.5:
            tracks.append(to_page(path))
            colours.append(style.OBJECTS[ObjectType(kind)])
    axes.add_collection(LineCollection(tracks, colors=colours, linewidths=1.4, zorder=4), autolim=False)
    if tracks:
        x, y = np.array([track[-1] for track in tracks]).T
        axes.scatter(x, y, s=9, c=colours, zorder=4)


def _draw_ego(axes: Axes, scene: Scene) -> None:
    axes.add_patch(Polygon(to_page(ego_corners(np.zeros(3))), closed=True, facecolor=style.EGO, zorder=6))
    tip = to_page(np.array([[3.4, 0.0], [1.9, 0.75], [1.9, -0.75]]))
    axes.add_patch(Polygon(tip, closed=True, facecolor="white", zorder=6))
    history = to_page(scene.history_poses[:, :2])
    axes.plot(*history.T, color=style.EGO, linewidth=1.0, linestyle="dotted", zorder=3, scalex=False, scaley=False)


def _draw_key(axes: Axes, scene: Scene) -> None:
    """The colours of the classes that are there."""
    kinds = [kind for kind in ObjectType if kind in scene.current_kind and kind in style.CLASS_NAMES]
    if kinds:
        handles = [Patch(facecolor=style.OBJECTS[kind], edgecolor=style.EGO, linewidth=0.6) for kind in kinds]
        axes.legend(handles, [style.CLASS_NAMES[kind] for kind in kinds], loc="lower right", fontsize=style.SMALL,
                    frameon=False, handlelength=0.9, handleheight=0.7, labelspacing=0.25, borderpad=0.2)  # fmt: skip


def _draw_plan(axes: Axes, plan: Plan, colour: str) -> None:
    """The path as driven; a turn also shows its planned poses."""
    line = to_page(plan.path[:, :2])
    quiet: dict[str, Any] = {"scalex": False, "scaley": False}
    if plan.role != Role.TURN:
        axes.plot(*line.T, color=colour, linewidth=1.6, dashes=style.DASHES[plan.role], zorder=8, **quiet)
        return
    axes.plot(*line.T, color="white", linewidth=4.2, zorder=7, solid_capstyle="round", **quiet)
    axes.plot(*line.T, color=colour, linewidth=2.6, zorder=7, solid_capstyle="round", **quiet)
    x, y = to_page(plan.poses[:: max(1, len(plan.poses) // 8), :2]).T
    axes.scatter(x, y, s=14, color=colour, edgecolors="white", linewidths=0.6, zorder=8)


def _draw_end(axes: Axes, plan: Plan, colour: str) -> None:
    """The ego box at the end of a turn, with the turn's number."""
    if plan.role != Role.TURN:
        return
    last = plan.path[-1]
    axes.add_patch(Polygon(to_page(ego_corners(last)), closed=True, fill=False, edgecolor=colour, linewidth=1.1,
                           zorder=7))  # fmt: skip
    if np.hypot(*last[:2]) > 3:
        name = plan.label.removeprefix("turn ")
        x, y = to_page(translate_forward(last, vehicle.REAR_AXLE_TO_FRONT + 1.4)[:2])
        badge = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colour, "linewidth": 1.1}
        axes.text(x, y, name, ha="center", va="center", fontsize=style.SMALL, bbox=badge, zorder=9, clip_on=True)


def _draw_violation(axes: Axes, scene: Scene, plan: Plan, violation: Violation, metric: str) -> None:
    """A cross where the plan goes wrong, and the boxes of the ego and of what it meets at that time."""
    *boxes, place = violation_place(scene, plan, violation, metric)
    for corners in boxes:
        if corners is not None:
            outline = axes.add_patch(Polygon(to_page(corners), closed=True, fill=False, zorder=8))
            outline.set(edgecolor=style.VIOLATION, linestyle=(0, (3, 2)), linewidth=1.2)
    x, y = to_page(place)
    for size, colour, width in ((75, "white", 4.0), (55, style.VIOLATION, 2.2)):
        axes.scatter([x], [y], s=size, marker="x", color=colour, linewidths=width, zorder=10)
