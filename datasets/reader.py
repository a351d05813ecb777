"""Reading a recorded dataset with Hugging Face `datasets`, and its images by content hash."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np

from mtdrive.datasets.counts import file_digest
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import decode_image
from mtdrive.simulation.navsim_format.names import image_hash_name, shard_name


def read_manifest(root: Path) -> dict:
    """The manifest of a finished recording.

    Raises:
        MTDriveError: the folder holds none.
    """
    manifest = root / "manifest.json"
    if not manifest.exists():
        raise MTDriveError(f"{root} holds no finished recording (no manifest.json); run mtdrive record out={root}.")
    return json.loads(manifest.read_text())


def load_samples(root: Path) -> datasets.Dataset:
    """The samples of a finished recording, columns as in `mtdrive.datasets.schema.SCHEMA`.

    Raises:
        MTDriveError: the folder holds no finished recording, or a shard is damaged.
    """
    shards = {root / "samples" / shard_name(name): digest for name, digest in read_manifest(root)["shards"].items()}
    for shard, digest in shards.items():
        if not shard.exists() or file_digest(shard) != digest:
            raise MTDriveError(f"{shard} is missing or was changed; delete it, then record again.")
    return datasets.load_dataset("parquet", data_files=list(map(str, shards)), split="train")


def load_conversations(root: Path) -> datasets.Dataset:
    """The samples as TRL's trainers read them: `messages`, and `images` with the one image, decoded when it is read.

    Raises as `load_samples`.
    """
    samples = load_samples(root)
    paths = [[str(image_file(root, name))] for name in samples["image"]]
    samples = samples.select_columns(["messages"]).add_column("images", paths)
    return samples.cast_column("images", datasets.List(datasets.Image()))


def load_image(root: Path, name: str) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB with content hash `name`."""
    return decode_image(image_file(root, name))


def image_file(root: Path, name: str) -> Path:
    """Where the image with content hash `name` lies.

    Raises:
        MTDriveError: that is no hash.
    """
    return root / "images" / f"{image_hash_name(name)}.jpg"
