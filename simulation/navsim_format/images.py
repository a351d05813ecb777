"""Reading camera images."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import cv2
import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.names import image_file, split_name

LARGEST_FILE = 1 << 26  # bytes
LARGEST_IMAGE = 1 << 25  # pixels, of 3 bytes each; NAVSIM's have 1920 x 1080

_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# JPEG's markers: not what stuffs or restarts its data; the end; headers with the size
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_END = 0xD9
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


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
    """A JPEG or PNG file as (H, W, 3) uint8 RGB, as its rows lie in the file: orientation tags are not followed.

    Raises:
        MTDriveError: the file is missing, neither JPEG nor PNG, too large, truncated or damaged.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
    except OSError as error:
        raise MTDriveError(f"Cannot read the camera image {path}: {error.strerror}.") from error
    size = _size(data)
    if size is not None and size[0] * size[1] > LARGEST_IMAGE:
        raise MTDriveError(
            f"The camera image {path} has {size[0]:,} x {size[1]:,} pixels; {LARGEST_IMAGE:,} in all are read at most."
        )
    try:
        image = None if size is None else cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    except cv2.error:
        image = None
    if image is None:
        raise MTDriveError(f"The camera image {path} is truncated or damaged, or no JPEG or PNG; fetch it again.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header tells; None of what is no JPEG or PNG, or does not go on to its end.

    OpenCV 4 fills the missing part of a truncated JPEG with grey and says nothing.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_size(data)
    except struct.error:
        return None
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    size, position = None, 2
    while marker := _MARKER.search(data, position):
        kind, position = marker[0][1], marker.end()
        if kind == _END:
            return size
        (length,) = struct.unpack_from(">H", data, position)
        if kind in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = width, height
        position += length
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    position = 8
    while data[position + 4 : position + 8] != b"IEND":
        (length,) = struct.unpack_from(">I", data, position)
        position += 12 + length
    return struct.unpack_from(">II", data, 16)


def image_hash(image: np.ndarray) -> str:
    """Content hash of the pixels of an (H, W, 3) uint8 image: the name by which samples and episodes refer to it."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]
