"""Pictures of scenes and plans.

`figure_scene(scene, image, plans)` is the whole picture, with an episode's turns beside it; `animation.frames` moves
it; `bird_view_png` and `camera_view_jpeg` give its halves as bytes for a page; `viewer.page.write_viewer` makes a page
of many scenes. `plan.assessed_plan` makes a plan to draw from an assessment, `turns.show_turns` those of an episode.
"""

from mtdrive.visualization.figure import bird_view_png, camera_view_jpeg, figure_scene
from mtdrive.visualization.plan import Plan, Role, Violation, assessed_plan

__all__ = ["Plan", "Role", "Violation", "assessed_plan", "bird_view_png", "camera_view_jpeg", "figure_scene"]
