"""Attention in which the episodes of a scene share the scene's prompt.

A forward pass takes all tokens of all episodes packed into one row, without padding, so that everything but attention
costs exactly its tokens. Attention itself is registered with transformers under the name `ATTENTION` and reads from
its `segments` keyword which token belongs to which prompt or episode; a prompt's keys and values exist once, whatever
the group size. Without `segments` it is ordinary SDPA, so that a model can keep it switched on for every other use.

The shared part is a prompt without its last token: that token is predicted from by all episodes of the group, and
belongs to each of them.

Letters in shapes: T packed tokens, S scenes, N episodes, M new tokens per row (padded), P prompt length (padded),
L episode length so far (padded), H query heads, K key-value heads, D head dimension.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mtdrive.simulation.errors import MTDriveError

ATTENTION = "shared_prefix"
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers, as transformers names them


def _attention(module, query, key, value, attention_mask, *, scaling=None, segments=None, **kwargs):
    """Attention function of transformers: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D)."""
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    window = kwargs.get("sliding_window")
    _check_window(module, window)
    return segments.attend(module.layer_idx, query[0], key[0], value[0], scaling, window).unsqueeze(0), None


def _check_window(module, window: int | None) -> None:
    """Refuse a layer whose window is known to its mask alone, which `segments` never see."""
    kinds = getattr(module.config, "layer_types", None) or ()
    if module.layer_idx < len(kinds) and (kinds[module.layer_idx] == SLIDING) != (window is not None):
        raise MTDriveError(
            f"Layer {module.layer_idx} of the model has {kinds[module.layer_idx]}, but gives its attention function "
            f"sliding_window={window}; use shared_prefix=false for this model."
        )


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def core(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model itself; adapters, if there are any, are layers inside it."""
    if not isinstance(model, PeftModel):
        return model
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel), f"Adapters of {type(base).__name__}, which is no transformers model."
    return base


def unsupported_reason(model: PreTrainedModel | PeftModel) -> str | None:
    """Why the text part of `model` cannot run `ATTENTION`, as "has layers of ...", or None where it can."""
    model = core(model)
    config = model.config.get_text_config()
    if other := sorted(set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING}):
        return f"has layers of {', '.join(other)}"
    if (
        getattr(config, "use_bidirectional_attention", None)
        or "token_type_ids" in inspect.signature(type(model).forward).parameters
    ):
        return "lets prompt tokens see what follows them"
    if getattr(config, "attn_logit_softcapping", None):
        return "caps its attention scores"
    if not model.get_decoder()._can_set_attn_implementation():
        return "computes attention without transformers' attention interface"
    return None


def name_of(model: PreTrainedModel | PeftModel) -> str:
    """What a log calls the model."""
    return core(model).name_or_path or type(core(model)).__name__


def enable(model: PreTrainedModel | PeftModel) -> None:
    """Switch the text model of `model` to `ATTENTION` (the vision tower keeps its own)."""
    model = core(model)
    model.set_attn_implementation({"text_config": ATTENTION} if hasattr(model.config, "text_config") else ATTENTION)


class Segments(Protocol):
    """Says which packed token belongs to which prompt or episode, and so what it attends to."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Attention of one layer: query (H, T, D), key and value (K, T, D) -> (T, H, D).

        window: tokens that a token sees, itself among them, counted along its conversation; None if all before it.
        """


def packed_inputs(ids: Sequence[int] | np.ndarray | Tensor, positions: Tensor, segments: Segments) -> dict[str, Any]:
    """Model inputs of a packed pass. ids: (T,). positions: (A, T), rotary axes A (3 for Qwen-VL, else 1)."""
    return {
        "input_ids": torch.as_tensor(ids, device=positions.device)[None],
        "position_ids": positions[:, None] if len(positions) > 1 else positions,
        # `segments` decides who sees whom; a mask with four axes keeps transformers from building its own.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=positions.device),
        "use_cache": False,
        "segments": segments,
    }
