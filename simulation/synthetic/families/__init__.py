"""Scenario families: one module each, one registry line each.

A family's `build(rng, hidden)` scripts one situation on a site of its own. With `hidden`, something goes wrong
after t0 that cannot be told from the moment t0; without, the same street stays calm or its danger shows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtdrive.simulation.synthetic.families import (
    cut_in,
    cyclist,
    lead_braking,
    obstacle,
    oncoming_narrow,
    pedestrian,
    plain,
    red_light,
    sharp_curve,
    stationary_queue,
    unprotected_turn,
)
from mtdrive.simulation.synthetic.recording import Situation

FAMILIES: dict[str, Callable[[np.random.Generator, bool], Situation]] = {
    "lead_braking": lead_braking.build,
    "cut_in": cut_in.build,
    "oncoming_narrow": oncoming_narrow.build,
    "pedestrian": pedestrian.build,
    "cyclist": cyclist.build,
    "red_light": red_light.build,
    "unprotected_turn": unprotected_turn.build,
    "obstacle": obstacle.build,
    "stationary_queue": stationary_queue.build,
    "sharp_curve": sharp_curve.build,
    "plain": plain.build,
}
