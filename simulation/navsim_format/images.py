"""Reading camera images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.names import image_file, split_name

_JPEG_END = b"\xff\xd9"


def image_path(data_root: Path | str, split: str, relative_path: str) -> Path:
    """The file `sensor_blobs/<split>/<relative_path>`.

    Raises:
        MTDriveError: it is missing, or the path does not stay below the split.
    """
    folder = Path(data_root) / "sensor_blobs" / split_name(split)
    path = folder / image_file(relative_path) if relative_path else folder
    if not path.is_file():
        raise MTDriveError(f"There is no camera image {path}; check openscene_data_root and split.")
    return path


def read_image(data_root: Path | str, split: str, relative_path: str) -> np.ndarray:
    """The image of that file as (H, W, 3) uint8 RGB.

    Raises:
        MTDriveError: the file is missing, truncated or no image.
    """
    return decode_image(image_path(data_root, split, relative_path))


def decode_image(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    Raises:
        MTDriveError: the file is truncated or no image.
    """
    data = path.read_bytes()
    # OpenCV 4 fills the missing part of a truncated JPEG with grey and says nothing
    truncated = data.startswith(b"\xff\xd8") and _JPEG_END not in data[-64:]
    image = None if truncated or not data else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise MTDriveError(f"The camera image {path} is truncated or damaged; fetch it again.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def image_hash(image: np.ndarray) -> str:
    """Content hash of the pixels of an (H, W, 3) uint8 image: the name by which samples and episodes refer to it."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()[:32]
