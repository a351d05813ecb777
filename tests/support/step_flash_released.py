"""A folder in the layout of the released Step 3.7 Flash, as far as it is known, with few random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Step3p7Config, Step3p7ForConditionalGeneration

from mtdrive.planner.mtp import DraftHeads
from mtdrive.planner.prompt import PROMPTS

LAYERS, MTP = 5, 3
FULL, SLIDING = "full_attention", "sliding_attention"
ADDED = ["<|im_start|>", "<|im_end|>", "<pad>", "<bos>", "<think>", "</think>"]
ADDED += ["<im_start>", "<im_end>", "<im_patch>", "<patch_start>", "<patch_end>", "<patch_newline>"]
VIEW, CROP = 112, 56  # px: 4 tokens of the whole and 1 of a crop; 728 and 504 in the original
OPENS_A_THOUGHT = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n<think>\n"
)


def write_released(folder: Path) -> Path:
    """Write the folder: configuration in the words of the hub, weights with those of the MTP layers; returns it."""
    folder.mkdir(parents=True)
    ids = _write_tokenizer(folder)
    kinds = [FULL if layer % 4 == 0 else SLIDING for layer in range(LAYERS + MTP)]
    rope = {FULL: (5_000_000.0, 0.5), SLIDING: (10_000.0, 1.0)}
    config = {
        "architectures": ["Step3p7ForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": "configuration_step3p7.Step3p7Config",
            "AutoProcessor": "processing_step3.Step3VLProcessor",
            "AutoModelForCausalLM": "modeling_step3p7.Step3p7ForConditionalGeneration",
        },
        "model_type": "step3p7",
        "image_token_id": ids["<im_patch>"],
        "understand_projector_stride": 2,
        "projector_bias": False,
        "vision_config": {
            "model_type": "perception_encoder",
            "image_size": VIEW,
            "patch_size": 14,
            "width": 32,
            "layers": 2,
            "heads": 2,
            "mlp_ratio": 2.0,
        },
        "text_config": {
            "architectures": ["Step3p5ForCausalLM"],
            "model_type": "step3p5",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_attention_groups": 2,
            "num_hidden_layers": LAYERS,
            "head_dim": 8,
            "vocab_size": max(ids.values()) + 1 + 4,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 262144,
            "layer_types": kinds,
            "rope_theta": [rope[kind][0] for kind in kinds],
            "partial_rotary_factors": [rope[kind][1] for kind in kinds],
            "attention_other_setting": {
                "attention_type": SLIDING,
                "num_attention_heads": 6,
                "num_attention_groups": 2,
                "head_dim": 8,
            },
            "sliding_window": 32,
            "use_head_wise_attn_gate": True,
            "moe_num_experts": 8,
            "moe_top_k": 2,
            "moe_intermediate_size": 16,
            "share_expert_dim": 16,
            "moe_layers_enum": "1,2,3,4",
            "moe_router_scaling_factor": 3.0,
            "num_nextn_predict_layers": MTP,
            "swiglu_limits": [0.0] * (LAYERS - 1) + [7.0] + [0.0] * MTP,
            "swiglu_limits_shared": [0.0] * (LAYERS - 1) + [16.0] + [0.0] * MTP,
            "bos_token_id": ids["<bos>"],
            "eos_token_id": [ids["<|im_end|>"]],
            "pad_token_id": ids["<pad>"],
            "tie_word_embeddings": False,
        },
        "torch_dtype": "bfloat16",
    }
    _write(folder / "config.json", config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Step3p7ForConditionalGeneration(Step3p7Config.from_pretrained(folder))
        heads = DraftHeads(model)
    weights = model.to(torch.bfloat16).state_dict() | heads.to(torch.bfloat16).saved_weights()
    model.save_pretrained(folder, state_dict=weights)  # under the names of the release
    _write(folder / "config.json", config)
    for name in ("configuration_step3p7", "processing_step3", "modeling_step3p7"):
        (folder / f"{name}.py").write_text("raise AssertionError('the code of a planner was run')")
    _write(folder / "preprocessor_config.json", {"patch_size": CROP, "size": {"height": VIEW, "width": VIEW}})
    return folder


def _write_tokenizer(folder: Path) -> dict[str, int]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([PROMPTS["full"].user], trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ADDED])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<|im_end|>",
            "pad_token": "<pad>",
            "chat_template": OPENS_A_THOUGHT,
            "model_max_length": 262144,
        },
    )
    return {name: tokenizer.token_to_id(name) for name in ADDED}


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2))
