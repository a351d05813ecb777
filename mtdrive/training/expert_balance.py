"""Balance of sparse experts, and what a log says of them (Step 3.5 Flash, arXiv 2602.10604, sections 2.2 and 5.2.1).

A router chooses a token's experts by its scores plus a bias of each expert, which no gradient reaches. After every
optimiser step, the bias of experts with less than the mean load of their layer rises by a fixed rate and that of those
with more falls, without an auxiliary loss (Wang et al., arXiv 2408.15664). Loads are those of the whole step, over all
its passes and processes; padding does not count.

Under expert parallelism, consecutive experts share a device, and a device must not wait for another within one pass.
`group_loss` balances these groups of experts, pass by pass; it is off unless `groups` says how many there are.

A line of the log has, over all steps since the line before:

    experts/layer_i/share_j                        share of the choices of layer i's router that fell on expert j
    experts/layer_i/group_share_g                  likewise on group g of experts, if there are groups
    experts/largest_share, experts/smallest_share  over all layers; all equal would be 1 / experts
    experts/largest_group_share                    over all layers; all equal would be 1 / groups
    experts/dead                                   experts, of all layers, that no token went to
    experts/confidence                             routing confidence: mean share, in [0, 1], of the sum of a token's
                                                   scores that is on the experts it went to; low ones warn of
                                                   unstable reinforcement learning
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback

from mtdrive.rollout.shared_prefix import core
from mtdrive.simulation.errors import MTDriveError


@dataclass(frozen=True)
class ExpertBalance:
    """How experts are balanced; the numbers are those of the paper's pre-training."""

    balance_rate: float = 1e-3
    """Change of a router's bias in an optimiser step (scores are between 0 and 1); 0 leaves the biases alone."""

    groups: int = 1
    """Groups of consecutive experts that share a device, as many in each; 1: no balance of groups."""

    group_weight: float = 1e-3
    """Weight of `group_loss`, summed over layers, in the training loss; 0: no balance of groups."""


def bias_update(loads: Tensor, rate: float) -> Tensor:
    """What is added to the biases (L, E) of routers after a step in which their experts had these loads (L, E)."""
    return rate * torch.sign(loads.mean(-1, keepdim=True) - loads)


def group_loss(scores: Tensor, chosen: Tensor, groups: int) -> Tensor:
    """The paper's equation 1: G * sum over groups g of f_g * p_g, with f_g the share of choices and p_g the mean
    probability that fell on the group. It is 1 if all groups are equal, and G if all goes to one.

    Args:
        scores: (N, E) of a router for each token and expert, not negative; the gradient goes through them.
        chosen: (N, K) experts of each token.
        groups: G, which divides E; each has E / G consecutive experts.
    """
    probabilities = scores / scores.sum(-1, keepdim=True)
    shares = torch.bincount(chosen.flatten(), minlength=scores.shape[1]) / chosen.numel()
    per_group = [values.view(groups, -1).sum(-1) for values in (shares, probabilities.mean(0))]
    return groups * (per_group[0] * per_group[1]).sum()


def load_metrics(loads: Tensor, confidence: float, layers: list[int], groups: int = 1) -> dict[str, float]:
    """What the module docstring lists.

    Args:
        loads: (L, E) choices that fell on each expert; every layer has some.
        confidence: mean over tokens and layers.
        layers: (L,) index of each router's layer in the model.
        groups: of consecutive experts; 1: nothing is said of groups.
    """
    shares = loads / loads.sum(-1, keepdim=True)
    metrics = _by_layer("share", shares, layers)
    metrics["experts/largest_share"] = float(shares.max())
    metrics["experts/smallest_share"] = float(shares.min())
    metrics["experts/dead"] = float((loads == 0).sum())
    metrics["experts/confidence"] = confidence
    if groups > 1:
        shares = shares.unflatten(-1, (groups, -1)).sum(-1)
        metrics |= _by_layer("group_share", shares, layers)
        metrics["experts/largest_group_share"] = float(shares.max())
    return metrics


def _by_layer(name: str, values: Tensor, layers: list[int]) -> dict[str, float]:
    return {
        f"experts/layer_{layer}/{name}_{index}": value
        for layer, row in zip(layers, values.tolist(), strict=True)
        for index, value in enumerate(row)
    }


class ExpertLoads:
    """Counts the choices of a model's routers in training mode, and balances them.

    Routers that are not trained, as under LoRA adapters of other layers, are left alone. Biases are kept in float32,
    in which the rate is not lost to rounding.

    Attributes:
        routers: L modules of transformers with `weight`, `top_k` and `e_score_correction_bias`.
        layers: (L,) index of each router's layer in the model.
        step: (L, E + 1) float64 of this process since the last update: choices of each expert, sum over tokens of the
            routing confidence.

    Raises:
        MTDriveError: the experts do not divide into the groups.
    """

    def __init__(self, model: PreTrainedModel, settings: ExpertBalance | None = None):
        self.settings = settings or ExpertBalance()
        self.routers: list[Any] = []
        self.layers: list[int] = []
        for name, module in model.named_modules():
            if hasattr(module, "e_score_correction_bias") and module.weight.requires_grad:
                self.routers.append(module)
                self.layers.append(next(int(part) for part in name.split(".") if part.isdigit()))
        experts = len(self.routers[0].weight) if self.routers else 0
        if experts % self.settings.groups:
            raise MTDriveError(f"experts.groups={self.settings.groups} must divide the planner's {experts} experts.")
        self.step = torch.zeros(len(self.routers), experts + 1, dtype=torch.float64)
        self._since_log = self.step.clone()
        self._valid: Tensor | None = None
        self._group_losses: dict[int, Tensor] = {}  # of the pass, by router
        if self.routers:
            model.register_forward_pre_hook(self._begin_pass, with_kwargs=True)
        for index, router in enumerate(self.routers):
            router.e_score_correction_bias = router.e_score_correction_bias.float()
            router.register_forward_hook(self._counting(index))

    def _begin_pass(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        mask = kwargs.get("attention_mask")
        self._valid = mask.flatten().bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self._group_losses.clear()

    def _counting(self, index: int) -> Callable:
        def count(router: nn.Module, args: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
            if not router.training:
                return
            logits, _, chosen = output
            if self._valid is not None:
                logits, chosen = logits[self._valid], chosen[self._valid]
            scores = torch.sigmoid(logits.float())
            if self._balances_groups and scores.requires_grad:
                self._group_losses[index] = group_loss(scores, chosen, self.settings.groups)
            with torch.no_grad():
                self.step = self.step.to(chosen.device)
                self.step[index, :-1] += torch.bincount(chosen.flatten(), minlength=self.step.shape[1] - 1)
                self.step[index, -1] += (scores.gather(1, chosen).sum(1) / scores.sum(1)).sum()

        return count

    @property
    def _balances_groups(self) -> bool:
        return self.settings.groups > 1 and self.settings.group_weight > 0

    def with_group_loss(self, loss: Tensor, passes: int) -> Tensor:
        """`loss` of the pass that the model has just made, with the balance of groups if that is on.

        passes: of the step, whose losses are summed; each counts for its part of them.
        """
        if not self._group_losses:
            return loss
        return loss + self.settings.group_weight / passes * torch.stack([*self._group_losses.values()]).sum()

    @torch.no_grad()
    def balance(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Move the biases after an optimiser step. reduce: sum of a tensor over all processes."""
        totals = reduce(self.step)
        if self.settings.balance_rate:
            updates = bias_update(totals[:, :-1], self.settings.balance_rate)
            for router, update in zip(self.routers, updates, strict=True):
                router.e_score_correction_bias += update.to(router.e_score_correction_bias)
        self._since_log = self._since_log.to(totals.device) + totals
        self.step = torch.zeros_like(totals)

    def metrics(self) -> dict[str, float]:
        """What the module docstring lists, of all steps since the last call; nothing if there was none."""
        totals, self._since_log = self._since_log, torch.zeros_like(self._since_log)
        if not totals.any():
            return {}
        loads, confidence = totals[:, :-1], totals[:, -1]
        tokens = float(loads.sum()) / self.routers[0].top_k
        return load_metrics(loads, float(confidence.sum()) / tokens, self.layers, self.settings.groups)


class BalancedExperts(Trainer):
    """A Trainer that balances the experts of the model, if it has any, and logs their loads."""

    def __init__(self, *args, experts: ExpertBalance | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self._experts = ExpertLoads(core(self.accelerator.unwrap_model(self.model)), experts)
        if self._experts.routers:
            self.add_callback(_AfterSteps(self._experts, self.accelerator.reduce))

    def with_group_loss(self, loss: Tensor) -> Tensor:
        """The loss of this pass, with the balance of groups of experts if that is on. Ends every `compute_loss`."""
        return self._experts.with_group_loss(loss, self.args.gradient_accumulation_steps)

    def log(self, logs, start_time=None):
        """As `Trainer`'s; lines with the loss of training also have the experts' loads."""
        super().log(logs | self._experts.metrics() if "loss" in logs else logs, start_time)


class _AfterSteps(TrainerCallback):
    def __init__(self, experts: ExpertLoads, reduce: Callable[[Tensor], Tensor]):
        self._experts, self._reduce = experts, reduce

    def on_optimizer_step(self, args, state, control, **kwargs):
        self._experts.balance(self._reduce)
