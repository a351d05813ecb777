"""Balance of sparse experts without an auxiliary loss, and what a log says of them.

A router chooses a token's experts by its scores plus a bias of each expert, which no gradient reaches. After every
optimiser step, the bias of experts with less than the mean load of their layer rises by a fixed rate and that of those
with more falls (Wang et al., arXiv 2408.15664; Step 3.5 Flash, arXiv 2602.10604, does so). Loads are those of the whole
step, over all its passes and processes; padding does not count.

A line of the log has, over all steps since the line before:

    experts/layer_i/share_j                        share of the choices of layer i's router that fell on expert j
    experts/largest_share, experts/smallest_share  over all layers; all equal would be 1 / experts
    experts/dead                                   experts, of all layers, that no token went to
    experts/confidence                             mean score, in [0, 1], that routers gave the experts they chose
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback

from mtdrive.rollout.shared_prefix import core

RATE = 1e-3  # of the bias, per optimiser step; scores are between 0 and 1


def bias_update(loads: Tensor, rate: float) -> Tensor:
    """What is added to the biases (L, E) of routers after a step in which their experts had these loads (L, E)."""
    return rate * torch.sign(loads.mean(-1, keepdim=True) - loads)


def load_metrics(loads: Tensor, scores: float, layers: list[int]) -> dict[str, float]:
    """What the module docstring lists.

    Args:
        loads: (L, E) choices that fell on each expert; every layer has some.
        scores: sum of the scores of all choices.
        layers: (L,) index of each router's layer in the model.
    """
    shares = loads / loads.sum(-1, keepdim=True)
    metrics = {
        f"experts/layer_{layer}/share_{expert}": share
        for layer, row in zip(layers, shares.tolist(), strict=True)
        for expert, share in enumerate(row)
    }
    metrics["experts/largest_share"] = float(shares.max())
    metrics["experts/smallest_share"] = float(shares.min())
    metrics["experts/dead"] = float((loads == 0).sum())
    metrics["experts/confidence"] = scores / float(loads.sum())
    return metrics


class ExpertLoads:
    """Counts the choices of a model's routers in training mode, and balances them.

    Routers that are not trained, as under LoRA adapters of other layers, are left alone. Biases are kept in float32,
    in which the rate is not lost to rounding.

    Attributes:
        routers: L modules of transformers with `weight` and `e_score_correction_bias`.
        layers: (L,) index of each router's layer in the model.
        step: (L, E + 1) float64 of this process since the last update: choices of each expert, sum of their scores.
    """

    def __init__(self, model: PreTrainedModel):
        self.routers: list[Any] = []
        self.layers: list[int] = []
        for name, module in model.named_modules():
            if hasattr(module, "e_score_correction_bias") and module.weight.requires_grad:
                self.routers.append(module)
                self.layers.append(next(int(part) for part in name.split(".") if part.isdigit()))
        experts = len(self.routers[0].weight) if self.routers else 0
        self.step = torch.zeros(len(self.routers), experts + 1, dtype=torch.float64)
        self._since_log = self.step.clone()
        self._valid: Tensor | None = None
        if self.routers:
            model.register_forward_pre_hook(self._see_padding, with_kwargs=True)
        for index, router in enumerate(self.routers):
            router.e_score_correction_bias = router.e_score_correction_bias.float()
            router.register_forward_hook(self._counting(index))

    def _see_padding(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        mask = kwargs.get("attention_mask")
        self._valid = mask.flatten().bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def _counting(self, index: int) -> Callable:
        @torch.no_grad()
        def count(router: nn.Module, args: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
            if not router.training:
                return
            logits, _, chosen = output
            scores = torch.sigmoid(logits.float()).gather(1, chosen)
            if self._valid is not None:
                chosen, scores = chosen[self._valid], scores[self._valid]
            self.step = self.step.to(chosen.device)
            self.step[index, :-1] += torch.bincount(chosen.flatten(), minlength=self.step.shape[1] - 1)
            self.step[index, -1] += scores.sum()

        return count

    @torch.no_grad()
    def balance(self, reduce: Callable[[Tensor], Tensor], rate: float = RATE) -> None:
        """Move the biases after an optimiser step. reduce: sum of a tensor over all processes."""
        totals = reduce(self.step)
        for router, update in zip(self.routers, bias_update(totals[:, :-1], rate), strict=True):
            router.e_score_correction_bias += update.to(router.e_score_correction_bias)
        self._since_log = self._since_log.to(totals.device) + totals
        self.step = torch.zeros_like(totals)

    def metrics(self) -> dict[str, float]:
        """What the module docstring lists, of all steps since the last call; nothing if there was none."""
        totals, self._since_log = self._since_log, torch.zeros_like(self._since_log)
        if not totals.any():
            return {}
        return load_metrics(totals[:, :-1], float(totals[:, -1].sum()), self.layers)


class BalancedExperts(Trainer):
    """A Trainer that balances the experts of the model, if it has any, and logs their loads."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._experts = ExpertLoads(core(self.accelerator.unwrap_model(self.model)))
        if self._experts.routers:
            self.add_callback(_AfterSteps(self._experts, self.accelerator.reduce))

    def log(self, logs, start_time=None):
        """As `Trainer`'s; lines with the loss of training also have the experts' loads."""
        super().log(logs | self._experts.metrics() if "loss" in logs else logs, start_time)


class _AfterSteps(TrainerCallback):
    def __init__(self, experts: ExpertLoads, reduce: Callable[[Tensor], Tensor]):
        self._experts, self._reduce = experts, reduce

    def on_optimizer_step(self, args, state, control, **kwargs):
        self._experts.balance(self._reduce)
