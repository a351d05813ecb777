"""Scenes, maps, PDM scoring, feedback, environments and the synthetic world.

Imported as `mtdrive.simulation`; needs no deep-learning stack.
"""
