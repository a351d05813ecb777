"""Folders for this user alone, in places such as /tmp where others can make folders and foresee their names."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def make_private(path: Path) -> str | None:
    """Make a folder that nobody else can enter. Returns why an existing one cannot be used, or None if it can.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder"
    if found.st_uid != os.getuid():
        return "belongs to somebody else"
    return "can be entered by others" if stat.S_IMODE(found.st_mode) & 0o077 else None
