"""Processors of Qwen2.5-VL models that work without torchvision.

The stock `Qwen2_5_VLProcessor` insists on a video processor, which needs torchvision. Ours has an image processor
(on PIL and numpy) and a tokenizer, and loads directories of either kind. Importing this module registers it with
`AutoProcessor`; without that, `AutoProcessor` silently falls back to a bare tokenizer and images never reach the model.
"""

from __future__ import annotations

from peft import PeftModel
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin, Qwen2_5_VLConfig

from mtdrive.planner.pretrained import NEVER_RUN, reading
from mtdrive.simulation.errors import MTDriveError


class PlannerProcessor(ProcessorMixin):
    """Image processor and tokenizer of a Qwen2.5-VL model; the image is one `<|image_pad|>` a token."""

    return_mm_token_type_ids = True

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (patches // self.image_processor.merge_size**2)

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "mm_token_type_ids"]


AutoProcessor.register(Qwen2_5_VLConfig, PlannerProcessor, exist_ok=True)


PADDING = 0.05  # share of an embedding's rows without a token; Qwen2.5-VL leaves 0.3 % empty


def load_processor(name_or_path: str) -> ProcessorMixin:
    """The processor of a vision-language model, by Hugging Face name or directory.

    Raises:
        MTDriveError: nothing there that loads, a chat template that does not render, or only a tokenizer, which would
            train a planner that sees no images.
    """
    with reading("the processor of planner", name_or_path):
        is_qwen = AutoConfig.from_pretrained(name_or_path, **NEVER_RUN).model_type == Qwen2_5_VLConfig.model_type
        processor = (PlannerProcessor if is_qwen else AutoProcessor).from_pretrained(name_or_path, **NEVER_RUN)
    if not isinstance(processor, ProcessorMixin) or not hasattr(processor, "image_processor"):
        raise MTDriveError(
            f"Planner {name_or_path!r} has only a tokenizer ({type(processor).__name__}), no image processor; "
            "give a vision-language model whose directory holds processor_config.json or preprocessor_config.json."
        )
    with reading("the chat template of planner", name_or_path):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "x"}]}])
    return processor


def check_vocabulary(processor: ProcessorMixin, model: PreTrainedModel | PeftModel, name_or_path: str) -> None:
    """Raises MTDriveError if the processor's tokens are not those that `model` was made for."""
    tokens, rows = len(processor.tokenizer), model.get_input_embeddings().weight.shape[0]
    if not (1 - PADDING) * rows <= tokens <= rows:
        raise MTDriveError(
            f"Planner {name_or_path!r} has the tokenizer of another model: it knows {tokens} tokens, the model {rows}."
        )
    ours, its = (getattr(where, "image_token_id", None) for where in (processor, model.config))
    if its is not None and ours != its:
        raise MTDriveError(
            f"Planner {name_or_path!r} has the tokenizer of another model: its image token is {ours}, that one's {its}."
        )
