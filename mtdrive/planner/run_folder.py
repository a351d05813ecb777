"""A private folder for the processes of one run, in shared memory or another place that every user can write to.

`<root>/mtdrive-images-<user id>/<name>`: other users can guess the name and make the folder first, so it is used only
if it is no link, belongs to this user and nobody else can enter it. Every process of the run holds the folder's lock,
which ends with the process; the last one to leave removes the folder, and a run that starts removes those of runs that
were killed.
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
    """A folder that exists until every process of the run has called `leave` or ended.

    Args:
        roots: places for the folder; the first in which this user can have a private one is taken.
        name: of the run, the same in all its processes and when it resumes.

    Raises:
        MTDriveError: there is no such place.

    Attributes:
        path: the folder.
    """

    def __init__(self, roots: Sequence[Path], name: str):
        base = _base(roots)
        for entry in os.scandir(base):
            if entry.name != name and entry.is_dir(follow_symlinks=False):
                with suppress(OSError), _open_lock(Path(entry.path)) as lock:
                    _remove_if_alone(Path(entry.path), lock)
        self.path = base / name
        self._lock = _enter(self.path)

    def leave(self) -> None:
        """Leave the folder, and remove it if no other process is in it."""
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


def _enter(path: Path) -> FileIO:
    """Make the folder if needed; returns its lock, shared with the other processes of the run."""
    while True:
        with suppress(FileNotFoundError):  # another process has just removed it
            if (reason := make_private(path)) is not None:
                raise MTDriveError(f"The folder {path} for processed images {reason}; remove it.")
            lock = _open_lock(path)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _exists(lock):
                return lock
            lock.close()


def _open_lock(path: Path) -> FileIO:
    return open(path / LOCK, "ab", buffering=0, opener=partial(_open_no_link, mode=0o600))


def _open_no_link(path: str, flags: int, mode: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode)


def _remove_if_alone(path: Path, lock: FileIO) -> None:
    """Remove the folder. Raises BlockingIOError if another process is in it."""
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if _exists(lock):
        shutil.rmtree(path, ignore_errors=True)


def _exists(lock: FileIO) -> bool:
    """Whether the lock's file still exists: the folder may have been removed before the lock was taken."""
    return os.fstat(lock.fileno()).st_nlink > 0
