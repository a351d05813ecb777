"""A scene's prompt as a model sees it: token ids, image tensors, rotary positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mtdrive.planner.models import Planner
from mtdrive.planner.prompt import SceneView


@dataclass(frozen=True)
class Prompt:
    """The prompt of one scene, up to and including the tokens that open the planner's answer.

    ids: (P,) int64, image placeholders expanded. token_types: (P,) int64, 1 on image placeholders, else 0.
    images: the processor's image tensors by the model's argument names (`pixel_values`, `image_grid_thw`, ...).
    image_hash: of the image, by which engines that process it themselves find it.
    """

    ids: np.ndarray
    token_types: np.ndarray
    images: dict[str, Tensor]
    image_hash: str


def encode_prompt(planner: Planner, view: SceneView) -> Prompt:
    """Tokenise a scene's first user message and preprocess its image, once per scene."""
    text = planner.processor.apply_chat_template(planner.messages(view), tokenize=False, add_generation_prompt=True)
    inputs = planner.processor(text=[text], images=[view.image], return_mm_token_type_ids=True, return_tensors="pt")
    ids, token_types = (inputs.pop(name)[0].numpy() for name in ("input_ids", "mm_token_type_ids"))
    inputs.pop("attention_mask")
    return Prompt(ids, token_types, dict(inputs), view.image_hash)


def position_ids(model: PreTrainedModel, prompt: Prompt) -> Tensor:
    """Rotary positions (A, P) of a prompt on the model's device; text after it goes on from the last one, on all axes.

    Models without image axes have A = 1.
    """
    rope_index = getattr(model.base_model, "get_rope_index", None) or getattr(model.model, "get_rope_index", None)
    if rope_index is None:
        return torch.arange(len(prompt.ids), device=model.device)[None]
    positions, _ = rope_index(
        input_ids=torch.as_tensor(prompt.ids, device=model.device)[None],
        mm_token_type_ids=torch.as_tensor(prompt.token_types, device=model.device)[None],
        image_grid_thw=prompt.images["image_grid_thw"],
    )
    return positions[:, 0]
