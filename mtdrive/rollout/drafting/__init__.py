"""Drafting: several tokens of an answer in one pass of the model, with the distribution of answers left as it is.

A drafter is one module here and one line in `DRAFTERS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mtdrive.planner.models import Planner
from mtdrive.rollout.drafting.mtp import MtpProposer
from mtdrive.rollout.drafting.previous import PreviousProposer
from mtdrive.rollout.drafting.proposal import Proposer
from mtdrive.rollout.drafting.template import AnswerForm, TemplateProposer
from mtdrive.rollout.prefix_cache import PrefixCache
from mtdrive.rollout.sampling import SamplingParams
from mtdrive.simulation.errors import MTDriveError

NONE = "none"

# Makes the proposer of one generation session, which keeps its keys and values in the session's cache.
Drafter = Callable[[PrefixCache, SamplingParams, torch.Generator | None], Proposer]


def _template(planner: Planner) -> Drafter:
    form = AnswerForm(planner)
    return lambda cache, sampling, generator: TemplateProposer(form)


def _previous(planner: Planner) -> Drafter:
    return lambda cache, sampling, generator: PreviousProposer(planner)


def _mtp(planner: Planner) -> Drafter:
    heads = planner.draft_heads
    if heads is None:
        raise MTDriveError(
            f"draft=mtp needs a planner with draft heads, which {planner.card.base} has not; use draft=template, "
            "previous or none."
        )
    return lambda cache, sampling, generator: MtpProposer(heads, sampling, cache, generator)


# Name -> the drafter for a planner, or MTDriveError where it lacks something; None computes a token in each pass.
DRAFTERS: dict[str, Callable[[Planner], Drafter | None]] = {
    NONE: lambda planner: None,
    "template": _template,
    "previous": _previous,
    "mtp": _mtp,
}
