"""The `step_flash_tiny` planner: the architecture of Step 3.5 Flash (arXiv 2602.10604) at a few million parameters.

The model is transformers' `step3p7`, with random weights and the tokenizer of `tiny`; saved, it is an ordinary Hugging
Face folder. Every fourth layer attends to everything and those between within a window, with
more query heads; the first layers are dense and the others choose among routed experts beside a shared one; SwiGLU is
clamped in the last layers. Draft heads (`planner.mtp`) come with it: each attends within the window, if any layer does,
and is dense.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast, Step3p7Config, Step3p7ForConditionalGeneration

from mtdrive.planner.settings import StepFlashArchitecture
from mtdrive.planner.step_flash_processor import StepFlashImageProcessor, StepFlashProcessor
from mtdrive.planner.tiny import CHAT_TEMPLATE, END, IMAGE, PAD

FULL, SLIDING = "full_attention", "sliding_attention"
# Only layers with full attention meet long distances: they turn half of each head, and slowly.
ROPE = {
    FULL: {"rope_type": "default", "rope_theta": 5_000_000.0, "partial_rotary_factor": 0.5},
    SLIDING: {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
}
# As transformers says of Step 3.7 Flash.
LIMIT, SHARED_LIMIT = 7.0, 16.0  # of SwiGLU's two factors in clamped layers: routed experts, shared expert


def step_flash_model(
    architecture: StepFlashArchitecture, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Step3p7ForConditionalGeneration:
    """A model with random weights, float32, the same for the same seed."""
    size, token_ids = architecture, tokenizer.get_vocab()
    layer_types = [SLIDING if layer % size.full_attention_every else FULL for layer in range(size.layers)]
    unclamped = size.layers - size.clamped_layers
    config = Step3p7Config(  # type: ignore[call-arg]  # takes the last two, but does not declare them
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden_size,
            "intermediate_size": size.mlp_size,
            "num_hidden_layers": size.layers,
            "layer_types": layer_types,
            "sliding_window": size.sliding_window,
            "num_attention_heads": size.heads,
            "num_sliding_attention_heads": size.sliding_heads,
            "num_key_value_heads": size.key_value_heads,
            "head_dim": size.head_size,
            "gating": True,
            "rope_parameters": {kind: ROPE[kind] for kind in set(layer_types)},
            "mlp_layer_types": ["dense"] * size.dense_layers + ["sparse"] * (size.layers - size.dense_layers),
            "n_routed_experts": size.experts,
            "num_experts_per_tok": size.experts_per_token,
            "moe_intermediate_size": size.expert_size,
            "share_expert_dim": size.expert_size,
            # The released model scales its routed experts' sum by 3; small ones learn that by themselves (4.1.2).
            "moe_router_scaling_factor": 1.0,
            "swiglu_limits": [None] * unclamped + [LIMIT] * size.clamped_layers,
            "swiglu_limits_shared": [None] * unclamped + [SHARED_LIMIT] * size.clamped_layers,
            "num_nextn_predict_layers": size.draft_heads,
            "mtp_layer_types": [SLIDING if SLIDING in layer_types else FULL] * size.draft_heads,
            "mtp_mlp_layer_types": ["dense"] * size.draft_heads,
            "max_position_embeddings": 4096,
            "initializer_range": size.initializer_range,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": token_ids[END],
            "pad_token_id": token_ids[PAD],
        },
        vision_config={
            "hidden_size": size.vision_size,
            "mlp_ratio": size.vision_mlp_size / size.vision_size,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision_heads,
            "image_size": size.image_width,  # a square of learned positions, interpolated to the image
            "patch_size": size.patch_size,
            "initializer_range": size.initializer_range,
        },
        image_token_id=token_ids[IMAGE],
        initializer_range=size.initializer_range,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Step3p7ForConditionalGeneration(config)


def step_flash_processor(architecture: StepFlashArchitecture, tokenizer: PreTrainedTokenizerFast) -> StepFlashProcessor:
    """A processor that resizes every image to `image_width` x `image_height`."""
    image_processor = StepFlashImageProcessor(
        size={"height": architecture.image_height, "width": architecture.image_width},
        patch_size=architecture.patch_size,
    )
    return StepFlashProcessor(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)
