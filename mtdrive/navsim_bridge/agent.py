"""The agent that navsim's scripts run: `agent=mtdrive_agent agent.planner=FOLDER`. Needs navsim v1.1 or v2.2."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from navsim.agents.abstract_agent import AbstractAgent
from navsim.common.dataclasses import AgentInput, Scene, SensorConfig, Trajectory
from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling

from mtdrive.navsim_bridge.planning import Bridge, BridgeSettings
from mtdrive.settings import planner_settings
from mtdrive.simulation.navsim_format.logs import NUM_HISTORY

SAMPLING = TrajectorySampling(time_horizon=4, interval_length=0.5)


class MTDriveAgent(AbstractAgent):
    """A planner of ours as an agent of navsim's. The arguments are the keys of `config/agent/mtdrive_agent.yaml`."""

    def __init__(
        self,
        planner: str,
        planner_keys: Mapping[str, Any] | None,
        turns: int,
        metric: str,
        feedback_steps: bool | None,
        maps_root: str,
        records: str,
    ) -> None:
        arguments = {"trajectory_sampling": SAMPLING, "requires_scene": turns > 1}
        taken = inspect.signature(AbstractAgent.__init__).parameters  # v1.1 knows no trajectory_sampling
        super().__init__(**{name: value for name, value in arguments.items() if name in taken})
        self._settings = BridgeSettings(
            planner=planner_settings(planner, **(planner_keys or {})),
            turns=turns,
            metric=metric,
            feedback_steps=feedback_steps,
            maps_root=Path(maps_root),
            records=Path(records),
        )
        self._bridge: Bridge | None = None

    def name(self) -> str:
        """Name of the agent."""
        return "mtdrive_agent"

    def get_sensor_config(self) -> SensorConfig:
        """The front image at t0, and nothing else."""
        sensors = SensorConfig.build_no_sensors()
        sensors.cam_f0 = [NUM_HISTORY - 1]
        return sensors

    def initialize(self) -> None:
        """Load the planner."""
        self._bridge = Bridge(self._settings)

    def compute_trajectory(self, agent_input: AgentInput, scene: Scene | None = None) -> Trajectory:
        """Plan a scene. navsim passes the scene if the planner may take several turns."""
        if self._bridge is None:
            self.initialize()
        assert self._bridge is not None
        return Trajectory(self._bridge.plan(agent_input, scene).poses, SAMPLING)
