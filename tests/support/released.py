"""Folders in the layout of the released MTDrive checkpoints, which has Qwen2.5-VL's files, with few random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from trl.chat_template_utils import qwen2_5_vl_chat_template

from mtdrive.planner.prompt import PROMPTS
from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings import planner_settings

SUBFOLDERS = {"mtdrive_sft": "mtdrive_sft", "mtdrive_rl": "mtdrive_rl_best"}  # of planner=...
LIGHT = {"dtype": "float32", "device": "cpu", "max_new_tokens": 8}  # in place of 7 billion bfloat16 on a GPU
SHARD_SIZE = 200_000  # bytes
# Qwen's added tokens in the order of their ids; those after `<|video_pad|>` are not special.
ADDED = [
    *(AddedToken(f"<|{name}|>", special=True, normalized=False) for name in ("endoftext", "im_start", "im_end")),
    *(
        AddedToken(f"<|{name}_{end}|>", special=True, normalized=False)
        for name in ("object_ref", "box", "quad", "vision")
        for end in ("start", "end")
    ),
    *(AddedToken(f"<|{name}_pad|>", special=True, normalized=False) for name in ("vision", "image", "video")),
    *(AddedToken(name, special=False, normalized=False) for name in ("<tool_call>", "</tool_call>")),
    *(
        AddedToken(f"<|{name}|>", special=False, normalized=False)
        for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
    ),
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LEARNED = 1000  # most tokens of bytes and merges
UNUSED = 8  # rows of the embedding without a token, of which Qwen2.5-VL has some, too


def released_config(name: str, repository: Path, **changes: object) -> PlannerSettings:
    """The settings of planner=mtdrive_sft or mtdrive_rl with that folder in place of the Hugging Face repository."""
    return planner_settings(name, **LIGHT | {"model": str(repository)} | changes)


def write_released(repository: Path) -> Path:
    """Write a repository with both checkpoints; returns it."""
    for seed, subfolder in enumerate(SUBFOLDERS.values()):
        folder = repository / subfolder
        folder.mkdir(parents=True)
        ids = _write_tokenizer(folder)
        _write_model(folder, ids, seed)
    return repository


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """Byte-level BPE with Qwen's special tokens; returns the added tokens' ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    byte_level = {"add_prefix_space": False, "use_regex": False}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(**byte_level)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(**byte_level)
    style = PROMPTS["recogdrive_vel_and_acc"]
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([style.system, style.user, "Here is the planning trajectory [PT, "], trainer)
    tokenizer.add_tokens(ADDED)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json, merges.txt
    ids = {token.content: tokenizer.token_to_id(token.content) for token in ADDED}
    special = [token.content for token in ADDED if token.special]
    described = {
        str(ids[token.content]): {
            "content": token.content,
            **dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False),
            "special": token.special,
        }
        for token in ADDED
    }
    _write(
        folder / "tokenizer_config.json",
        add_bos_token=False,
        add_prefix_space=False,
        added_tokens_decoder=described,
        additional_special_tokens=special[1:],
        bos_token=None,
        chat_template=qwen2_5_vl_chat_template,
        clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>",
        errors="replace",
        model_max_length=131072,
        pad_token="<|endoftext|>",
        split_special_tokens=False,
        tokenizer_class="Qwen2Tokenizer",
        unk_token=None,
    )
    return ids


def _write_model(folder: Path, ids: dict[str, int], seed: int) -> None:
    """Random weights in several files, with the configuration and the image processor of Qwen2.5-VL, made small."""
    patches = {"patch_size": 14, "temporal_patch_size": 2}
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "max_position_embeddings": 128000,
        "max_window_layers": 2,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.49.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 2,
            "hidden_act": "silu",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "in_chans": 3,
            "out_hidden_size": 64,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            **patches,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vocab_size": max(ids.values()) + 1 + UNUSED,
    }
    _write(folder / "config.json", **config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder))
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=SHARD_SIZE)
    _write(folder / "config.json", **config)  # as it was, not in the words of today's transformers
    _write(
        folder / "generation_config.json",
        bos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        do_sample=True,
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        repetition_penalty=1.05,
        temperature=1e-06,
        transformers_version="4.49.0",
    )
    _write(
        folder / "preprocessor_config.json",
        min_pixels=3136,
        max_pixels=50176,  # 12845056 in the original
        merge_size=2,
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
        image_processor_type="Qwen2VLImageProcessor",
        processor_class="Qwen2_5_VLProcessor",
        **patches,
    )


def _write(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content, indent=2))
