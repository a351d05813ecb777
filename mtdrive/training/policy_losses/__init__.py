"""Policy losses: (tokens, config) -> a loss for each token that the planner wrote, by name.

They work on flat tokens (see `Tokens`); the trainer adds the losses up and divides by the number of tokens that count,
over all passes and processes. A loss that rejects tokens says which before the first pass, so that they leave that
number; `accept` therefore reads no `log_probs`. A new policy loss is one file and one line here.
"""

from __future__ import annotations

from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.policy_losses.clip import CLIP
from mtdrive.training.policy_losses.tokens import PolicyLoss, PolicyLossConfig, Tokens

POLICY_LOSSES: dict[str, PolicyLoss] = {
    "clip": CLIP,
}


def policy_loss(name: str) -> PolicyLoss:
    """The policy loss of that name.

    Raises:
        MTDriveError: unknown name.
    """
    if name not in POLICY_LOSSES:
        raise MTDriveError(f"There is no policy loss {name!r}; choose from {', '.join(POLICY_LOSSES)}.")
    return POLICY_LOSSES[name]


__all__ = ["POLICY_LOSSES", "PolicyLoss", "PolicyLossConfig", "Tokens", "policy_loss"]
