"""A scene's prompt as a model reads it: token ids, image tensors, rotary positions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mtdrive.planner.models import Planner
from mtdrive.planner.prompt import SceneView
from mtdrive.planner.tokens import expand_image, model_images


@dataclass(frozen=True)
class Prompt:
    """The prompt of one scene, up to and including the tokens that open the planner's answer. Never pickled."""

    ids: np.ndarray
    """(P,) int64 token ids with image placeholders expanded."""
    token_types: np.ndarray
    """(P,) int64, 1 on image placeholders, else 0."""
    images: Mapping[str, Tensor]
    """The processor's image tensors by the model's argument names (`pixel_values`, `image_grid_thw`, ...)."""
    image_hash: str
    """Content hash of the image, by which engines that process images themselves find it."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("A prompt holds an image: send the scene's token and the image's hash to other processes.")


def encode_prompt(planner: Planner, view: SceneView, images: Mapping[str, Tensor]) -> Prompt:
    """Tokenise a scene's first user message. images: what the image processor made of the scene's image."""
    processor = planner.processor
    ids = processor.tokenizer.apply_chat_template(planner.messages(view), add_generation_prompt=True, return_dict=False)
    (ids,) = expand_image(processor, ids, images)
    [token_types] = processor.create_mm_token_type_ids([ids])
    return Prompt(np.array(ids), np.array(token_types), model_images(processor, images), view.image_hash)


def takes_token_types(model: PreTrainedModel) -> bool:
    """Whether the forward call of `model`, without adapters, asks for `mm_token_type_ids` (Qwen-VL's positions do)."""
    return "mm_token_type_ids" in inspect.signature(type(model).forward).parameters


def position_ids(model: PreTrainedModel, prompt: Prompt) -> Tensor:
    """Rotary positions (A, P) of a prompt on the model's device; A = 1 for models without image axes.

    Text after the prompt counts on from the last position, on all axes.
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
