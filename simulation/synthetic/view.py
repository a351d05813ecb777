"""What the front camera has before it: a site and its actors at one moment, told to the renderer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.synthetic.placement import Placement
from mtdrive.simulation.synthetic.recording import RecordedDrive
from mtdrive.simulation.synthetic.rendering.scene import Atmosphere, Box, LightState, RenderScene, TrafficLight
from mtdrive.simulation.vehicle import REAR_AXLE_TO_FRONT

BRAKE_LIGHT = -0.6  # [m/s^2] slowing by more than this shows
RANGE = 150.0  # [m] actors and scenery farther away are left out


@dataclass(frozen=True)
class _EgoFrame:
    """From the site frame to the ego frame."""

    pose: np.ndarray
    """(3,) pose of the ego in the site frame."""

    side: float
    """-1 mirrors the site (left-hand traffic), 1 does not."""

    def points(self, xy: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(self.pose[2]), np.sin(self.pose[2])
        x, y = xy[..., 0] - self.pose[0], xy[..., 1] - self.pose[1]
        return np.stack([cos * x + sin * y, self.side * (cos * y - sin * x)], axis=-1)

    def heading(self, heading: float) -> float:
        return float(self.side * (heading - self.pose[2]))


def random_atmosphere(rng: np.random.Generator) -> Atmosphere:
    """Sky and light of a drive."""
    return Atmosphere(
        float(rng.uniform(-np.pi, np.pi)),
        float(rng.uniform(0.3, 1.2)),
        float(rng.uniform(0.1, 0.6)),
        float(rng.uniform(0.0, 0.9)),
    )


def render_scene(
    drive: RecordedDrive, placement: Placement, step: int, atmosphere: Atmosphere, seed: int
) -> RenderScene:
    """The moment TIMES[step] of a drive in the ego frame of that moment."""
    side = -1.0 if placement.location.left_hand else 1.0
    frame = _EgoFrame(drive.plan.poses[step], side)
    site = drive.situation.site
    boxes = []
    for agent in drive.agents:
        x, y = frame.points(agent.poses[step, :2])
        if agent.visible[step] and -10.0 < x < RANGE:
            speed = np.hypot(*agent.velocity[step])
            slowing = agent.halted or agent.acceleration[step] < BRAKE_LIGHT
            boxes.append(
                Box(
                    agent.kind,
                    float(x),
                    float(y),
                    frame.heading(agent.poses[step, 2]),
                    *agent.size,
                    agent.colour,
                    braking=agent.kind == ObjectType.VEHICLE and bool(slowing),
                    walking=speed > 0.3,
                )
            )
    lights = []
    for signal in site.signals:
        x, y = frame.points(np.array([signal.x, signal.y]))
        state = drive.situation.lights[signal.group][step] if signal.group in drive.situation.lights else LightState.OFF
        lights.append(TrafficLight(float(x), float(y), frame.heading(signal.heading), state, side * signal.arm))
    scenery = []
    for thing in site.scenery:
        x, y = frame.points(np.array([thing.x, thing.y]))
        if REAR_AXLE_TO_FRONT - 20 < x < RANGE:
            scenery.append(replace(thing, x=float(x), y=float(y), heading=frame.heading(thing.heading)))
    return RenderScene(
        surfaces=tuple(replace(surface, xy=frame.points(surface.xy)) for surface in site.surfaces),
        markings=tuple(replace(marking, xy=frame.points(marking.xy)) for marking in site.markings),
        crosswalks=tuple(
            replace(crosswalk, xy=frame.points(crosswalk.xy), heading=frame.heading(crosswalk.heading))
            for crosswalk in site.crosswalks
        ),
        kerbs=tuple(frame.points(kerb) for kerb in site.kerbs),
        boxes=tuple(boxes),
        traffic_lights=tuple(lights),
        scenery=tuple(scenery),
        atmosphere=atmosphere,
        seed=seed,
    )
