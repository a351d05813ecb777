"""Images as model inputs, each decoded and processed once on a machine.

What the image processor makes of an image lies in shared memory under the image's content hash, and is mapped from
there: the processes of a run, and the run that goes on after it was killed, share it, and no image is ever pickled. A
file there that is damaged, or not what its name says, is made anew.
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
INPUTS, NAME = ".safetensors", ".hash"
HASH = re.compile(r"[0-9a-f]{32}")


class ImageInputs:
    """The image processor's output by content hash; beyond a limit, what was not used for longest is forgotten.

    A context manager: on leaving, the machine's last process of the run frees the memory (see `run_folder`).

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
        run = [str(Path(out).resolve()), transformers.__version__, self._image_processor.to_dict()]
        roots = SHARED_MEMORY, Path(tempfile.gettempdir())
        self._run = RunFolder(roots, _digest(json.dumps(run, sort_keys=True, default=str)))
        self._folder = self._run.path
        self._limit = min(limit, shutil.disk_usage(self._folder).free // 2)
        self._unchecked = 0  # bytes written since the limit was last held against all that is there

    def __enter__(self) -> ImageInputs:
        return self

    def __exit__(self, *_) -> None:
        self._run.leave()

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        """Tensors `pixel_values`, `image_grid_thw`... of the image with that hash, as the model takes them.

        Raises:
            MTDriveError: no hash.
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

    def _load(self, name: str) -> dict[str, Tensor] | None:
        """Tensors that are mapped, not read; None where there are none, or none of that image."""
        path = self._folder / (name + INPUTS)
        try:
            with safe_open(path, "pt") as file:
                if file.metadata() != {"image": name}:
                    return None
                inputs = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
            _touch(path)
        except (OSError, SafetensorError):  # forgotten by another process, not made yet, or damaged
            return None
        return inputs

    def _process(self, name: str, image: np.ndarray) -> dict[str, Tensor]:
        inputs = dict(self._image_processor(image, return_tensors="pt"))
        try:
            with atomic_path(self._folder / (name + INPUTS)) as temporary:
                save_file(inputs, temporary, {"image": name})
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
        return FileLock(self._folder / f"{name[:2]}.lock")


def _digest(data: bytes | str) -> str:
    return hashlib.blake2b(data.encode() if isinstance(data, str) else data, digest_size=16).hexdigest()


def _touch(path: Path) -> None:
    now = time.time_ns()  # left to the kernel, uses within a few milliseconds would all have the same time
    os.utime(path, ns=(now, now))


def _read(path: Path) -> str | None:
    try:
        _touch(path)
        name = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    return name if HASH.fullmatch(name) else None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process has just forgotten it
        return None
