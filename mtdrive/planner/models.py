"""Loading planners: the embedded `tiny` one, a Hugging Face name, or a directory saved by training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from mtdrive.planner import prompt
from mtdrive.planner.answer import Parsed, format_answer, parse_answer
from mtdrive.planner.pretrained import (
    ADAPTER,
    check_loaded,
    check_saved,
    load_adapter,
    load_model,
    reading,
    refuse_code,
)
from mtdrive.planner.processor import check_vocabulary, load_processor
from mtdrive.planner.prompt import PromptStyle, SceneView, prompt_style
from mtdrive.planner.tiny import TinyArchitecture, tiny_model, tiny_processor, tiny_tokenizer
from mtdrive.simulation.errors import MTDriveError

TINY = "tiny"


@dataclass(frozen=True)
class Planner:
    """A vision-language model with its processor and the wording it is used with.

    model: on its device, in eval mode. processor: image processor and tokenizer. style: wording of its prompts.
    max_new_tokens: upper bound for the tokens of one answer. parse_answer: reads a plan in the text of an answer.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    style: PromptStyle
    max_new_tokens: int
    parse_answer: Callable[[str], Parsed] = parse_answer

    def messages(self, view: SceneView, exchanges: Sequence[tuple[str, str]] = ()) -> list[dict]:
        """See `prompt.messages`."""
        return prompt.messages(view, exchanges, self.style)

    def format_answer(self, poses: np.ndarray) -> str:
        """See `answer.format_answer`."""
        return format_answer(poses, self.style.integer_digits)

    def save(self, directory: str | Path) -> None:
        """Write model and processor so that `load_planner` reads them back.

        Raises:
            MTDriveError: a weight is NaN or infinite.
        """
        check_saved(self.model.state_dict(), directory)
        self.model.save_pretrained(directory)
        self.model.config.save_pretrained(directory)  # a LoRA adapter comes without it, but the processor needs it
        self.processor.save_pretrained(directory)


def load_planner(config: DictConfig) -> Planner:
    """Make the planner that the configuration group `planner` describes (`configs/planner/*.yaml`).

    Raises:
        MTDriveError: a model that does not load whole, has weights that are not finite, wants to run code of its own,
            is not a vision-language model or has another's tokenizer, or an unknown device or dtype.
    """
    device = _device(config.device)
    dtype = _dtype(config.dtype)
    if config.model == TINY:
        architecture = TinyArchitecture(**OmegaConf.to_container(config.tiny))
        tokenizer = tiny_tokenizer()
        processor = tiny_processor(architecture, tokenizer)
        model = tiny_model(architecture, tokenizer, config.seed).to(dtype)
    else:
        refuse_code(config.model)
        processor = load_processor(config.model)
        model = _pretrained(config.model, dtype)
        check_vocabulary(processor, model, config.model)
    processor.tokenizer.padding_side = "left"  # generation continues every row at the same column
    if config.lora is not None and not isinstance(model, PeftModel):
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **OmegaConf.to_container(config.lora)))
    model.to(device).eval()
    check_loaded(model.state_dict(), config.model)
    return Planner(model, processor, prompt_style(config.prompt), config.max_new_tokens)


def _pretrained(name_or_path: str, dtype: torch.dtype) -> PreTrainedModel | PeftModel:
    if not (Path(name_or_path) / ADAPTER).is_file():
        return load_model(AutoModelForImageTextToText, name_or_path, dtype)
    with reading("planner", name_or_path):
        base = PeftConfig.from_pretrained(name_or_path).base_model_name_or_path
    if not base or (Path(base) / ADAPTER).is_file():
        raise MTDriveError(f"The adapter in {name_or_path} names no whole model that it adapts: {base!r}.")
    try:
        refuse_code(base)
        model = load_model(AutoModelForImageTextToText, base, dtype)
    except MTDriveError as error:
        raise MTDriveError(f"Planner {name_or_path!r} is an adapter of {base!r}. {error}") from error
    return load_adapter(model, name_or_path)


def _device(name: str) -> torch.device:
    if name == "auto":
        # Every process of `accelerate launch` has a GPU of its own.
        own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return torch.device(own if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise MTDriveError(f"Device {name!r} cannot be used here; use planner.device=auto.") from error


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise MTDriveError(f"planner.dtype={name} is not a floating-point type; use float32 or bfloat16.")
    return dtype
