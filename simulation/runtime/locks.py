"""Locks on folders and files that end with the process that holds them, however it ends.

The kernel releases a `flock` when the last process that has inherited it ends. A killed run leaves its lock file, which
blocks nobody. Between machines that share a folder over NFS a lock holds if the server supports locks.
filelock leaves its lock file behind, does not name the holder, and keeps the descriptor to pass on to itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import HOST, CannotWrite

LOCK = ".lock"


@contextmanager
def only_run_in(out: Path) -> Iterator[int | None]:
    """Make a folder and hold its lock; yields the descriptor. A process that inherits it holds the lock, too.

    The processes of `accelerate launch` are one run, whose first process holds the lock; the others get None.

    Raises:
        MTDriveError: another run, or a process that it left behind, holds it.
        CannotWrite: the folder cannot be made or written to.
    """
    if os.environ.get("RANK", "0") != "0":
        yield None
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"Cannot write to {out}: {error.strerror}.") from error
    with locked(out / LOCK, wait=False) as lock:
        yield lock


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[int]:
    """Hold a lock file, which names its holder, in an existing folder; yields the descriptor.

    The last holder removes the file.

    Raises:
        MTDriveError: another process holds it, and this one is not to wait.
        CannotWrite: the file cannot be made, locked or written.
    """
    lock = _opened(path, wait)
    try:
        yield lock
    finally:
        os.close(lock)
        _remove_if_free(path)


def _remove_if_free(path: Path) -> None:
    """Remove the file, unless another process has it: one that waited, or one that inherited it."""
    with suppress(OSError):
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                path.unlink()
        finally:
            os.close(lock)


def _opened(path: Path, wait: bool) -> int:
    """The file, locked."""
    while True:
        try:
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise CannotWrite(f"Cannot write to {path.parent}: {error.strerror} ({path.name}).") from error
        try:
            _take(lock, path, wait)
        except BaseException:
            os.close(lock)
            raise
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # the one before removed it meanwhile


def _take(lock: int, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {HOST}".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(lock, 256, 0).decode(errors="replace")
        raise MTDriveError(
            f"Another run is at work in {path.parent}{holder and f' ({holder})'}; wait for it to end or choose another "
            "folder."
        ) from error
    except OSError as error:
        raise CannotWrite(f"Cannot write to {path.parent}: {error.strerror} ({path.name}).") from error
