"""Reading a recorded dataset with Hugging Face `datasets`, and its images by content hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import datasets
import numpy as np

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
    shards = {root / "samples" / name: digest for name, digest in json.loads(manifest.read_text())["shards"].items()}
    for shard, digest in shards.items():
        if not shard.exists() or hashlib.sha256(shard.read_bytes()).hexdigest() != digest:
            raise MTDriveError(f"{shard} is missing or was changed; delete it, then record again.")
    return datasets.load_dataset("parquet", data_files=list(map(str, shards)), split="train")


def load_image(root: Path, name: str) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB with content hash `name`."""
    return decode_image(root / "images" / f"{name}.jpg")
