"""A site: one place of the synthetic world, with its lane graph (map) and its paint (picture), in the site frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import shapely

from mtdrive.simulation.synthetic.curves import Curve, band, join
from mtdrive.simulation.synthetic.rendering.scene import Crosswalk, Marking, Material, Scenery, Surface

KERB_MARGIN = 0.4  # [m] asphalt between the outermost lane and the kerb
DASHES = (3.0, 6.0)  # [m] painted, gap


@dataclass(frozen=True, eq=False)
class Lane:
    """A lane of a lane group (roadblock)."""

    name: str
    """Name within the site."""

    group: str
    """Name of its lane group."""

    index: int
    """Position in the group; 0 is the leftmost."""

    curve: Curve
    """Centre line, in the direction of travel."""

    width: float
    """[m]."""

    speed_limit: float | None
    """[m/s]; None if unknown."""


@dataclass(frozen=True, eq=False)
class Connector:
    """A lane connector through an intersection."""

    name: str
    """Name within the site."""

    group: str
    """Name of its group connector."""

    intersection: str
    """Name of the intersection."""

    start: str
    """Name of the lane that it comes from."""

    end: str
    """Name of the lane that it leads to."""

    turn: str
    """`left`, `straight` or `right`."""

    curve: Curve
    """Centre line, in the direction of travel."""

    width: float
    """[m]."""

    speed_limit: float | None
    """[m/s]; None if unknown."""


@dataclass(frozen=True, eq=False)
class GroupConnector:
    """A roadblock connector: all lane connectors between two lane groups."""

    name: str
    """Name within the site."""

    intersection: str
    """Name of the intersection."""

    start: str
    """Name of the lane group that it comes from."""

    end: str
    """Name of the lane group that it leads to."""

    ring: np.ndarray
    """(N, 2) closed outline [m]."""


@dataclass(frozen=True, eq=False)
class Signal:
    """A traffic light; see `rendering.scene.TrafficLight`."""

    group: str
    """Name of the lane group that it stops."""

    x: float
    """x of the pole's foot [m]."""

    y: float
    """y of the pole's foot [m]."""

    heading: float
    """Direction of travel [rad] of the traffic that it stops."""

    arm: float
    """Length [m] of the arm from the pole's top, positive to the left of that traffic."""


@dataclass(frozen=True)
class RoadEdge:
    """What lies beside the lanes, from the road outwards."""

    parking: float = 0.0
    """Width [m] of a parking strip."""

    drivable: bool = False
    """Whether the strip is a car park of the map; otherwise it is not part of the drivable area."""

    pavement: float = 2.5
    """Width [m] of the pavement; 0 for a grass verge."""


PAVEMENT = RoadEdge()


@dataclass(eq=False)
class Site:
    """Lane graph, areas and scenery. Names are keys within the site; rings are closed (N, 2) arrays [m]."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    """Lanes by name."""

    groups: dict[str, np.ndarray] = field(default_factory=dict)
    """Lane group -> its ring."""

    connectors: dict[str, Connector] = field(default_factory=dict)
    """Lane connectors by name."""

    group_connectors: dict[str, GroupConnector] = field(default_factory=dict)
    """Group connectors by name."""

    intersections: dict[str, np.ndarray] = field(default_factory=dict)
    """Intersection -> its ring."""

    crosswalks: list[Crosswalk] = field(default_factory=list)
    """Zebra crossings, on the map and in the picture."""

    carparks: list[np.ndarray] = field(default_factory=list)
    """Rings of the car parks."""

    walkways: list[np.ndarray] = field(default_factory=list)
    """Rings of the pavements."""

    signals: list[Signal] = field(default_factory=list)
    """Traffic lights."""

    surfaces: list[Surface] = field(default_factory=list)
    """Ground of the picture."""

    markings: list[Marking] = field(default_factory=list)
    """Paint of the picture."""

    kerbs: list[np.ndarray] = field(default_factory=list)
    """Polylines (N, 2) [m] of the picture's kerbs."""

    scenery: list[Scenery] = field(default_factory=list)
    """Trees, bushes, lamp posts and buildings of the picture."""

    @cached_property
    def drivable(self) -> shapely.Geometry:
        """The area that counts as drivable for NAVSIM (roadblocks, intersections, car parks), as one geometry."""
        rings = [*self.groups.values(), *self.intersections.values(), *self.carparks]
        # The tiny overlap closes the seams, on which the official point-in-polygon test is as good as never.
        area = shapely.union_all([shapely.Polygon(ring).buffer(1e-3) for ring in rings])
        shapely.prepare(area)
        return area

    @cached_property
    def junctions(self) -> shapely.Geometry:
        """Union of the intersections."""
        area = shapely.union_all([shapely.Polygon(ring) for ring in self.intersections.values()])
        shapely.prepare(area)
        return area

    def path(self, route: Sequence[str]) -> Curve:
        """The joined centre line of lanes and connectors that follow each other."""
        return join([(self.lanes.get(name) or self.connectors[name]).curve for name in route])

    def roadblocks(self, route: Sequence[str]) -> list[str]:
        """Names of the lane groups and group connectors along a route."""
        return list(dict.fromkeys((self.lanes.get(name) or self.connectors[name]).group for name in route))

    def add_road(
        self,
        name: str,
        curve: Curve,
        *,
        forward: int,
        backward: int,
        lane_width: float,
        speed_limit: float | None,
        right: RoadEdge = PAVEMENT,
        left: RoadEdge = PAVEMENT,
        centre: str = "solid",
    ) -> None:
        """Add a road along `curve`, which separates the directions.

        Forward lanes form group `name` (lanes name/0, name/1, ... from the centre outwards), backward lanes
        group `name_back`. centre: "solid", "dashed" or "none" paint between the directions.
        """
        for group, count, side in ((name, forward, -1.0), (f"{name}_back", backward, 1.0)):
            for index in range(count):
                line = curve.parallel(side * (index + 0.5) * lane_width)
                line = line if side < 0 else line.reversed()
                lane = Lane(f"{group}/{index}", group, index, line, lane_width, speed_limit)
                self.lanes[lane.name] = lane
            if count:
                self.groups[group] = band(curve, *sorted((0.0, side * count * lane_width), reverse=True))
        edges = (backward * lane_width, 1.0, left), (forward * lane_width, -1.0, right)
        outer = [lanes + edge.parking + KERB_MARGIN for lanes, _, edge in edges]
        for (lanes, side, edge), kerb in zip(edges, outer, strict=True):
            if edge.pavement:
                ring = band(curve, side * kerb, side * (kerb + edge.pavement))
                self.walkways.append(ring)
                self.surfaces.insert(0, Surface(Material.PAVEMENT, ring))
            self.kerbs.append(curve.at(curve.s, side * kerb)[:, :2])
            if edge.parking and edge.drivable:
                self.carparks.append(band(curve, *sorted((side * (lanes + edge.parking), side * lanes), reverse=True)))
        self.surfaces.append(Surface(Material.ROAD, band(curve, outer[0], -outer[1])))
        for lanes, side, edge in edges:
            if edge.parking:
                ring = band(curve, side * lanes, side * (lanes + edge.parking))
                self.surfaces.append(Surface(Material.PARKING, ring))
            if lanes:
                self.markings.append(Marking(curve.at(curve.s, side * (lanes - 0.1))[:, :2]))
        for count, side in ((forward, -1.0), (backward, 1.0)):
            for index in range(1, count):
                self.markings.append(Marking(curve.at(curve.s, side * index * lane_width)[:, :2], dash=DASHES))
        if forward and backward and centre != "none":
            middle = curve.at(curve.s)[:, :2]
            self.markings.append(Marking(middle, dash=DASHES if centre == "dashed" else None, yellow=True))
