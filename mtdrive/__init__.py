"""MTDrive: multi-turn reinforcement learning of driving planners on NAVSIM.

The public names are those of `__all__`; docs/api.md shows them. Each is imported when it is first used, so that
`import mtdrive` costs nothing. None of them needs a deep-learning stack.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtdrive.simulation.baselines import constant_velocity_plan as constant_velocity_plan
    from mtdrive.simulation.baselines import human_plan as human_plan
    from mtdrive.simulation.baselines import pdm_closed_plan as pdm_closed_plan
    from mtdrive.simulation.baselines import standstill_plan as standstill_plan
    from mtdrive.simulation.environment import SceneEnvironment as SceneEnvironment
    from mtdrive.simulation.errors import MTDriveError as MTDriveError
    from mtdrive.simulation.feedback.assessment import Assessment as Assessment
    from mtdrive.simulation.feedback.assessment import assess as assess
    from mtdrive.simulation.feedback.text import render_text as render_text
    from mtdrive.simulation.navsim_format.images import read_image as read_image
    from mtdrive.simulation.scene import Scene as Scene
    from mtdrive.simulation.scene_cache.store import SceneStore as SceneStore
    from mtdrive.simulation.scoring import Scores as Scores
    from mtdrive.simulation.scoring import score as score
    from mtdrive.simulation.submission.files import Submission as Submission
    from mtdrive.simulation.submission.files import read_submission as read_submission
    from mtdrive.simulation.submission.scoring import SubmissionScores as SubmissionScores
    from mtdrive.simulation.submission.scoring import score_submission as score_submission
    from mtdrive.visualization.figure import figure_scene as figure_scene
    from mtdrive.visualization.plan import assessed_plan as assessed_plan

__version__ = "0.1.0"

_HOMES = {  # of each public name, the module that defines it
    "SceneStore": "mtdrive.simulation.scene_cache.store",
    "Scene": "mtdrive.simulation.scene",
    "read_image": "mtdrive.simulation.navsim_format.images",
    "score": "mtdrive.simulation.scoring",
    "Scores": "mtdrive.simulation.scoring",
    "assess": "mtdrive.simulation.feedback.assessment",
    "Assessment": "mtdrive.simulation.feedback.assessment",
    "render_text": "mtdrive.simulation.feedback.text",
    "constant_velocity_plan": "mtdrive.simulation.baselines",
    "standstill_plan": "mtdrive.simulation.baselines",
    "human_plan": "mtdrive.simulation.baselines",
    "pdm_closed_plan": "mtdrive.simulation.baselines",
    "SceneEnvironment": "mtdrive.simulation.environment",
    "read_submission": "mtdrive.simulation.submission.files",
    "Submission": "mtdrive.simulation.submission.files",
    "score_submission": "mtdrive.simulation.submission.scoring",
    "SubmissionScores": "mtdrive.simulation.submission.scoring",
    "assessed_plan": "mtdrive.visualization.plan",
    "figure_scene": "mtdrive.visualization.figure",
    "MTDriveError": "mtdrive.simulation.errors",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
