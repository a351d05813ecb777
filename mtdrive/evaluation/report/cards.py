"""The cards of the gallery: one scene with the plans of one episode drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mtdrive.evaluation.report.data import SceneCard, Turn
from mtdrive.evaluation.report.gallery import Choice
from mtdrive.planner.answer import NUM_POSES, parse_answer
from mtdrive.simulation.assessment import assess
from mtdrive.simulation.feedback.structured import Source
from mtdrive.simulation.scene import Scene
from mtdrive.visualization import Plan, Role, assessed_plan, bird_view_png, camera_view_jpeg
from mtdrive.visualization.style import plan_colours

CAMERA_WIDTH = 960  # [px]


def scene_card(
    scene: Scene, image: np.ndarray, family: str, choice: Choice, turns: Sequence[Turn], metric: str, source: Source
) -> SceneCard:
    """Draw the turns' plans, and the human's, into the front image (H, W, 3) uint8 RGB and the bird's-eye view.

    metric, source: of the feedback, which decides which violation is marked.
    """
    poses = [parse_answer(turn.answer).poses for turn in turns]
    shown = [index for index, plan in enumerate(poses) if plan is not None]
    assessed = assess(scene, np.stack([poses[i] for i in shown]), metric=metric, source=source) if shown else []
    plans = [assessed_plan(f"turn {i + 1}", poses[i], found) for i, found in zip(shown, assessed, strict=True)]
    colours = dict(zip(shown, plan_colours(plans), strict=True))
    human = scene.human_poses[:NUM_POSES]
    if len(human):
        plans.insert(0, Plan("human", human, role=Role.HUMAN))
    return SceneCard(
        token=scene.token,
        family=family,
        reason=choice.reason,
        camera_view=camera_view_jpeg(scene, image, plans, CAMERA_WIDTH),
        bird_view=bird_view_png(scene, plans),
        turns=tuple(replace(turn, colour=colours.get(index, "")) for index, turn in enumerate(turns)),
    )
