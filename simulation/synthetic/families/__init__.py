"""Scenario families: one module each, one registry line each.

A family's `build(rng, hidden)` scripts one situation on a site of its own. With `hidden`, something goes wrong
after t0 that cannot be told from the moment t0; without, the same street stays calm or its danger shows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtdrive.simulation.synthetic.drive import Situation
from mtdrive.simulation.synthetic.families import lead_braking

FAMILIES: dict[str, Callable[[np.random.Generator, bool], Situation]] = {
    "lead_braking": lead_braking.build,
}
