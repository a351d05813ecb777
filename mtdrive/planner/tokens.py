"""Conversations as token ids: what training sees, and what generation continues with.

A conversation is tokenised with its one image placeholder still single (`encode`); `expand_image` puts in as many
image tokens as the processed image has. So the text is tokenised once per sample and each image processed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from torch import Tensor
from transformers import ProcessorMixin
from trl import get_training_chat_template
from trl.chat_template_utils import has_generation_markers

# Stands for an answer or a feedback text in a rendered conversation; no tokenizer or template touches it.
_ANSWER, _FEEDBACK = "\x00answer\x00", "\x00feedback\x00"


def encode(processor: ProcessorMixin, messages: list[dict]) -> tuple[list[int], list[int]]:
    """Token ids of a whole conversation, image placeholder single, and a mask of its last answer.

    Args:
        processor: its chat template, or TRL's training version of it, marks what the assistant generates.
        messages: conversational format, the last one the assistant's.

    Returns:
        ids and mask of equal length; mask is 1 on the tokens of the last message, its end-of-turn token included.
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
        image_inputs: what the image processor made of the one image.
        extras: lists parallel to `ids` (masks, labels); the value at the placeholder is repeated.

    Returns:
        (ids, *extras), expanded.
    """
    replacement = processor.tokenizer.encode(processor.replace_image_token(image_inputs, 0), add_special_tokens=False)
    at = ids.index(processor.image_token_id)
    expanded = [*ids[:at], *replacement, *ids[at + 1 :]]
    return expanded, *([*extra[:at], *[extra[at]] * len(replacement), *extra[at + 1 :]] for extra in extras)


def feedback_delta_ids(processor: ProcessorMixin, feedback: str, *, closed: bool = True) -> list[int]:
    """The ids that continue a conversation after an answer: end of turn, feedback, and the next generation prompt.

    Appended to the ids of prompt and answer they equal the chat template's tokens of the whole conversation.

    Args:
        feedback: text of the user's next message.
        closed: the answer already ends with the end-of-sequence token (False when it was cut off).
    """
    text = _delta_template(processor).replace(_FEEDBACK, feedback)
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    return ids[1:] if closed else ids


@lru_cache(maxsize=8)
def _training_template(processor: ProcessorMixin) -> str:
    if has_generation_markers(processor.chat_template):
        return processor.chat_template
    return get_training_chat_template(processor)


@lru_cache(maxsize=8)
def _delta_template(processor: ProcessorMixin) -> str:
    """What the chat template writes after an answer, up to the next answer, around a feedback text."""
    conversation = [
        {"role": "user", "content": [{"type": "text", "text": ""}]},
        {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]},
        {"role": "user", "content": [{"type": "text", "text": _FEEDBACK}]},
    ]
    rendered = processor.apply_chat_template(conversation, add_generation_prompt=True)
    delta = rendered.partition(_ANSWER)[2]
    if not delta.startswith(processor.tokenizer.eos_token):
        raise ValueError(f"The chat template of {type(processor).__name__} does not end an answer with its eos token.")
    return delta
