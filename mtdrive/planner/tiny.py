"""The embedded `tiny` planner: a real Qwen2.5-VL of about a million parameters, with its own tokenizer.

It starts from random weights; saved, it is an ordinary Hugging Face folder. It exists to run the whole method on two
CPU cores, so its tokenizer is made for few tokens: a number is two (`+12` and `.34`, the fraction with the separator
that follows it), and each constant phrase of prompt, answer and feedback is one. Everything else falls back to words
and then to bytes, so that no text is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from string import Formatter

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from mtdrive.planner.answer import PREFIX, SUFFIX, AnswerError
from mtdrive.planner.processor import PlannerProcessor
from mtdrive.planner.prompt import PROMPTS
from mtdrive.planner.settings import TinyArchitecture
from mtdrive.simulation.feedback import text as feedback
from mtdrive.simulation.scene import DrivingCommand

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)

# ChatML as in Qwen, without a default system message and with the markers that assistant masks need.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- set parts = [{'type': 'text', 'text': message['content']}] if message['content'] is string "
    "else message['content'] -%}"
    "{%- if message['role'] == 'assistant' -%}{%- generation -%}"
    "{%- for part in parts -%}{{- part['text'] -}}{%- endfor -%}{{- '<|im_end|>' -}}"
    "{%- endgeneration -%}{{- '\\n' -}}"
    "{%- else -%}"
    "{%- for part in parts -%}{%- if part['type'] == 'image' -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{{- '<|im_end|>\\n' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def tiny_model(
    architecture: TinyArchitecture, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random weights, float32, the same for the same seed."""
    size, token_ids = architecture, tokenizer.get_vocab()
    rotary_pairs = size.hidden_size // size.heads // 2
    config = Qwen2_5_VLConfig(  # type: ignore[call-arg]  # takes initializer_range, but does not declare it
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden_size,
            "intermediate_size": size.mlp_size,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads,
            "max_position_embeddings": 4096,
            "initializer_range": size.initializer_range,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": token_ids[END],
            "pad_token_id": token_ids[PAD],
            # Time, height and width share the rotary pairs 2 : 3 : 3, as in the large models.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [
                    rotary_pairs - 2 * (3 * rotary_pairs // 8),
                    3 * rotary_pairs // 8,
                    3 * rotary_pairs // 8,
                ],
            },
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_size,
            "intermediate_size": size.vision_mlp_size,
            "num_heads": size.vision_heads,
            "patch_size": size.patch_size,
            "temporal_patch_size": 1,
            "out_hidden_size": size.hidden_size,
            "fullatt_block_indexes": list(range(size.vision_layers)),
            "initializer_range": size.initializer_range,
        },
        image_token_id=token_ids[IMAGE],
        video_token_id=token_ids[VIDEO],
        vision_start_token_id=token_ids[VISION_START],
        vision_end_token_id=token_ids[VISION_END],
        initializer_range=size.initializer_range,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2_5_VLForConditionalGeneration(config)


def tiny_processor(architecture: TinyArchitecture, tokenizer: PreTrainedTokenizerFast) -> PlannerProcessor:
    """A processor that resizes images to at most `image_pixels` in multiples of two patches and keeps their aspect."""
    image_processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": (2 * architecture.patch_size) ** 2, "longest_edge": architecture.image_pixels},
        patch_size=architecture.patch_size,
        temporal_patch_size=1,
        merge_size=2,
    )
    return PlannerProcessor(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that the top of this module describes."""
    phrases = _phrases()
    split = "|".join(
        [
            r"[+-]\d\d(?=\.\d\d)",
            r"\.\d\d(?:, |\), \()?",
            *(re.escape(phrase) for phrase in sorted(sorted(phrases), key=len, reverse=True)),
            r" ?[A-Za-z]+",
            r"\d",
            r"\s",
            r"[^A-Za-z\d\s]",
        ]
    )
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fractions = [f".{number:02d}{separator}" for separator in ("", ", ", "), (") for number in range(100)]
    pieces = [f"{sign}{number:02d}" for sign in "+-" for number in range(100)] + fractions
    pieces += sorted(phrases | _words(phrases))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary += [byte_level.pre_tokenize_str(piece)[0][0] for piece in pieces]
    ids = {token: index for index, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.BPE(ids, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, VISION_START, VISION_END, IMAGE, VIDEO],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        chat_template=CHAT_TEMPLATE,
    )


def _phrases() -> set[str]:
    """The constant parts of prompts, answers and feedback."""
    templates = (PROMPTS["compact"].user, *feedback.templates())
    phrases = {literal for template in templates for literal, *_ in Formatter().parse(template) if literal}
    phrases |= {f"{role}\n" for role in ("system", "user", "assistant")}
    phrases |= {command.name.lower() for command in DrivingCommand}
    return phrases | {f"{PREFIX}(", f"){SUFFIX}", ". ", *feedback.terms(), *AnswerError}


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r" ?[A-Za-z]+", text)}
