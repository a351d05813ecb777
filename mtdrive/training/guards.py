"""Steps that cannot be right end a training run before they change a weight."""

from __future__ import annotations

import math

import torch
from transformers import Trainer

from mtdrive.simulation.errors import MTDriveError


class GuardedSteps(Trainer):
    """A Trainer that stops at a step without a finite loss and gradient, or if the first one with something
    to learn from has no gradient.

    All processes stop at the same step, because what is checked has been reduced over them.
    """

    _step_loss: torch.Tensor | float = 0.0
    _has_learnt = False

    def train(self, *args, **kwargs):
        """As `Trainer.train`.

        Raises:
            MTDriveError: nothing is trainable, or a step that cannot be right.
        """
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise MTDriveError("No parameter of the planner is trainable; unfreeze some, or give it a LoRA adapter.")
        return super().train(*args, **kwargs)

    def training_step(self, *args, **kwargs):
        """As `Trainer.training_step`; remembers the loss until the step's last pass."""
        loss = super().training_step(*args, **kwargs)
        self._step_loss = self._step_loss + loss
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        """`Trainer` calls this between the last backward pass of a step and its update."""
        norm = super()._get_grad_norm(model, grad_norm)
        loss, self._step_loss = float(self.accelerator.reduce(self._step_loss)), 0.0
        if norm is None:  # DeepSpeed, before its first update
            return norm
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise MTDriveError(
                f"Step {self.state.global_step + 1} has a loss of {loss:.4g} and a gradient norm of {float(norm):.4g}, "
                "so the weights were left as they were; lower learning_rate and train again in another out=."
            )
        if norm == 0 and not self._has_learnt and self._can_learn():
            raise MTDriveError(
                f"Step {self.state.global_step + 1} has targets but a gradient of 0, so nothing would be learnt; "
                "see which parameters of the planner are trainable."
            )
        self._has_learnt |= float(norm) > 0
        return norm

    def _can_learn(self) -> bool:
        """Whether this step's samples should move the weights."""
        return True

    def save_model(self, *args, **kwargs):
        """As `Trainer.save_model`, which also saves the weights of a checkpoint.

        Raises:
            MTDriveError: a weight is not finite.
        """
        sound = torch.tensor([_finite(p) for p in self.model.parameters()]).all().int().to(self.args.device)
        if self.accelerator.reduce(sound) < self.accelerator.num_processes:
            raise MTDriveError(
                f"Step {self.state.global_step} left weights that are not finite, which are not saved; "
                "lower learning_rate and train again in another out=."
            )
        super().save_model(*args, **kwargs)


def check_counts(step: int, counted: float, what: str, cure: str) -> None:
    """Stop at a step that has nothing to learn from.

    Raises:
        MTDriveError: counted, the number of `what` over all processes, is 0.
    """
    if not counted:
        raise MTDriveError(f"Step {step} has no {what}, so there is nothing to learn; {cure}.")


def _finite(parameter: torch.nn.Parameter) -> bool:
    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter  # a shard of FSDP's
    return bool(torch.isfinite(local).all())
