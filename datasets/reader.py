"""Reading a recorded dataset with Hugging Face `datasets`, and its images by content hash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import datasets
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import decode_image


def load_samples(root: Path) -> datasets.Dataset:
    """The samples of a finished recording, columns as in `mtdrive.datasets.schema.SCHEMA`.

    Raises:
        MTDriveError: the folder holds no finished recording, or a shard is damaged.
    """
    manifest = root / "manifest.json"
    if not manifest.exists():
        raise MTDriveError(f"{root} holds no finished recording (no manifest.json); run mtdrive record out={root}.")
    shards = [str(root / "samples" / name) for name in json.loads(manifest.read_text())["shards"]]
    try:
        return datasets.load_dataset("parquet", data_files=shards, split="train")
    except datasets.exceptions.DatasetGenerationError as error:
        raise MTDriveError(
            f"A shard of {root} cannot be read ({error.__cause__}); delete it and record again."
        ) from error


def load_image(root: Path, name: str) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB with content hash `name`."""
    return decode_image(root / "images" / f"{name}.jpg")
