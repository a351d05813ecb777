"""A map in memory: lanes, roadblocks and areas in UTM metres.

A roadblock is a group of parallel lanes, a roadblock connector a group of lane connectors across an intersection. Ids
are feature ids as strings, and rows keep the ascending order of the file, which decides ties in the official planner.
An area that has no geometry in the file is empty here: nothing lies in it, as in nuplan-devkit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from mtdrive.simulation.errors import MTDriveError

_SHOWN = 5  # ids that a note names


@dataclass(frozen=True)
class Lane:
    """A lane or lane connector."""

    id: str
    """Feature id."""

    roadblock: str
    """Id of the roadblock or roadblock connector that it belongs to."""

    polygon: shapely.Polygon | shapely.MultiPolygon | None
    """Its area in UTM [m]; empty where the map has a row without a geometry for it, None where it has not one row."""

    lines: tuple[shapely.LineString | shapely.MultiLineString | None, ...]
    """Its centre lines in UTM [m], one for each row that the map has for it: one in a map that is whole."""

    speed_limit: float | None
    """[m/s]; None where the map has none."""

    successors: tuple[str, ...]
    """Ids of the lanes or connectors that follow."""

    @property
    def center_line(self) -> shapely.LineString | shapely.MultiLineString:
        """The line.

        Raises:
            MTDriveError: the map has no baseline path of some length for this lane, or several, as nuplan-devkit does.
        """
        (line, *others) = self.lines or (None,)
        if others:
            raise MTDriveError(f"Lane {self.id} has {len(self.lines)} baseline paths in the map; fetch the map again.")
        if line is None or line.length == 0.0:
            raise MTDriveError(f"Lane {self.id} has no baseline path in the map; fetch the map again.")
        return line

    @cached_property
    def baseline(self) -> np.ndarray:
        """(n, 3) x, y, heading to the next point; the last point repeats the heading before it.

        Raises:
            MTDriveError: as `center_line`, or the line is in several parts, where nuplan-devkit fails as well.
        """
        if isinstance(self.center_line, shapely.MultiLineString):
            raise MTDriveError(f"The baseline path of lane {self.id} is in several parts; fetch the map again.")
        points = shapely.get_coordinates(self.center_line)
        step = np.diff(points, axis=0)
        heading = np.arctan2(step[:, 1], step[:, 0])
        return np.column_stack([points, np.append(heading, heading[-1])])


@dataclass(frozen=True)
class Roadblock:
    """A roadblock or roadblock connector."""

    id: str
    """Feature id."""

    polygon: shapely.Polygon | shapely.MultiPolygon
    """Its area in UTM [m], which may be empty."""

    is_connector: bool
    """Whether it leads across an intersection."""

    lanes: tuple[str, ...]
    """Ids of its lanes or lane connectors, ascending."""

    incoming: tuple[str, ...]
    """Ids of the roadblocks that lead into it, ascending."""

    outgoing: tuple[str, ...]
    """Ids of the roadblocks that it leads into, ascending."""


class Geometries(Sequence):
    """N geometries, some of which may be empty. A kept map makes them anew from its file each time."""

    def __init__(self, shapes: np.ndarray) -> None:
        self._shapes = shapes

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, row):
        return self._shapes[row]

    def at(self, rows: np.ndarray) -> np.ndarray:
        """(M,) object array of the geometries in some rows (M,)."""
        return self._shapes[rows]

    @cached_property
    def bounds(self) -> np.ndarray:
        """(N, 4) least x, least y, most x, most y [m]; NaN for an empty one."""
        return shapely.bounds(self._shapes)


@dataclass(frozen=True)
class Area:
    """A layer of N polygons."""

    ids: Sequence[str]
    """N feature ids."""

    polygons: Geometries
    """N polygons and multipolygons in UTM [m]."""

    def within_window(self, center: np.ndarray, radius: float) -> list[int]:
        """Rows whose polygon meets the axis-parallel square of half side radius [m], ascending."""
        window = shapely.box(*(center[:2] - radius), *(center[:2] + radius))
        shapely.prepare(window)
        rows = self._near(*shapely.bounds(window))
        return rows[shapely.intersects(window, self.polygons.at(rows))].tolist()

    def holding(self, point: shapely.Point) -> list[int]:
        """Rows whose polygon strictly contains a point, ascending."""
        rows = self._near(point.x, point.y, point.x, point.y)
        return rows[shapely.within(point, self.polygons.at(rows))].tolist()

    def nearest(self, point: shapely.Point) -> int:
        """Row of the polygon that is nearest to a point, as NumPy's sort orders equal distances."""
        distances = shapely.distance(self.polygons.at(np.arange(len(self.polygons))), point)
        return int(np.argsort(distances)[0])

    def _near(self, left: float, bottom: float, right: float, top: float) -> np.ndarray:
        """Rows whose bounds meet a box, ascending."""
        bounds = self.polygons.bounds
        meets = (bounds[:, 0] <= right) & (bounds[:, 2] >= left) & (bounds[:, 1] <= top) & (bounds[:, 3] >= bottom)
        return np.flatnonzero(meets)


@dataclass(frozen=True)
class RoadMap:
    """A map in memory."""

    location: str
    """Name of the location, such as us-ma-boston."""

    lanes: Mapping[str, Lane]
    """Lanes and lane connectors, by id."""

    roadblocks: Mapping[str, Roadblock]
    """Roadblocks and roadblock connectors, by id."""

    lane_area: Area
    """Polygons of the lanes."""

    lane_connector_area: Area
    """Polygons of the lane connectors."""

    roadblock_area: Area
    """Polygons of the roadblocks."""

    connector_area: Area
    """Polygons of the roadblock connectors."""

    intersection_area: Area
    """Polygons of the intersections."""

    carpark_area: Area
    """Polygons of the car parks."""

    without_geometry: dict[str, list[str]]
    """Ids of the features that have no geometry in the file, by layer."""

    @property
    def notes(self) -> list[str]:
        """A sentence for each layer of which something is left out."""
        return [
            f"Map {self.location} has no geometry for {len(ids)} of layer {layer} "
            f"({', '.join(ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''}); nothing lies in them, as in navsim."
            for layer, ids in self.without_geometry.items()
        ]

    def lane(self, id_: str) -> Lane:
        """Raises MTDriveError when the map has no such lane or lane connector."""
        try:
            return self.lanes[id_]
        except KeyError:
            raise MTDriveError(f"Map {self.location} has a polygon of lane {id_}, but no such lane.") from None

    def roadblock(self, id_: str) -> Roadblock:
        """Raises MTDriveError when the map has no such roadblock."""
        try:
            return self.roadblocks[id_]
        except KeyError:
            raise MTDriveError(f"Map {self.location} has no roadblock {id_}: log and map do not match.") from None
