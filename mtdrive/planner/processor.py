"""Processors of Qwen2.5-VL models that work without torchvision.

transformers' own `Qwen2_5_VLProcessor` needs a video processor, and that needs torchvision. Ours has an image processor
(on PIL and numpy) and a tokenizer, and loads folders of either kind. Importing this module registers it with
`AutoProcessor`; without that, `AutoProcessor` silently falls back to a bare tokenizer and images never reach the model.
"""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Step3p7Config,
)

from mtdrive.planner.pretrained import NEVER_RUN, reading
from mtdrive.planner.step_flash_processor import StepFlashProcessor
from mtdrive.simulation.errors import MTDriveError


class PlannerProcessor(ProcessorMixin):
    """Image processor and tokenizer of a Qwen2.5-VL model; an image is as many `<|image_pad|>` as it has tokens."""

    return_mm_token_type_ids = True

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None):
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text that stands for an image in a rendered conversation."""
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (patches // self.image_processor.merge_size**2)

    @property
    def model_input_names(self) -> list[str]:
        """Arguments of the model that this processor makes."""
        return [*super().model_input_names, "mm_token_type_ids"]


AutoProcessor.register(Qwen2_5_VLConfig, PlannerProcessor, exist_ok=True)


# Processors of ours, by the kind of model; any other model has transformers' own.
OURS = {Qwen2_5_VLConfig.model_type: PlannerProcessor, Step3p7Config.model_type: StepFlashProcessor}
PADDING = 0.05  # largest share of an embedding's rows without a token; Qwen2.5-VL has 0.3 %


def load_processor(name_or_path: str) -> ProcessorMixin:
    """The processor of a vision-language model, by Hugging Face name or directory.

    Raises:
        MTDriveError: nothing loads, the chat template does not render, or there is only a tokenizer, with which a
            planner would be trained that sees no images.
    """
    with reading("the processor of planner", name_or_path):
        kind = AutoConfig.from_pretrained(name_or_path, **NEVER_RUN).model_type
        processor = OURS.get(kind, AutoProcessor).from_pretrained(name_or_path, **NEVER_RUN)
    if not isinstance(processor, ProcessorMixin) or not hasattr(processor, "image_processor"):
        raise MTDriveError(
            f"Planner {name_or_path!r} has only a tokenizer ({type(processor).__name__}), no image processor; "
            "give a vision-language model whose directory holds processor_config.json or preprocessor_config.json."
        )
    if processor.chat_template is None:  # many releases have it in tokenizer_config.json alone
        processor.chat_template = processor.tokenizer.chat_template  # type: ignore[attr-defined]  # of every such one
    with reading("the chat template of planner", name_or_path):
        message: dict = {"role": "user", "content": [{"type": "text", "text": "x"}]}
        processor.apply_chat_template([message])
    return processor


def check_vocabulary(processor: ProcessorMixin, model: PreTrainedModel | PeftModel, name_or_path: str) -> None:
    """Refuse a processor whose tokens are not those of the model.

    Raises:
        MTDriveError: the model has another number of tokens, or another image token.
    """
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    tokens, rows = len(processor.tokenizer), weight.shape[0]
    if not (1 - PADDING) * rows <= tokens <= rows:
        raise MTDriveError(
            f"Planner {name_or_path!r} has the tokenizer of another model: it knows {tokens} tokens, the model {rows}."
        )
    ours, its = (getattr(each, "image_token_id", None) for each in (processor, model.config))
    if its is not None and ours != its:
        raise MTDriveError(
            f"Planner {name_or_path!r} has the tokenizer of another model: its image token is {ours}, not {its}."
        )
