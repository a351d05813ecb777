"""Drivable area compliance (DAC): 0 if a corner of the footprint ever leaves the road, else 1.

The road is every roadblock, intersection and car park; lane connectors and generic drivable areas do not count
(navsim `PDMScorer._calculate_drivable_area_compliance`, v1.1 and v2.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.geometry.frames import box_corners, translate_forward
from mtdrive.simulation.geometry.polygons import unpack
from mtdrive.simulation.metrics.facts import EGO_SIZE, when_and_where
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import CORNERS, Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.scene import STEP, MapLayer, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

DRIVABLE = (MapLayer.ROADBLOCK, MapLayer.INTERSECTION, MapLayer.CARPARK_AREA, MapLayer.DRIVABLE_AREA)


def drivable_area_compliance(motion: Motion, surroundings: Surroundings) -> Measurement:
    """DAC of N plans: 1 or 0. Events: time [s] at which a corner first leaves the road, and its index in CORNERS."""
    off_road = motion.areas.off_road
    left = off_road.any(axis=1)
    step = (off_road != 0).argmax(axis=1)
    corners_off = off_road[np.arange(len(off_road)), step]
    corner = (corners_off[:, None] >> np.arange(len(CORNERS)) & 1).argmax(axis=1)
    return Measurement(
        np.where(left, 0.0, 1.0),
        {"off_road_time": np.where(left, step * STEP, np.inf), "off_road_corner": np.where(left, corner, -1)},
    )


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    """The side on which the plan first leaves the road, and how far off it [m] a corner gets."""
    time = float(scores.events["off_road_time"][row])
    driven = scores.events["states"][row, round(time / STEP) :, :3]
    corners = box_corners(translate_forward(driven, vehicle.REAR_AXLE_TO_CENTER), EGO_SIZE)
    drivable = unpack(scene.drivable_map.polygons)[np.isin(scene.drivable_map.layer, DRIVABLE)]
    depth = 0.0
    if len(drivable):
        points = shapely.points(corners.reshape(-1, 2))
        depth = shapely.STRtree(drivable).query_nearest(points, return_distance=True, all_matches=False)[1].max()
    return {
        **when_and_where(scores, row, time),
        "quantity": "farthest corner off the road",
        "measured": float(depth),
        "limit": 0.0,
        "side": CORNERS[scores.events["off_road_corner"][row]].split()[1],
    }


DRIVABLE_AREA_COMPLIANCE = Metric(
    column="drivable_area_compliance",
    short="DAC",
    label="off road",
    measure=drivable_area_compliance,
    sentence="Off road at {time} on the {side} by {measured}.",
    rank=10,
    facts=_facts,
    terms=("left", "right"),
    events={
        "off_road_time": "[s] first corner off the road, inf if none",
        "off_road_corner": "index of that corner in `metrics.motion.CORNERS`, -1 if none",
    },
    is_safety=True,
)
