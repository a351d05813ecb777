"""MTDrive: multi-turn reinforcement learning of driving planners on NAVSIM."""

__version__ = "0.1.0"
