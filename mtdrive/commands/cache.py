"""`mtdrive cache`: compile the scenes of a split into memory-mappable scene caches."""

from __future__ import annotations

import time

from rich.text import Text

from mtdrive.settings.data import CacheSettings
from mtdrive.simulation.scene_cache.store import build_caches
from mtdrive.terminal import terminal


def run(config: CacheSettings) -> int:
    """Build the caches; exit status 1 if a scene failed."""
    started = time.perf_counter()
    cache_root = config.cache_root
    report = build_caches(
        config.data_root,
        config.maps_root,
        config.split,
        cache_root,
        tokens=config.tokens,
        log_names=config.log_names,
        workers=config.workers,
        alone=True,
    )
    console = terminal()
    for name, reason in report.failed.items():
        console.print(Text.assemble((name, "red"), f": {reason}"))
    console.print(
        f"{cache_root / config.split}: {len(report.built)} built, {len(report.skipped)} up to date, "
        f"{len(report.failed)} failed, {time.perf_counter() - started:.1f} s"
    )
    return 1 if report.failed else 0
