"""Images and text of Step 3.5 Flash models, without torchvision.

transformers' own `Step3p7ImageProcessor` needs torchvision. Ours works on PIL and numpy and shows the model the whole
image once, without the crops that the released model takes beside it. Importing this module registers both classes, so
that `AutoProcessor` and `AutoImageProcessor` load what a planner's folder names.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoImageProcessor, AutoProcessor, ProcessorMixin, Step3p7Config, Step3p7TextConfig
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs

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

    def __init__(self, **settings: Any):
        super().__init__(**settings)


class StepFlashProcessor(ProcessorMixin):
    """Image processor and tokenizer of a Step 3.5 Flash planner; an image is as many `<|image_pad|>` as tokens."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None):
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text that stands for an image in a rendered conversation."""
        height, width = (side // self.image_processor.patch_size for side in image_inputs["pixel_values"].shape[-2:])
        return self.image_token * (-(-height // DOWNSAMPLING) * -(-width // DOWNSAMPLING))


# By its name, which a saved planner gives; the text model's configuration, which has no images, so that the released
# model, which wants crops too, is never shown its images by this class.
AutoImageProcessor.register(Step3p7TextConfig, image_processor_classes={"pil": StepFlashImageProcessor}, exist_ok=True)
AutoProcessor.register(Step3p7Config, StepFlashProcessor, exist_ok=True)
