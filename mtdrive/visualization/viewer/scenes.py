"""One episode as the data of a page: a row of its list, and what its pictures are drawn from.

Places are in metres in the ego rear-axle frame at t0, or in pixels of the embedded image. Everything is plain JSON.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.metrics.registry import short_name
from mtdrive.simulation.scene import NUM_STEPS, MapLayer, Polygons, Scene
from mtdrive.visualization import style
from mtdrive.visualization.camera_view import footprint, image_camera, resampled, ribbon
from mtdrive.visualization.figure import small_jpeg
from mtdrive.visualization.plan import Plan, pose_at, violation_place
from mtdrive.visualization.records import OK, EpisodeRecord
from mtdrive.visualization.turns import FAULT, DrawnTurn, change, in_force

IMAGE_WIDTH = 640  # [px]
IMAGE_BYTES = 36_000  # at most, where some quality allows it
SIGHT = 15.0  # [m] of the map around what happens
HALF_WIDTH = 45.0  # [m] of the map to both sides, at least
TOLERANCE = 0.1  # [m] to which the map's outlines are kept
SIGHTINGS = 5  # simulation steps between the log's own sightings, 2 Hz


@dataclass(frozen=True)
class ViewerScene:
    """One scene of the page, as plain JSON."""

    row: dict[str, Any]
    """What the list shows and filters by."""
    content: dict[str, Any]
    """Everything else, read when the scene is opened."""


def viewer_scene(
    scene: Scene,
    image: np.ndarray,
    record: EpisodeRecord,
    turns: Sequence[DrawnTurn],
    beside: Sequence[Plan],
    metric: str,
) -> ViewerScene:
    """image: (H, W, 3) uint8 RGB, the scene's front image. turns: of the record. beside: references."""
    picture = resampled(image, IMAGE_WIDTH) if image.shape[1] > IMAGE_WIDTH else image
    camera = image_camera(scene, image.shape, picture.shape[1])
    plans = [*(turn.plan for turn in turns if turn.plan is not None), *beside]
    content = {
        "image": base64.b64encode(small_jpeg(picture, IMAGE_BYTES)).decode(),
        "size": [picture.shape[1], picture.shape[0]],
        "turns": [_turn(scene, turn, camera, metric) for turn in turns],
        "beside": [
            _plan(plan, colour) | {"edges": [rounded(edge) for edge in ribbon(camera, plan).edges]}
            for plan, colour in zip(beside, style.plan_colours(beside), strict=True)
        ],
        "map": _map(scene, plans),
        "centerline": rounded(scene.centerline[:, :2]),
        "history": rounded(scene.history_poses[:, :2]),
        "agents": _agents(scene, metric),
        "lights": _lights(scene, metric),
    }
    return ViewerScene(_row(scene, record, turns), content)


def _row(scene: Scene, record: EpisodeRecord, turns: Sequence[DrawnTurn]) -> dict[str, Any]:
    last = next((turn for turn in reversed(turns) if turn.columns), None)
    statuses = [record.status, *(turn.status for turn in turns if turn.status != OK)]
    return {
        "name": record.name,
        "token": record.token,
        "family": record.family,
        "place": f"{scene.log_name} {scene.map_name}",
        "scores": [round(score, 4) for score in in_force(turns)],
        "change": change(turns),
        "statuses": sorted(set(filter(None, statuses))),
        "faults": [short_name(name) for name, value in last.columns.items() if value < FAULT] if last else [],
        "words": " ".join(turn.feedback for turn in turns),
    }


def _turn(scene: Scene, turn: DrawnTurn, camera: PinholeCamera, metric: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": turn.name,
        "answer": turn.answer,
        "status": turn.status,
        "score": round(turn.score, 4) if math.isfinite(turn.score) else None,
        "parts": [[short_name(name), name, round(value, 4)] for name, value in turn.columns.items()],
        "feedback": turn.feedback,
        "colour": turn.colour,
    }
    if turn.plan is None:
        return shown
    shape = ribbon(camera, turn.plan)
    poses = [pose_at(turn.plan, step) for step in range(0, NUM_STEPS, 2)]
    shown["footprints"] = [rounded(footprint(camera, pose)) for pose in poses]
    shown |= _plan(turn.plan, turn.colour)
    shown["planned"] = rounded(turn.plan.poses[:: max(1, len(turn.plan.poses) // 8), :2])
    shown["ribbon"] = {
        "quads": [rounded(quad) for quad in shape.quads],
        "edges": [rounded(edge) for edge in shape.edges],
        "bars": [rounded(bar) for bar in shape.bars],
    }
    if turn.plan.violation is not None:
        *boxes, place = violation_place(scene, turn.plan, turn.plan.violation, metric)
        pixel, depth = camera.project(np.array([[*place, 0.0]]))
        shown["violation"] = {
            "name": turn.plan.violation.name,
            "time": round(turn.plan.violation.time, 2),
            "place": rounded(place),
            "boxes": [rounded(corners) for corners in boxes if corners is not None],
            "pixel": rounded(pixel[0]) if depth[0] > 0 and np.isfinite(pixel).all() else None,
        }
    return shown


def _plan(plan: Plan, colour: str) -> dict[str, Any]:
    """Label, colour and path (N, 3), as driven or as planned, at equal steps over the 4 s."""
    return {"label": plan.label, "colour": colour, "path": np.round(plan.path, 3).tolist(), "summary": plan.summary}


def _map(scene: Scene, plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Polygons by layer, bottom to top: `fill`, `edge` and their rings, cut off out of sight."""
    reach = np.concatenate([np.zeros((1, 2)), *[plan.path[:, :2] for plan in plans]])
    (behind, right), (ahead, left) = reach.min(axis=0) - SIGHT, reach.max(axis=0) + SIGHT
    sight = shapely.box(behind, min(right, -HALF_WIDTH), max(ahead, 40.0), max(left, HALF_WIDTH))
    drivable, layers = scene.drivable_map, []
    for layer, colour in style.LAYERS.items():
        lanes = layer in (MapLayer.LANE, MapLayer.LANE_CONNECTOR)
        for on_route in (False, True) if lanes else (None,):
            chosen = (drivable.layer == layer) & (True if on_route is None else drivable.on_route == on_route)
            rings = _visible(drivable.polygons, np.flatnonzero(chosen), sight)
            if rings:
                fill = style.ROUTE if on_route else colour
                layers.append({"fill": fill, "edge": layer == MapLayer.LANE, "rings": rings})
    return layers


def _visible(polygons: Polygons, chosen: np.ndarray, sight: shapely.Geometry) -> list[list[list[list[float]]]]:
    """Rings of the parts of polygons in sight: polygon, ring, point."""
    if not len(chosen):
        return []
    shapes = []
    for p in chosen:
        starts = polygons.ring_start[polygons.polygon_start[p] : polygons.polygon_start[p + 1] + 1]
        rings = [polygons.xy[a:b] for a, b in pairwise(starts)]
        shapes.append(shapely.Polygon(rings[0], rings[1:]))
    seen = shapely.simplify(shapely.intersection(shapely.make_valid(np.array(shapes)), sight), TOLERANCE)
    return [
        [rounded(shapely.get_coordinates(ring)) for ring in shapely.get_rings(part)]
        for part in shapely.get_parts(seen)
        if part.geom_type == "Polygon" and not part.is_empty
    ]


def _agents(scene: Scene, metric: str) -> list[dict[str, Any]]:
    """Tracks at the log's 2 Hz, between which they were interpolated anyway; null where a track is absent."""
    observation = scene.observations[metric]
    agents = []
    for track, kind in enumerate(observation.kind):
        poses = observation.poses[:NUM_STEPS:SIGHTINGS, track]
        present = observation.present[:NUM_STEPS:SIGHTINGS, track]
        if present.any():
            agents.append(
                {
                    "kind": int(kind),
                    "size": rounded(observation.size[track]),
                    "poses": [np.round(pose, 2).tolist() if p else None for pose, p in zip(poses, present)],
                }
            )
    return agents


def _lights(scene: Scene, metric: str) -> list[dict[str, Any]]:
    """On-route connectors that are red at some time: their rings, and whether they are red at the log's 2 Hz."""
    observation = scene.observations[metric]
    if not observation.light_red.size:
        return []
    everywhere = shapely.box(-200, -200, 200, 200)
    return [
        {
            "rings": _visible(observation.light_polygons, np.array([light]), everywhere),
            "red": observation.light_red[:NUM_STEPS:SIGHTINGS, light].astype(int).tolist(),
        }
        for light in range(observation.light_red.shape[1])
    ]


def rounded(points: np.ndarray) -> list:
    """Coordinates to a decimal, which is less than a pixel of any picture here."""
    return np.round(np.asarray(points, dtype=np.float64), 1).tolist()
