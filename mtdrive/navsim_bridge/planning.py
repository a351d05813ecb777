"""What the agent does, apart from navsim's classes: a plan for every scene, and a record of each.

navsim's scripts keep no plan of an agent, and drop a scene whose agent raises. So every plan is written to a file as
it is made, and an answer that holds none is replaced by constant velocity, which is logged and counted.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path

from mtdrive.navsim_bridge.inputs import AgentInput, sight_of
from mtdrive.navsim_bridge.present import NavsimScene, present_scene
from mtdrive.planner.fits import feedback_steps_for
from mtdrive.planner.models import load_planner
from mtdrive.planner.settings import PlannerSettings
from mtdrive.rollout.final_plan import FALLBACK, Driver, FinalPlan
from mtdrive.simulation.errors import MTDriveError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BridgeSettings:
    """How the planner drives; `config/agent/mtdrive_agent.yaml` has the defaults and says more."""

    planner: PlannerSettings
    """The planner."""

    turns: int
    """That it may take; more than one needs the scene."""

    metric: str
    """Score version of the feedback."""

    feedback_steps: bool | None
    """Whether feedback tells changes second by second; None for what the planner has learned."""

    maps_root: Path
    """navsim's `NUPLAN_MAPS_ROOT`, needed for feedback."""

    records: Path
    """Folder for the record of the plans."""


class Bridge:
    """A loaded planner that makes a plan of every `AgentInput` it is given.

    Attributes:
        made: number of plans so far.
        replaced: number of those that are constant velocity, by reason.
        without_feedback: number of scenes of several turns that had to do with the first one.
        record: file with a line for each plan: the hash of the front image, the poses, and why constant velocity
            drives, if it does.

    Raises:
        MTDriveError: the planner does not load, or does not fit what it is asked to do.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        planner = load_planner(settings.planner)
        self._settings, self._driver = settings, Driver(planner)
        self._feedback_steps = feedback_steps_for(planner.card, settings.feedback_steps, settings.planner)
        self.made, self.without_feedback = 0, 0
        self.replaced: dict[str, int] = {}
        settings.records.mkdir(parents=True, exist_ok=True)
        self.record = settings.records / f"mtdrive_agent-{uuid.uuid4().hex[:12]}.jsonl"

    def plan(self, agent_input: AgentInput, scene: NavsimScene | None = None) -> FinalPlan:
        """The plan of one scene.

        Args:
            scene: needed for more than one turn; what it knows of the time after t0 is not read.

        Raises:
            MTDriveError: the input is not of navsim's form.
        """
        sight = sight_of(agent_input)
        plan = None
        if scene is not None and self._settings.turns > 1 and sight.image is not None:
            try:
                present = present_scene(scene, self._settings.maps_root)
            except MTDriveError as error:
                self.without_feedback += 1
                logger.warning("No feedback on a scene, which keeps its first plan: %s", error)
            else:
                plan = self._driver.multi_turn(
                    present, sight.image, self._settings.turns, self._settings.metric, self._feedback_steps
                )
        if plan is None:
            [plan] = self._driver.single_turn([sight])
        self._note(plan, sight.view.image_hash)
        return plan

    def _note(self, plan: FinalPlan, image: str) -> None:
        self.made += 1
        if plan.fallback:
            self.replaced[plan.fallback] = self.replaced.get(plan.fallback, 0) + 1
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(self.replaced.items()))
            logger.warning("%s drives in place of the planner (so far, of %d scenes: %s)", FALLBACK, self.made, counts)
        line = {"image": image, "fallback": plan.fallback, "poses": plan.poses.tolist()}
        with self.record.open("a") as file:
            file.write(json.dumps(line) + "\n")
