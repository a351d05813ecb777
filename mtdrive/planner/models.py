"""Loading planners: a new one of the embedded kinds, a folder that training saved, or a Hugging Face name."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from mtdrive import __version__
from mtdrive.planner import prompt
from mtdrive.planner.answer import Parsed
from mtdrive.planner.card import PlannerCard, Stage, has_card, read_card, saving
from mtdrive.planner.fits import check_words
from mtdrive.planner.mtp import DraftHeads, has_draft_heads
from mtdrive.planner.pretrained import (
    ADAPTER,
    check_loaded,
    check_saved,
    load_adapter,
    load_model,
    locate,
    reading,
    refuse_code,
)
from mtdrive.planner.processor import check_vocabulary, load_processor
from mtdrive.planner.prompt import PromptStyle, SceneView, prompt_style
from mtdrive.planner.settings import PlannerSettings
from mtdrive.planner.step_flash import step_flash_model, step_flash_processor
from mtdrive.planner.tiny import tiny_model, tiny_processor, tiny_tokenizer
from mtdrive.planner.wording import answer_fingerprint, wording_fingerprint
from mtdrive.simulation.errors import MTDriveError

TINY, STEP_FLASH_TINY = "tiny", "step_flash_tiny"
EMBEDDED = (TINY, STEP_FLASH_TINY)  # made on the spot, with random weights


@dataclass(frozen=True)
class Planner:
    """A vision-language model with its processor and the wording that it is used with."""

    model: PreTrainedModel | PeftModel
    """On its device, in eval mode."""

    processor: ProcessorMixin
    """Image processor and tokenizer."""

    style: PromptStyle
    """Wording of its prompts."""

    max_new_tokens: int
    """Upper bound for the tokens of one answer."""

    card: PlannerCard
    """What it has learned: its folder's `planner.yaml`, or a new one without a stage."""

    parse_answer: Callable[[str], Parsed]
    """Reads a plan in the text of an answer; the style's own, if nobody replaces it."""

    draft_heads: DraftHeads | None = None
    """What guesses the tokens after the next one, on the model's device and of its type; None: the model has none."""

    def messages(self, view: SceneView, exchanges: Sequence[tuple[str, str]] = ()) -> list[dict]:
        """See `prompt.messages`."""
        return prompt.messages(view, exchanges, self.style)

    def format_answer(self, poses: np.ndarray) -> str:
        """See `answer.format_answer`."""
        return self.style.format_answer(poses)

    def after(self, stage: Stage) -> Planner:
        """The planner with one more stage on its card, which it went through in the wording that it is used with."""
        stages = (*self.card.stages, stage)
        return replace(self, card=_card(self.card.base, self.style, self.max_new_tokens, self.model.dtype, stages))

    def save(self, directory: str | Path) -> None:
        """Write model, processor and, last, `planner.yaml`, so that `load_planner` reads them back.

        Raises:
            MTDriveError: a weight is NaN or infinite.
        """
        weights = self.model.state_dict()
        if self.draft_heads is not None and not isinstance(self.model, PeftModel):  # an adapter's are its base's
            weights |= self.draft_heads.saved_weights()
        check_saved(weights, directory)
        with saving(directory, self.card):
            self.model.save_pretrained(str(directory), state_dict=weights)
            self.model.config.save_pretrained(directory)  # a LoRA adapter comes without it; the processor needs it
            self.processor.save_pretrained(directory)


def load_planner(config: PlannerSettings) -> Planner:
    """Make the planner that the configuration group `planner` describes (`configs/planner/*.yaml`).

    Raises:
        MTDriveError: a folder without a card where the configuration leaves anything to it, a damaged card, one of
            other words than the planner is to be used with, a model that does not load whole, has weights that are not
            finite, wants to run code of its own, is not a vision-language model or has another's tokenizer, sizes or
            LoRA settings that make no model, or an unknown prompt style, device or dtype.
    """
    weights = config.model if config.model in EMBEDDED else locate(config.model, config.subfolder)
    card = _learned(config, weights)
    style, max_new_tokens = prompt_style(config.prompt or card.prompt), config.max_new_tokens or card.max_new_tokens
    if not config.allow_misfit:
        check_words(card, style, config.name)
    device, dtype = _device(config.device), _dtype(config.dtype or card.dtype)
    if config.model in EMBEDDED:
        processor, model = _embedded(config, dtype)
    else:
        processor, model = _pretrained(weights, dtype)
    processor.tokenizer.padding_side = "left"  # generation continues every row at the same column
    heads = _draft_heads(config, model)
    if config.lora is not None and not isinstance(model, PeftModel):
        model = _with_lora(model, config.lora)
    modules: list[nn.Module] = [model] if heads is None else [model, heads]
    for module in modules:
        module.to(device).eval()
        check_loaded(module.state_dict(), config.name)
    return Planner(model, processor, style, max_new_tokens, card, style.parse_answer, heads)


def _learned(config: PlannerSettings, weights: str) -> PlannerCard:
    """The card of the folder of weights; for others a new one, unless the configuration leaves values to it."""
    if config.prompt is None or config.max_new_tokens is None or config.dtype is None:
        return read_card(weights)
    if config.model not in EMBEDDED and has_card(weights):
        return read_card(weights)
    base = f"{config.model}, seed {config.seed}" if config.model in EMBEDDED else config.name
    if os.path.isdir(config.model):
        base = Path(weights).resolve().name  # where a folder lies says nothing about what it holds
    return _card(base, prompt_style(config.prompt), config.max_new_tokens, _dtype(config.dtype))


def _card(
    base: str, style: PromptStyle, max_new_tokens: int, dtype: torch.dtype, stages: tuple[Stage, ...] = ()
) -> PlannerCard:
    """The card of a planner that has been through these stages in the wording of today."""
    return PlannerCard(
        mtdrive=__version__,
        base=base,
        prompt=style.name,
        wording=wording_fingerprint(style),
        answer=answer_fingerprint(style),
        max_new_tokens=max_new_tokens,
        dtype=str(dtype).removeprefix("torch."),
        stages=stages,
    )


def _embedded(config: PlannerSettings, dtype: torch.dtype) -> tuple[ProcessorMixin, PreTrainedModel | PeftModel]:
    tokenizer = tiny_tokenizer()
    model: PreTrainedModel
    processor: ProcessorMixin
    if config.model == TINY and config.tiny is not None:
        model = tiny_model(config.tiny, tokenizer, config.seed)
        processor = tiny_processor(config.tiny, tokenizer)
    elif config.model == STEP_FLASH_TINY and config.step_flash is not None:
        model = step_flash_model(config.step_flash, tokenizer, config.seed)
        processor = step_flash_processor(config.step_flash, tokenizer)
    else:
        raise MTDriveError(f"planner.model={config.model} needs the sizes of a new model; say planner={config.model}.")
    module: nn.Module = model
    module.to(dtype)
    return processor, model


def _draft_heads(config: PlannerSettings, model: PreTrainedModel | PeftModel) -> DraftHeads | None:
    """The heads that the model's configuration speaks of: of the folder that its weights are from, or new ones."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel), f"Adapters of {type(base).__name__}, which is no transformers model."
    if not has_draft_heads(base):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        heads = DraftHeads(base)
    if config.model not in EMBEDDED:
        heads.load(str(base.config.name_or_path))
    heads.to(base.dtype)
    return heads


def _with_lora(model: PreTrainedModel, settings: Mapping[str, Any]) -> PeftModel:
    try:
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **_plain(settings)))
    except (TypeError, ValueError, AttributeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise MTDriveError(f"planner.lora={settings} does not work as peft's LoraConfig: {reason}") from error


def _plain(value: Any) -> Any:
    """Mappings and sequences as dict and list, which is all that peft can write down."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value


def _pretrained(name_or_path: str, dtype: torch.dtype) -> tuple[ProcessorMixin, PreTrainedModel | PeftModel]:
    refuse_code(name_or_path)
    processor = load_processor(name_or_path)
    model = _weights(name_or_path, dtype)
    check_vocabulary(processor, model, name_or_path)
    return processor, model


def _weights(name_or_path: str, dtype: torch.dtype) -> PreTrainedModel | PeftModel:
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
