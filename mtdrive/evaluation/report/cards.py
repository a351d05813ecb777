"""The cards of the gallery: one scene with the plans of one episode."""

from __future__ import annotations

import numpy as np

from mtdrive.evaluation.report.data import SceneCard
from mtdrive.evaluation.report.gallery import Choice
from mtdrive.simulation.baselines import NUM_POSES
from mtdrive.simulation.scene import Scene
from mtdrive.visualization import Plan, Role, bird_view_png, camera_view_jpeg
from mtdrive.visualization.records import EpisodeRecord, Recording
from mtdrive.visualization.turns import show_turns

CAMERA_WIDTH = 960  # [px]


def scene_card(
    scene: Scene, image: np.ndarray, choice: Choice, recording: Recording, episode: EpisodeRecord
) -> SceneCard:
    """Draw the plans of all turns, and the human's, into the front image and the bird's-eye view.

    Args:
        scene: the scene.
        image: (H, W, 3) uint8 RGB, its front image.
        choice: why it is shown.
        recording: what the episode is from; its feedback source decides which violation is marked.
        episode: the episode on the scene.
    """
    turns = show_turns(scene, episode, recording.metric, recording.source)
    plans = [turn.plan for turn in turns if turn.plan is not None]
    human = scene.human_poses[:NUM_POSES]
    if len(human):
        plans.insert(0, Plan("human", human, role=Role.HUMAN))
    return SceneCard(
        token=scene.token,
        family=episode.family,
        reason=choice.reason,
        camera_view=camera_view_jpeg(scene, image, plans, CAMERA_WIDTH, recording.metric),
        bird_view=bird_view_png(scene, plans, metric=recording.metric),
        turns=turns,
    )
