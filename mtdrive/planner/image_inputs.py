"""Images as model inputs, each decoded and processed once on a machine.

The output of the image processor is a file in shared memory, named after the image's content hash and mapped from
there: all processes of a run share it, and so does a run that resumes after it was killed. No image is ever pickled. A
file that is damaged, or does not hold what its name says, is replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import transformers
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import ProcessorMixin

from mtdrive.planner.run_folder import RunFolder
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import decode_image, image_hash
from mtdrive.simulation.runtime.files import atomic_path

SHARED_MEMORY = Path("/dev/shm")
LIMIT = 2**30  # bytes
TENSORS_SUFFIX, HASH_SUFFIX = ".safetensors", ".hash"
HASH = re.compile(r"[0-9a-f]{32}")


class ImageInputs:
    """The image processor's output by content hash; beyond a limit, the least recently used images are removed.

    A context manager: the last process of the run on this machine frees the memory when it leaves (see `run_folder`).

    Args:
        processor: of the planner.
        read_image: content hash of an image -> (H, W, 3) uint8 RGB.
        out: folder of the run; processes with the same `out` share their images.
        limit: most bytes of shared memory; never more than half of what is free.
        shared_memory: where processed images are kept; without a private folder there, among temporary files.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        read_image: Callable[[str], np.ndarray],
        out: Path | str,
        limit: int = LIMIT,
        shared_memory: Path = SHARED_MEMORY,
    ):
        self._image_processor, self._read_image = processor.image_processor, read_image
        run = [str(Path(out).resolve()), transformers.__version__, self._image_processor.to_dict()]
        roots = shared_memory, Path(tempfile.gettempdir())
        self._run = RunFolder(roots, _digest(json.dumps(run, sort_keys=True, default=str)))
        self._folder = self._run.path
        self._limit = min(limit, shutil.disk_usage(self._folder).free // 2)
        self._unchecked = 0  # bytes written since all files were last counted against the limit

    def __enter__(self) -> ImageInputs:
        return self

    def __exit__(self, *_: object) -> None:
        self._run.leave()

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        """Inputs of the model for the image with that hash: `pixel_values` (patches, channels * pixels), and others.

        Raises:
            MTDriveError: `name` is no content hash, or there is no room for the processed image.
        """
        if not name.isalnum():
            raise MTDriveError(f"{name!r} is no content hash of an image.")
        if (inputs := self._load(name)) is not None:
            return inputs
        with self._lock(name):
            if (inputs := self._load(name)) is not None:
                return inputs
            return self._process(name, self._read_image(name))

    def hash_of(self, path: Path) -> str:
        """Content hash of the image in a file, which is decoded only if no process of the run has done so before.

        Raises:
            MTDriveError: the file is truncated or no image.
        """
        digest = _digest(path.read_bytes())
        hash_file = self._folder / (digest + HASH_SUFFIX)
        if (name := _read_hash(hash_file)) is not None:
            return name
        with self._lock(digest):
            if (name := _read_hash(hash_file)) is not None:
                return name
            image = decode_image(path)
            name = image_hash(image)
            self._process(name, image)
            with atomic_path(hash_file) as temporary:
                temporary.write_text(name)
            return name

    def _load(self, name: str) -> dict[str, Tensor] | None:
        """Memory-mapped tensors; None if there is no whole file of that image."""
        path = self._folder / (name + TENSORS_SUFFIX)
        try:
            with safe_open(path, "pt") as file:
                if file.metadata() != {"image": name}:
                    return None
                inputs = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            _mark_used(path)
        except (OSError, SafetensorError):  # not made yet, removed by another process, or damaged
            return None
        return inputs

    def _process(self, name: str, image: np.ndarray) -> dict[str, Tensor]:
        inputs = dict(self._image_processor(image, return_tensors="pt"))
        try:
            with atomic_path(self._folder / (name + TENSORS_SUFFIX)) as temporary:
                save_file(inputs, temporary, {"image": name})
                _mark_used(temporary)
        except (OSError, SafetensorError) as error:
            raise MTDriveError(
                f"Cannot keep processed images in {self._folder} ({error}); free space there."
            ) from error
        self._unchecked += sum(tensor.nbytes for tensor in inputs.values())
        if self._unchecked > self._limit // 16:
            self._unchecked = 0
            self._remove_least_recently_used()
        return inputs

    def _remove_least_recently_used(self) -> None:
        files = []
        for path in self._folder.iterdir():
            if path.suffix in (TENSORS_SUFFIX, HASH_SUFFIX) and (status := _status(path)):
                files.append((status.st_mtime_ns, status.st_blocks * 512, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _lock(self, name: str) -> FileLock:
        """Keeps two processes from processing the same image at the same time."""
        return FileLock(self._folder / f"{name[:2]}.lock")


def _digest(data: bytes | str) -> str:
    return hashlib.blake2b(data.encode() if isinstance(data, str) else data, digest_size=16).hexdigest()


def _mark_used(path: Path) -> None:
    now = time.time_ns()  # the kernel's own clock would give all uses within a few milliseconds the same time
    os.utime(path, ns=(now, now))


def _read_hash(path: Path) -> str | None:
    try:
        _mark_used(path)
        name = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    return name if HASH.fullmatch(name) else None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process has just removed it
        return None
