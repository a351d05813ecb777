"""The seam to torch, transformers, trl, accelerate and peft: every name of theirs that is not public and that we use.

Public is what their documentation promises: what a package exports at its top, torch's modules, accelerate.utils and
transformers.utils.logging, and the methods and attributes of classes that begin with no underscore. Everything else may
change in any release, so `setup.py` bounds their versions from above, and a test compares each entry here with what is
installed and finds uses that are not listed. When it fails after an upgrade, see what `use` says and mend that place.

Only text stands here: nothing of theirs is imported before `problem` asks for it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft")


@dataclass(frozen=True)
class Internal:
    """A name of another package that its next release may change without a word."""

    name: str
    """`module:name` or `module:Class.name`."""

    use: str
    """What we need it for."""

    parameters: str | None = None
    """Names of its parameters, separated by spaces; None for what is not called."""


CHECKPOINT = "the weights of a checkpoint are loaded strictly, under whatever names they were saved"
SHARED = "attention over shared prompts falls back on it and takes its grouped heads"
FLASH = "attention over shared prompts joins two parts by their log-sum-exp, which the public function keeps back"
VLLM = "rollouts with vLLM"
DRAFT = "draft heads of planners with the architecture of Step 3.5 Flash"
IMAGES = "an image processor without torchvision for planners with the architecture of Step 3.5 Flash"

INTERNALS = (
    Internal(
        "transformers.trainer:Trainer._load_from_checkpoint",
        "overridden: " + CHECKPOINT,
        "self resume_from_checkpoint model",
    ),
    Internal(
        "transformers.trainer:Trainer._get_grad_norm",
        "overridden: a loss or gradient that is not finite stops the run before it changes a weight",
        "self model grad_norm",
    ),
    Internal("transformers.trainer:Trainer._save", "overridden: saves " + DRAFT, "self output_dir state_dict"),
    Internal(
        "transformers.trainer:Trainer._save_optimizer_and_scheduler",
        "overridden: saves the optimizer of " + DRAFT,
        "self output_dir",
    ),
    Internal(
        "transformers.trainer:Trainer._load_optimizer_and_scheduler",
        "overridden: loads the optimizer of " + DRAFT,
        "self checkpoint",
    ),
    Internal(
        "trl.trainer.grpo_trainer:GRPOTrainer._prepare_inputs",
        "overridden: multi-turn episodes take the place of TRL's generation",
        "self generation_batch",
    ),
    Internal("trl.trainer.grpo_trainer:GRPOTrainer.ref_model", "the planner that training began with, for the KL term"),
    Internal(
        "transformers.modeling_layers:MtpLayer", DRAFT, "config decoder_layer_cls norm_cls layer_idx use_post_norm"
    ),
    Internal("transformers.models.step3p7.modeling_step3p7:Step3p7Experts", "rollouts of planners with experts"),
    Internal(
        "transformers.models.step3p7.modeling_step3p7:Step3p7Experts.forward",
        "replaced on few tokens",
        "self hidden_states top_k_index top_k_weights",
    ),
    Internal("transformers.models.step3p7.modeling_step3p7:Step3p7Experts._apply_gate", "the same", "self gate_up"),
    Internal("transformers.modeling_layers:MtpModel", "reads " + DRAFT, "main_model num_mtp_layers"),
    Internal("transformers.modeling_utils:PreTrainedModel._init_weights", "random weights of " + DRAFT, "self module"),
    Internal(
        "transformers.masking_utils:create_causal_mask",
        "training of " + DRAFT,
        "config inputs_embeds attention_mask past_key_values position_ids or_mask_function and_mask_function "
        "block_sequence_ids layer_idx allow_is_causal_skip",
    ),
    Internal(
        "transformers.masking_utils:create_sliding_window_causal_mask",
        "training of " + DRAFT,
        "config inputs_embeds attention_mask past_key_values position_ids or_mask_function and_mask_function "
        "block_sequence_ids layer_idx allow_is_causal_skip",
    ),
    Internal("transformers.image_processing_backends:PilBackend", IMAGES),
    Internal("transformers.image_utils:PILImageResampling", IMAGES),
    Internal("transformers.image_utils:SizeDict", IMAGES),
    Internal("transformers.image_utils:OPENAI_CLIP_MEAN", IMAGES),
    Internal("transformers.image_utils:OPENAI_CLIP_STD", IMAGES),
    Internal("transformers.processing_utils:ImagesKwargs", IMAGES),
    Internal("transformers.trainer_utils:PREFIX_CHECKPOINT_DIR", "names of the folders of checkpoints"),
    Internal(
        "transformers.trainer_pt_utils:get_length_grouped_indices",
        "the order of the samples in supervised fine-tuning",
        "lengths batch_size mega_batch_mult generator",
    ),
    Internal(
        "trl.models:unwrap_model_for_generation",
        "rollouts with a model that DDP, FSDP or DeepSpeed has wrapped",
        "model accelerator gather_deepspeed3_params generation_kwargs gradient_checkpointing_kwargs",
    ),
    Internal(
        "trl.chat_template_utils:has_generation_markers",
        "whether a chat template says itself which tokens are the planner's",
        "chat_template",
    ),
    Internal("peft.utils:SAFETENSORS_WEIGHTS_NAME", "the file of an adapter's weights"),
    Internal(
        "transformers.modeling_utils:PreTrainedModel._can_set_attn_implementation",
        "whether a model can take attention over shared prompts",
        "",
    ),
    Internal(
        "transformers.integrations.sdpa_attention:sdpa_attention_forward",
        SHARED,
        "module query key value attention_mask dropout scaling is_causal position_bias cache kwargs",
    ),
    Internal("transformers.integrations.sdpa_attention:repeat_kv", SHARED, "hidden_states n_rep"),
    Internal(
        "transformers.masking_utils:sdpa_mask",
        "the mask of ordinary calls of a model whose attention is that over shared prompts",
        "batch_size q_length kv_length q_offset kv_offset mask_function attention_mask local_size "
        "allow_is_causal_skip allow_is_bidirectional_skip use_vmap device kwargs",
    ),
    Internal("torch:ops.aten._scaled_dot_product_flash_attention_for_cpu", FLASH),
    Internal("torch:ops.aten._scaled_dot_product_flash_attention_for_cpu_backward", FLASH),
    Internal("trl.import_utils:is_vllm_available", VLLM, "min_version"),
    Internal(
        "trl.generation.vllm_client:VLLMClient",
        VLLM + " as a server",
        "base_url host server_port group_port connection_timeout",
    ),
    Internal(
        "trl.generation.vllm_generation:VLLMGeneration",
        VLLM + "; options of the configuration are its arguments",
        "model accelerator processing_class mode structured_outputs_regex server_base_url server_host server_port "
        "server_timeout group_port tensor_parallel_size gpu_memory_utilization max_model_length max_num_seqs "
        "enable_sleep_mode model_impl trust_remote_code repetition_penalty temperature top_p top_k min_p "
        "max_completion_length logprobs generation_kwargs",
    ),
)


def problem(internal: Internal) -> str | None:
    """What has become of a name in the packages as installed, in one sentence; None if it is as we expect it."""
    module, _, path = internal.name.partition(":")
    gone = f"{internal.name} is gone, which we use: {internal.use}."
    try:
        found: Any = import_module(module)
    except ImportError:
        return gone
    for part in path.split("."):
        if hasattr(found, part):
            found = getattr(found, part)
        elif inspect.isclass(found) and f"self.{part} = " in inspect.getsource(found):
            return None  # an attribute of its instances
        else:
            return gone
    if internal.parameters is None:
        return None
    parameters = " ".join(inspect.signature(found).parameters)
    if parameters != internal.parameters:
        return f"{internal.name} takes ({parameters}), no longer ({internal.parameters}); we use it: {internal.use}."
    return None
