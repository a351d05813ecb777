"""Conversations as token ids, for training and for generation turn by turn.

A conversation is tokenised with one placeholder for its image (`encode`); `expand_image` replaces it by as many image
tokens as the processed image has. So the text is tokenised once per sample and each image processed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from transformers import ProcessorMixin
from trl import get_training_chat_template
from trl.chat_template_utils import has_generation_markers

# Placeholders for an answer and a feedback text in a rendered conversation, which no template changes.
_ANSWER, _FEEDBACK = "\x00answer\x00", "\x00feedback\x00"


def encode(processor: ProcessorMixin, messages: list[dict]) -> tuple[list[int], list[int]]:
    """Token ids of a whole conversation, with one placeholder for the image, and a mask of its last answer.

    Args:
        processor: its chat template, or TRL's training version of it, marks what the assistant generates.
        messages: TRL's conversational format, the last one the assistant's.

    Returns:
        (n,) ids and (n,) mask, 1 on the tokens of the last message with its end-of-turn token.
    """
    encoded = processor.tokenizer.apply_chat_template(
        messages,
        chat_template=_training_template(processor),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    end = len(mask) - mask[::-1].index(1)
    start = end - [*mask[:end][::-1], 0].index(0)
    return ids, [int(start <= index < end) for index in range(len(mask))]


def expand_image(
    processor: ProcessorMixin, ids: list[int], image_inputs: Mapping[str, Tensor], *extras: list[int]
) -> tuple:
    """Replace the image placeholder in `ids` by the tokens of the processed image.

    Args:
        ids: (n,) of a conversation.
        image_inputs: output of the image processor for its image.
        extras: (n,) lists parallel to `ids` (masks, labels); the value at the placeholder is repeated.

    Returns:
        (ids, *extras) with the image tokens in place.
    """
    image = processor.replace_image_token(dict(image_inputs), 0)
    replacement = processor.tokenizer.encode(image, add_special_tokens=False)
    at = ids.index(processor.image_token_id)  # type: ignore[attr-defined]  # of every processor with images
    expanded = [*ids[:at], *replacement, *ids[at + 1 :]]
    return expanded, *([*extra[:at], *[extra[at]] * len(replacement), *extra[at + 1 :]] for extra in extras)


def model_images(processor: ProcessorMixin, image_inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of an image processor's output the model takes; the rest only says which tokens the image has."""
    return {name: tensor for name, tensor in image_inputs.items() if name not in processor.unused_input_names}


def join_images(images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The `model_images` of a batch, one after the other. What stays empty, as crops of which no image has any, is left
    out: models take None for it, and no tensor without rows.
    """
    joined = {name: torch.cat([each[name] for each in images]) for name in images[0]}
    return {name: tensor for name, tensor in joined.items() if len(tensor)}


def feedback_delta_ids(processor: ProcessorMixin, feedback: str, *, closed: bool = True) -> list[int]:
    """Ids that continue a conversation after an answer: end of turn, feedback, and the next generation prompt.

    Appended to the ids of prompt and answer, they equal the chat template's tokens of the whole conversation.

    Args:
        feedback: text of the user's next message.
        closed: whether the answer ends with the end-of-sequence token; False when it was cut off.
    """
    text = _delta_template(processor).replace(_FEEDBACK, feedback)
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    return ids[1:] if closed else ids


@lru_cache(maxsize=8)
def _training_template(processor: ProcessorMixin) -> str | dict[str, str] | None:
    template = processor.chat_template
    if template is not None and has_generation_markers(template):
        return template
    return get_training_chat_template(processor)


@lru_cache(maxsize=8)
def _delta_template(processor: ProcessorMixin) -> str:
    """The chat template's text between an answer and the next one, with a placeholder for the feedback."""
    conversation: list[dict] = [
        {"role": "user", "content": [{"type": "text", "text": ""}]},
        {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]},
        {"role": "user", "content": [{"type": "text", "text": _FEEDBACK}]},
    ]
    rendered = processor.apply_chat_template(conversation, add_generation_prompt=True)
    delta = rendered.partition(_ANSWER)[2]
    if not delta.startswith(processor.tokenizer.eos_token):
        raise ValueError(f"The chat template of {type(processor).__name__} does not end an answer with its eos token.")
    return delta
