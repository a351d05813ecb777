"""Where this user's caches go, also if the home is missing or read-only (`docker run --user`).

Caches hold code that is run: compiled kernels and pickles. A folder in /tmp, where everybody can make folders, is used
only if it belongs to this user and is closed to all others. platformdirs names ~/.cache even where there is no home.
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
    """Whether files can be written to the folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def without_home() -> None:
    """Point libraries that cache at home to a folder that can be written to, here and in child processes."""
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
