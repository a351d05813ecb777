"""Routed experts on few tokens, as a step of generation has them: the same numbers with a fraction of the calls.

transformers looks up each expert's tokens on its own. Here tokens are sorted by expert once, and what is done to each
token alone, as the activation, is done to all at once. On many tokens the model's own way is as fast, and stays.
"""

from __future__ import annotations

import functools
import types

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.models.step3p7.modeling_step3p7 import Step3p7Experts

FEW = 1024  # tokens


def enable(model: PreTrainedModel | PeftModel) -> None:
    """Let the experts of `model`, if it has any that are known here, compute few tokens that way."""
    for module in model.modules():
        if isinstance(module, Step3p7Experts) and "forward" not in vars(module):
            module.forward = types.MethodType(_forward, module)  # type: ignore[method-assign]


@functools.wraps(Step3p7Experts.forward)
def _forward(self: Step3p7Experts, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """hidden_states: (T, D). top_k_index, top_k_weights: (T, k), experts of each token. Returns (T, D)."""
    if len(hidden_states) > FEW:
        return type(self).forward(self, hidden_states, top_k_index, top_k_weights)
    flat = top_k_index.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=self.num_experts).tolist()

    def each(inputs: Tensor, weights: Tensor) -> Tensor:
        parts = zip(inputs.split(counts), weights, strict=True)
        return torch.cat([linear(tokens, weight) for tokens, weight in parts if len(tokens)])

    hidden = self._apply_gate(each(hidden_states[order // top_k_index.shape[1]], self.gate_up_proj))
    weighted = each(hidden, self.down_proj) * top_k_weights.flatten()[order, None]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return weighted[back].unflatten(0, top_k_index.shape).sum(1).to(hidden_states.dtype)
