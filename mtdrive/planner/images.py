"""Images as model inputs, each processed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

CACHE_BYTES = 2**30


class ImageInputs:
    """The image processor's output by content hash, computed at first use; keeps the latest `CACHE_BYTES`.

    Args:
        processor: of the planner.
        read_image: image hash -> (H, W, 3) uint8 RGB.
    """

    def __init__(self, processor: ProcessorMixin, read_image: Callable[[str], np.ndarray]):
        self._image_processor = processor.image_processor
        self._read_image = read_image
        self._kept: OrderedDict[str, BatchFeature] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, image_hash: str) -> BatchFeature:
        """Tensors `pixel_values`, `image_grid_thw`... of one image, as the model takes them."""
        if image_hash in self._kept:
            self._kept.move_to_end(image_hash)
            return self._kept[image_hash]
        inputs = self._image_processor(self._read_image(image_hash), return_tensors="pt")
        self._kept[image_hash] = inputs
        self._bytes += _size(inputs)
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return inputs


def _size(inputs: BatchFeature) -> int:
    return sum(tensor.nbytes for tensor in inputs.values())
