"""Where this user's caches go, also for a user without a home that can be written to (`docker run --user`).

What lies there is run: compiled code and pickles. In the folder for temporary files, where everybody can make folders,
one is used only if it is this user's and closed to all others.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from mtdrive.simulation.runtime.private_folders import make_private


@lru_cache
def cache_home() -> Path:
    """XDG_CACHE_HOME, ~/.cache, or a private folder for temporary files: the first that can be written to."""
    for folder in (os.environ.get("XDG_CACHE_HOME", ""), at_home()):
        if os.path.isabs(folder) and writable(Path(folder)):
            return Path(folder)
    private = Path(tempfile.gettempdir()) / f"mtdrive-{os.getuid()}"
    if _is_private(private):
        return private
    own = Path(tempfile.mkdtemp(prefix="mtdrive-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def at_home() -> str:
    """~/.cache; where the user has no home, that is no absolute path."""
    return os.path.join(os.path.expanduser("~"), ".cache")


def writable(folder: Path) -> bool:
    """Whether the folder is there, or can be made, and takes files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def without_home() -> None:
    """Tell libraries that keep caches at home, and the processes to come, where they can, if there is no home."""
    if os.path.isabs(at_home()) and writable(Path(at_home())):
        return
    folder = cache_home()
    os.environ["XDG_CACHE_HOME"] = str(folder)
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "torchinductor"))  # else named after the user


def _is_private(folder: Path) -> bool:
    try:
        return make_private(folder) is None
    except OSError:
        return False
