"""`kernel`: numba compilation with a disk cache that never serves outdated code.

numba notices a change in the file of a function, but not in the functions and constants that were compiled into it:
after an update it would go on running the old ones. The kernels of this package call each other across files, so their
cache lies in a folder named after the contents of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numba

from mtdrive.simulation.runtime.cache_home import cache_home, writable

PACKAGE = Path(__file__).resolve().parents[1]
CONSTANTS = ("scene.py", "vehicle.py", "dynamics/state.py")  # compiled into kernels, without kernels of their own


def fingerprint(package: Path) -> str:
    """Digest of a package's kernels and of the constants that are compiled into them."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        if b"@kernel" in source or path.relative_to(package).as_posix() in CONSTANTS:
            digest.update(source)
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    if configured := getattr(numba.config, "CACHE_DIR", ""):
        return Path(configured)
    beside = PACKAGE / "__pycache__"
    return beside if writable(beside) else cache_home() / "mtdrive"


KERNEL_CACHE = _cache_folder() / f"kernels-{fingerprint(PACKAGE)}"
numba.config.CACHE_DIR = str(KERNEL_CACHE)  # type: ignore[attr-defined]  # numba makes its options at run time


def kernel(function: Callable) -> Callable:
    """Compile on first use and keep the result on disk. Strict IEEE arithmetic: x / 0 is infinite or NaN, no error."""
    return numba.njit(cache=True, error_model="numpy")(function)
