"""Write files so that a reader, or a run that starts again, never finds half of one.

This holds for a process that is killed at any moment, not for a power cut: nothing waits for the disk.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError

HOST = socket.gethostname()
TEMPORARY = re.compile(rf"\..+\.(\d+)@{re.escape(HOST)}\.tmp")
MACHINE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # the disk
    | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}  # what is allowed
    | {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}  # the path
)
# Libraries that write files themselves (safetensors, pyarrow, SQLite, torch) report a full disk in their own words.
DISK_FULL_MESSAGES = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|database or disk is full|disk I/O error"
    r"|PytorchStreamWriter failed writing file|unexpected pos \d+ vs"
)
DISK_FULL = "the disk is full, or a limit on files is reached"
_unfinished: set[Path] = set()


class CannotWrite(MTDriveError):
    """The machine cannot write a file (disk full, no permission), so other files will fail as well."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` when the block ends without an exception.

    Raises:
        CannotWrite: the disk is full, the folder cannot be written to, or something else has the place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}@{HOST}.tmp")
    _unfinished.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        about = getattr(error, "filename", None) or temporary  # what is read meanwhile is another matter
        ours = Path(os.fsdecode(about)) in (temporary, path, *path.parents)
        if ours and (reason := cannot_write(error)):
            raise CannotWrite(f"Cannot write {path}: {reason}.") from error
        raise
    finally:
        with suppress(OSError):  # where its folder is none, it was never made
            temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def check_writable(path: Path) -> None:
    """Find out before long work whether its output file can be written; makes the folder.

    Raises:
        CannotWrite: as `atomic_path`.
    """
    if path.is_dir():
        raise CannotWrite(f"Cannot write {path}: it is a folder.")
    probe = path.with_name(f".{path.name}.probe")
    try:
        with atomic_path(probe) as temporary:
            temporary.write_bytes(bytes(4096))  # a full disk still takes empty files
        probe.unlink()
    except CannotWrite as error:
        raise CannotWrite(str(error).replace(str(probe), str(path))) from error


def cannot_write(error: BaseException) -> str | None:
    """Why the machine could not write a file (disk full, no permission), or None if the error is of another kind."""
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        return os.strerror(error.errno)
    return DISK_FULL if DISK_FULL_MESSAGES.search(str(error)) else None


def remove_unfinished() -> None:
    """Remove the files that this process has half written, if it ends without leaving `atomic_path`."""
    for path in list(_unfinished):
        path.unlink(missing_ok=True)


@cache
def _sweep(folder: Path) -> None:
    """Remove the files that killed processes of this machine have left half written in a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if (found := TEMPORARY.fullmatch(entry.name)) and not _alive(int(found[1])):
                Path(entry.path).unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
