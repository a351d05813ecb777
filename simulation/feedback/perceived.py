"""The scene as known at t0: present detections, extrapolated. The honest source of feedback at test time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtdrive.simulation.runtime.identity_cache import cache_by_identity
from mtdrive.simulation.scene import STEP, ObjectType, Observation, Scene


@cache_by_identity
def perceived_scene(scene: Scene, metric: str) -> Scene:
    """The scene without its recorded future: extrapolated traffic for `metric`, and no human plan."""
    observations = {**scene.observations, metric: perceived_observation(scene, metric)}
    return replace(scene, observations=observations, human_poses=np.empty((0, 3)))


def perceived_observation(scene: Scene, metric: str = "pdms_v1") -> Observation:
    """Traffic in which every agent keeps its velocity and heading, and every light its colour.

    Made from the detections at t0 alone; nothing of the log's future enters. Objects of static classes stay where they
    are, as in the scorer.
    """
    recorded = scene.observations[metric]
    steps = len(recorded.poses)
    moves = np.array([ObjectType(kind).is_agent for kind in scene.current_kind], dtype=bool)
    velocity = np.where(moves[:, None], scene.current_velocity, 0.0)
    poses = np.repeat(scene.current_boxes[None, :, :3], steps, axis=0)
    poses[:, :, :2] += (np.arange(steps) * STEP)[:, None, None] * velocity
    return Observation(
        tokens=scene.current_tokens,
        kind=scene.current_kind,
        size=scene.current_boxes[:, 3:5],
        first_heading=scene.current_boxes[:, 2],
        first_speed=np.hypot(velocity[:, 0], velocity[:, 1]),
        poses=poses,
        present=np.ones((steps, len(moves)), dtype=bool),
        light_ids=recorded.light_ids,
        light_polygons=recorded.light_polygons,
        light_red=np.repeat(recorded.light_red[:1], steps, axis=0),
        ignored=np.isin(scene.current_tokens, recorded.tokens[recorded.ignored & recorded.present[0]]),
    )
