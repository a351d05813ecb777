"""A private folder in shared memory, or another place that all users write to, for the processes of one run.

`<root>/mtdrive-images-<user id>/<name>`: others may foresee the name and be there first, so a folder is used only
if it is no link, belongs to this user and nobody else may enter it. Every process of the run holds the folder's lock,
which dies with the process; the last one to leave removes the folder, and a run that starts removes what dead ones have
left.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.private_folders import make_private

logger = logging.getLogger(__name__)

LOCK = "lock"


class RunFolder:
    """The folder `path`, from now to `leave`, or to the end of the process.

    Args:
        roots: the first that lets this user have a private folder is taken.
        name: the same in all processes of a run and when it starts again.

    Raises:
        MTDriveError: no root does.
    """

    def __init__(self, roots: Sequence[Path], name: str):
        base = _base(roots)
        for entry in os.scandir(base):
            if entry.name != name and entry.is_dir(follow_symlinks=False):
                with suppress(OSError), _opened(Path(entry.path)) as lock:
                    _remove_if_alone(Path(entry.path), lock)
        self.path = base / name
        self._lock = _entered(self.path)

    def leave(self) -> None:
        """Remove the folder, unless other processes are still in it."""
        with suppress(BlockingIOError), self._lock as lock:
            _remove_if_alone(self.path, lock)


def _base(roots: Sequence[Path]) -> Path:
    refused = []
    for root in roots:
        base = root / f"mtdrive-images-{os.getuid()}"
        try:
            reason = make_private(base)
        except OSError as error:
            reason = f"cannot be made ({error.strerror})"
        if reason is None:
            return base
        logger.warning("The folder %s is not used: it %s.", base, reason)
        refused.append(f"{base} {reason}")
    raise MTDriveError(
        f"There is no private folder for processed images ({'; '.join(refused)}); remove it, or set TMPDIR to a folder "
        "of your own."
    )


def _entered(path: Path) -> FileIO:
    """The lock of the folder, held together with the other processes of the run."""
    while True:
        with suppress(FileNotFoundError):  # removed since, by one that left
            if (reason := make_private(path)) is not None:
                raise MTDriveError(f"The folder {path} for processed images {reason}; remove it.")
            lock = _opened(path)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _stands(lock):
                return lock
            lock.close()


def _opened(path: Path) -> FileIO:
    return open(path / LOCK, "ab", buffering=0, opener=partial(_open, mode=0o600))


def _open(path: Path, flags: int, mode: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode)


def _remove_if_alone(path: Path, lock: FileIO) -> None:
    """Raises BlockingIOError if another process is in the folder."""
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if _stands(lock):
        shutil.rmtree(path, ignore_errors=True)


def _stands(lock: FileIO) -> bool:
    """Whether this is still the folder's lock, not that of one removed before it could be taken."""
    return os.fstat(lock.fileno()).st_nlink > 0
