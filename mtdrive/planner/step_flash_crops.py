"""Images as the released Step 3.7 Flash sees them: the whole image, and crops of it at a finer scale.

transformers' own `Step3p7ImageProcessor` does the same and needs torchvision; ours works on PIL and numpy, and gives
the same tensors but for rounding. A front camera image of NAVSIM, 1920 x 1080, becomes 8 crops in two rows: 836 tokens.
Importing this module registers the class, so that `AutoImageProcessor` loads what a planner's folder names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, BatchFeature, Step3p7VisionConfig
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

TOKEN = 56  # px, side of what an image token covers: patches of 14, joined 4 by 4
THIN, LONG = 32, 4  # an image with a side below THIN px and an aspect ratio above LONG is padded to a square
ELONGATED = 1.5  # aspect ratio from which an image that fits the whole view is cropped, too
REST = 0.2  # share of a window that must be left over for another row or column of crops


@dataclass(frozen=True)
class CropGrid:
    """Where an image is cropped."""

    width: int
    """Of the image, before it is resized for the crops [px]."""

    height: int
    """Likewise."""

    window: int
    """Side of a crop in the resized image [px]; 0: no crops."""

    @classmethod
    def of(cls, width: int, height: int, view: int, crop: int, largest: int) -> CropGrid:
        """The grid of an image.

        Args:
            width, height: of the image [px].
            view: side of the whole view [px].
            crop: side of a crop, as the model sees it [px].
            largest: longer side above which an image is shrunk first [px].
        """
        if is_thin(width, height):
            width = height = max(width, height)
        if max(width, height) > largest:
            scale = largest / max(width, height)
            width, height = int(width * scale), int(height * scale)
        short, long = sorted((width, height))
        if long <= view:
            window = short if long / short > ELONGATED else 0
        else:
            window = min(short, crop) if long / short > LONG else crop
        return cls(width, height, window)

    @property
    def columns(self) -> int:
        """Crops side by side."""
        return max(1, self._snapped(self.width) // self.window) if self.window else 0

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height of the image that crops are cut out of [px]: multiples of the window, unless shorter."""
        return self._snapped(self.width), self._snapped(self.height)

    def _snapped(self, side: int) -> int:
        if not 0 < self.window <= side:
            return side
        whole, rest = divmod(side, self.window)
        return self.window * (whole + (rest > REST * self.window))


def is_thin(width: int, height: int) -> bool:
    """Whether an image is so thin that it is padded to a square."""
    return min(width, height) < THIN and max(width, height) / min(width, height) > LONG


class _CropSettings(ImagesKwargs, total=False):
    patch_size: int
    max_image_size: int


class StepFlashCropProcessor(PilBackend):
    """The whole image at `size`, and crops of it at `patch_size`.

    Gives for n images: `pixel_values` (n, 3, size, size) float32; `pixel_values_local` (crops, 3, patch_size,
    patch_size) of all images, row by row; `num_local_patches` (n,) int64 crops of each image; `crop_columns` (n,) int64
    crops in a row of each image's grid, which the tokens need and the model does not take.

    patch_size: side of a crop, as the model sees it [px].
    max_image_size: longer side above which an image is shrunk first [px].
    """

    resample = PILImageResampling.BILINEAR
    size = {"height": 728, "width": 728}  # noqa: RUF012 - declared by the base class
    patch_size: int = 504
    max_image_size: int = 3024
    do_rescale = do_normalize = do_convert_rgb = True
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    valid_kwargs = _CropSettings
    model_input_names = ["pixel_values", "pixel_values_local", "num_local_patches"]  # noqa: RUF012 - likewise
    image_token = "<im_patch>"
    unused_input_names = ("crop_columns",)

    def __init__(self, **settings: Any):
        super().__init__(**settings)

    def image_text(self, image_inputs: Mapping[str, Tensor], index: int) -> str:
        """The tokens of an image: its crops row by row, then the whole."""
        crops, columns = (int(image_inputs[name][index]) for name in ("num_local_patches", "crop_columns"))
        of_crop, of_whole = ((side // TOKEN) ** 2 * self.image_token for side in (self.patch_size, self.size["height"]))
        text = ""
        for crop in range(crops):
            last_of_row = (crop + 1) % columns == 0 and crop + 1 < crops
            text += f"<patch_start>{of_crop}<patch_end>" + "<patch_newline>" * last_of_row
        return f"{text}<im_start>{of_whole}<im_end>"

    def _preprocess(  # type: ignore[override]  # takes what it needs, by name
        self,
        images: list[np.ndarray],
        size: SizeDict,
        patch_size: int,
        max_image_size: int,
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        def finish(image: np.ndarray, side: int) -> Tensor:
            image = self._resized(image, side, side, resample)
            if do_rescale:
                image = self.rescale(image, rescale_factor)
            if do_normalize:
                image = self.normalize(image, image_mean, image_std)
            return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))

        view = size.height
        assert view is not None  # the base class has made `size` of numbers
        whole, crops, counts, columns = [], [], [], []
        for image in images:
            height, width = image.shape[-2:]
            grid = CropGrid.of(width, height, view, patch_size, max_image_size)
            if is_thin(width, height):
                side = max(width, height)
                image = np.pad(image, ((0, 0), (0, side - height), (0, side - width)))
            whole.append(finish(self._resized(image, grid.width, grid.height, resample), view))
            cut = self._cut(image, grid, resample)
            crops += [finish(crop, patch_size) for crop in cut]
            counts.append(len(cut))
            columns.append(grid.columns)
        local = torch.stack(crops) if crops else torch.zeros(0, 3, patch_size, patch_size)
        tensors = {
            "pixel_values": torch.stack(whole),
            "pixel_values_local": local,
            "num_local_patches": torch.tensor(counts),
            "crop_columns": torch.tensor(columns),
        }
        return BatchFeature(tensors, tensor_type=return_tensors)

    def _cut(self, image: np.ndarray, grid: CropGrid, resample: PILImageResampling) -> list[np.ndarray]:
        if not grid.window:
            return []
        width, height = grid.resized
        image, window = self._resized(image, width, height, resample), grid.window
        tops, lefts = range(0, height, window), range(0, width, window)
        return [image[:, top : top + window, left : left + window] for top in tops for left in lefts]

    def _resized(self, image: np.ndarray, width: int, height: int, resample: PILImageResampling) -> np.ndarray:
        if image.shape[-2:] == (height, width):
            return image
        return self.resize(image, SizeDict(height=height, width=width), resample)


# Under a configuration that has no image processor yet: a saved planner gives its name.
AutoImageProcessor.register(Step3p7VisionConfig, image_processor_classes={"pil": StepFlashCropProcessor}, exist_ok=True)
