"""Read a recorded dataset with Hugging Face `datasets`, and its images by content hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtdrive.datasets.counts import file_digest
from mtdrive.datasets.schema import SCHEMA
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import decode_image
from mtdrive.simulation.navsim_format.names import image_hash_name, shard_name
from mtdrive.simulation.navsim_format.scene_filter import SceneSet, read_scene_set
from mtdrive.simulation.runtime.json_files import read_json

LARGEST_SHARD = 1 << 28  # bytes when it is unpacked
MOST_ROWS = 1 << 16  # of a shard


def read_manifest(root: Path) -> dict:
    """The manifest of a finished recording.

    Raises:
        MTDriveError: the folder holds none.
    """
    path = root / "manifest.json"
    if not path.exists():
        raise MTDriveError(f"{root} holds no finished recording (no manifest.json); run mtdrive record out={root}.")
    manifest = read_object(path)
    for key, kind in {
        "scene_set": dict,
        "wording": str,
        "recipe": dict,
        "samples": int,
        "shards": dict,
        "metric_version": int,
    }.items():
        if not isinstance(manifest.get(key), kind):
            raise MTDriveError(f"{path} is damaged (no {key} such as mtdrive record writes); record again.")
    for key, kind in {"metric": str, "feedback": str, "feedback_steps": bool}.items():
        if not isinstance(manifest["recipe"].get(key), kind):
            raise MTDriveError(f"{path} is damaged (no recipe.{key} such as mtdrive record writes); record again.")
    scene_set_of(manifest, path)
    return manifest


def scene_set_of(manifest: dict, path: Path) -> SceneSet:
    """The scenes that a recording is of. path: of the manifest.

    Raises:
        MTDriveError: the manifest does not say.
    """
    try:
        return read_scene_set(manifest["scene_set"])
    except ValueError as error:
        raise MTDriveError(f"{path} is damaged ({error}); record again.") from None


def read_object(path: Path) -> dict:
    """The object in a JSON file of a recording.

    Raises:
        MTDriveError: it holds none.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise MTDriveError(f"{path} is damaged ({error}); delete it and record again.") from error
    if not isinstance(content, dict):
        raise MTDriveError(f"{path} is damaged (no JSON object); delete it and record again.")
    return content


def load_samples(root: Path) -> datasets.Dataset:
    """The samples of a finished recording, columns as in `mtdrive.datasets.schema.SCHEMA`.

    Raises:
        MTDriveError: the folder holds no finished recording, or a shard is damaged.
    """
    shards = {root / "samples" / shard_name(name): digest for name, digest in read_manifest(root)["shards"].items()}
    for shard, digest in shards.items():
        if not shard.is_file() or file_digest(shard) != digest:
            raise MTDriveError(f"{shard} is missing or was changed; delete it, then record again.")
        check_shard(shard)
    # Hugging Face keeps what it has read by path, size and time: the name makes it keep it by content.
    content = hashlib.sha256("".join(map(str, shards.values())).encode()).hexdigest()[:32]
    try:
        return datasets.load_dataset("parquet", content, data_files=list(map(str, shards)), split="train")
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        raise MTDriveError(f"The shards in {root} do not read as one table of samples; record again.") from error


def check_shard(path: Path) -> None:
    """Refuse a shard that is not a parquet file of samples, or would be larger in memory than any recording.

    Raises:
        MTDriveError: it is refused.
    """
    try:
        metadata = pq.read_metadata(path)
        schema = pq.read_schema(path)
        # not by columns: asking for a damaged one ends the process (pyarrow 26)
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MTDriveError(
            f"{path} is no whole parquet file ({type(error).__name__}); record the dataset again."
        ) from None
    if not schema.equals(SCHEMA):
        raise MTDriveError(f"{path} has other columns than mtdrive record writes; record the dataset again.")
    if size > LARGEST_SHARD or metadata.num_rows > MOST_ROWS:
        raise MTDriveError(f"{path} holds more than a block of scenes can; record the dataset again.")


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
    """Path of the image with content hash `name`.

    Raises:
        MTDriveError: the name is not a hash.
    """
    return root / "images" / f"{image_hash_name(name)}.jpg"
