"""From a planned trajectory to the driven one: 10 Hz sampling, LQR tracking, kinematic bicycle."""

from mtdrive.simulation.dynamics.interpolation import sample_plans
from mtdrive.simulation.dynamics.simulator import simulate

__all__ = ["sample_plans", "simulate"]
