"""Images and text of Step 3.5 Flash models, without torchvision.

transformers' own `Step3p7Processor` and its image processor need torchvision. Ours works with either of two on PIL and
numpy: `StepFlashImageProcessor`, which shows a small planner the whole image once, and `StepFlashCropProcessor`, which
shows the released model what it expects. Importing this module registers the classes, so that `AutoProcessor` and
`AutoImageProcessor` load what a planner's folder names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    ProcessorMixin,
    Step3p7Config,
    Step3p7TextConfig,
)
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs

from mtdrive.planner.step_flash_crops import StepFlashCropProcessor

# ChatML in the tokens of the released model, whose own template opens a chain of thought: answers here come at once.
RELEASED_CHAT_TEMPLATE = (
    "{{- bos_token or '' }}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' }}"
    "{%- for part in message['content'] %}{%- if part['type'] == 'image' %}{{- '<im_patch>' }}{%- endif %}{%- endfor %}"
    "{%- set text = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}"
    "{%- if message['role'] == 'assistant' %}{% generation %}{{- text + '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}{{- text + '<|im_end|>' }}{%- endif %}{{- '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
DOWNSAMPLING = 4  # patches to an image token along each side: two convolutions of stride 2


class _ImageSettings(ImagesKwargs, total=False):
    patch_size: int


class StepFlashImageProcessor(PilBackend):
    """Resizes the whole image to `size` (height, width) [px] and normalises it: `pixel_values` (1, 3, height, width).

    patch_size: side of the vision tower's patches [px], from which the number of image tokens follows.
    """

    resample = PILImageResampling.BILINEAR
    patch_size: int
    do_resize = do_rescale = do_normalize = do_convert_rgb = True
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    valid_kwargs = _ImageSettings
    model_input_names = ["pixel_values"]  # noqa: RUF012 - declared by the base class
    image_token = "<|image_pad|>"
    unused_input_names = ()

    def __init__(self, **settings: Any):
        super().__init__(**settings)

    def image_text(self, image_inputs: Mapping[str, Tensor], index: int) -> str:
        """The tokens of an image."""
        height, width = (side // self.patch_size for side in image_inputs["pixel_values"].shape[-2:])
        return self.image_token * (-(-height // DOWNSAMPLING) * -(-width // DOWNSAMPLING))


class StepFlashProcessor(ProcessorMixin):
    """Image processor and tokenizer of a planner with the architecture of Step 3.5 Flash."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None):
        self.image_token = image_processor.image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> StepFlashProcessor:  # type: ignore[override]
        """What a planner saved; for any other folder or Hugging Face name, the processor of the released model.

        The release names classes of its own code, or none, and is read from its tokenizer and, where there is one, its
        `preprocessor_config.json`.
        """
        saved = cls.get_processor_dict(name, **kwargs)[0].get("processor_class")
        if saved == cls.__name__:
            return super().from_pretrained(name, *args, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(name, **kwargs)
        tokenizer.chat_template = RELEASED_CHAT_TEMPLATE
        try:
            image_processor = StepFlashCropProcessor.from_pretrained(name, **kwargs)
        except OSError:  # there is none
            image_processor = StepFlashCropProcessor()
        return cls(image_processor, tokenizer, RELEASED_CHAT_TEMPLATE)

    @property
    def unused_input_names(self) -> list[str]:
        """What the image processor makes for the text alone."""
        return [*self.image_processor.unused_input_names]

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text that stands for an image in a rendered conversation."""
        return self.image_processor.image_text(image_inputs, image_idx)


# Under a configuration that has no image processor yet: a saved planner gives its name.
AutoImageProcessor.register(Step3p7TextConfig, image_processor_classes={"pil": StepFlashImageProcessor}, exist_ok=True)
AutoProcessor.register(Step3p7Config, StepFlashProcessor, exist_ok=True)
