"""Reading camera images."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.names import image_file, split_name

LARGEST_FILE = 1 << 26  # bytes
LARGEST_IMAGE = 1 << 25  # pixels, of 3 bytes each; NAVSIM's have 1920 x 1080

_PART = 1 << 16  # bytes of the start and of the end of a file that are looked at to see whether it is whole
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# JPEG's markers: not what stuffs or restarts its data; the end; headers with the size
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_END = 0xD9
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def image_path(data_root: Path | str, split: str, relative_path: str) -> Path:
    """The file `sensor_blobs/<split>/<relative_path>`.

    Raises:
        MTDriveError: it is missing, the path is empty, or it does not stay below the split.
    """
    if not relative_path:
        raise MTDriveError("The log names no camera image for this scene (data_path of CAM_F0).")
    path = Path(data_root) / "sensor_blobs" / split_name(split) / image_file(relative_path)
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
    data = _checked(path)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    except cv2.error:
        image = None
    if image is None:
        raise _damaged(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_image(path: Path) -> None:
    """Refuse a file that does not begin and end as an image; in a fraction of the time that decoding takes.

    Raises:
        MTDriveError: as `decode_image`, but for damage between the header and the end.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_PART)
            length = file.seek(0, os.SEEK_END)
            file.seek(max(len(start), length - _PART))
            end = file.read()
    except OSError as error:
        raise _unreadable(path, error) from error
    size = _size(start + b"\0" + end)  # 0: the last byte and the next one make no marker
    if size is None or size[0] * size[1] > LARGEST_IMAGE or length > LARGEST_FILE:
        _checked(path)  # what lies between may explain it


def _checked(path: Path) -> bytes:
    """The bytes of an image file that is whole and not too large."""
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
    except OSError as error:
        raise _unreadable(path, error) from error
    size = _size(data)
    if size is None:
        raise _damaged(path)
    if size[0] * size[1] > LARGEST_IMAGE:
        raise MTDriveError(
            f"The camera image {path} has {size[0]:,} x {size[1]:,} pixels; {LARGEST_IMAGE:,} in all are read at most."
        )
    return data


def _unreadable(path: Path, error: OSError) -> MTDriveError:
    return MTDriveError(f"Cannot read the camera image {path}: {error.strerror}.")


def _damaged(path: Path) -> MTDriveError:
    return MTDriveError(f"The camera image {path} is truncated or damaged, or no JPEG or PNG; fetch it again.")


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
