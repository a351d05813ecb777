"""Images as model inputs, each decoded and processed once on a machine.

What the image processor makes of an image lies in shared memory under the image's content hash, and is mapped from
there: the processes of a run, and the run that goes on after it was killed, share it, and no image is ever pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.processing_utils import ProcessorMixin

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.files import atomic_path
from mtdrive.simulation.navsim_format.images import decode_image, image_hash

SHARED_MEMORY = Path("/dev/shm")
LIMIT = 2**30  # bytes
INPUTS, NAME = ".safetensors", ".hash"


class ImageInputs:
    """The image processor's output by content hash; beyond a limit, what was not used for longest is forgotten.

    A context manager: on leaving, the machine's first process of the run (LOCAL_RANK 0) frees the memory.

    Args:
        processor: of the planner.
        read_image: image hash -> (H, W, 3) uint8 RGB.
        out: folder of the run; processes of one `out` share their images.
        limit: bytes of shared memory, and at most half of what is free.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        read_image: Callable[[str], np.ndarray],
        out: Path | str,
        limit: int = LIMIT,
    ):
        self._image_processor, self._read_image = processor.image_processor, read_image
        root = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        settings = [transformers.__version__, self._image_processor.to_dict()]
        self._run = root / f"mtdrive-{os.getuid()}-{_digest(str(Path(out).resolve()))}"
        self._folder = self._run / _digest(json.dumps(settings, sort_keys=True, default=str))
        self._limit = min(limit, shutil.disk_usage(root).free // 2)
        self._unchecked = 0  # bytes written since the limit was last held against all that is there
        self._first = os.environ.get("LOCAL_RANK", "0") == "0"
        if self._first and self._run.is_dir():
            for other in self._run.iterdir():
                if other != self._folder:  # of a run of this `out` that was killed and had other settings
                    shutil.rmtree(other, ignore_errors=True)

    def __enter__(self) -> ImageInputs:
        return self

    def __exit__(self, *_) -> None:
        if self._first:
            shutil.rmtree(self._run, ignore_errors=True)

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        """Tensors `pixel_values`, `image_grid_thw`... of the image with that hash, as the model takes them."""
        path = self._folder / (name + INPUTS)
        if (inputs := _load(path)) is not None:
            return inputs
        with self._lock(name):
            if (inputs := _load(path)) is not None:
                return inputs
            return self._process(name, self._read_image(name))

    def hash_of(self, path: Path) -> str:
        """Content hash of the image in a file, which is decoded only where no process of the run has seen it.

        Raises:
            MTDriveError: the file is truncated or no image.
        """
        digest = _digest(path.read_bytes())
        known = self._folder / (digest + NAME)
        if (name := _read(known)) is not None:
            return name
        with self._lock(digest):
            if (name := _read(known)) is not None:
                return name
            image = decode_image(path)
            name = image_hash(image)
            self._process(name, image)
            with atomic_path(known) as temporary:
                temporary.write_text(name)
            return name

    def _process(self, name: str, image: np.ndarray) -> dict[str, Tensor]:
        inputs = dict(self._image_processor(image, return_tensors="pt"))
        try:
            with atomic_path(self._folder / (name + INPUTS)) as temporary:
                save_file(inputs, temporary)
                _touch(temporary)
        except (OSError, SafetensorError) as error:
            raise MTDriveError(
                f"Cannot keep processed images in {self._folder} ({error}); free space there."
            ) from error
        self._unchecked += sum(tensor.nbytes for tensor in inputs.values())
        if self._unchecked > self._limit // 16:
            self._unchecked = 0
            self._forget()
        return inputs

    def _forget(self) -> None:
        files = []
        for path in self._folder.iterdir():
            if path.suffix in (INPUTS, NAME) and (status := _status(path)):
                files.append((status.st_mtime_ns, status.st_blocks * 512, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _lock(self, name: str) -> FileLock:
        """So that two processes never process the same image at the same time."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileLock(self._folder / f"{name[:2]}.lock")


def _digest(data: bytes | str) -> str:
    return hashlib.blake2b(data.encode() if isinstance(data, str) else data, digest_size=16).hexdigest()


def _touch(path: Path) -> None:
    now = time.time_ns()  # left to the kernel, uses within a few milliseconds would all have the same time
    os.utime(path, ns=(now, now))


def _load(path: Path) -> dict[str, Tensor] | None:
    """Tensors that are mapped, not read; None where another process has forgotten them or none has made them yet."""
    try:
        inputs = load_file(path)
        _touch(path)
    except FileNotFoundError:
        return None
    return inputs


def _read(path: Path) -> str | None:
    try:
        _touch(path)
        return path.read_text()
    except FileNotFoundError:
        return None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process has just forgotten it
        return None
