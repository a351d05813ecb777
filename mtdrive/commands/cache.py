"""`mtdrive cache`: compile the scenes of a split into memory-mappable scene caches."""

from __future__ import annotations

import time
from itertools import islice

from rich.text import Text

from mtdrive.settings.data import CacheSettings
from mtdrive.simulation.scene_cache.image_check import check_images
from mtdrive.simulation.scene_cache.store import SceneStore, build_caches
from mtdrive.terminal import terminal

NAMED = 3  # scenes of a log without a front image that are named


def run(config: CacheSettings) -> int:
    """Build the caches; exit status 1 if a scene failed, or if images were to be checked and one does not read."""
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
    scenes = list(dict.fromkeys([*report.built, *report.skipped]))  # a scene of two logs is compiled for either
    complete = not (config.check_images and scenes) or _have_images(config, scenes)
    return 0 if complete and not report.failed else 1


def _have_images(config: CacheSettings, tokens: list[str]) -> bool:
    """Whether all of these scenes have a front image; prints log by log which do not."""
    store, console = SceneStore(config.cache_root, config.split), terminal()
    logs = check_images(config.data_root, store, tokens, config.workers)
    lacking = [log for log in logs if log.lacking]
    for log in lacking:
        count = f": {len(log.lacking)} of {log.scenes} front images are missing or do not read"
        console.print(Text.assemble((log.log_name, "red"), count))
        for token, reason in islice(log.lacking.items(), NAMED):
            console.print(f"  {token}: {reason}")
        if len(log.lacking) > NAMED:
            console.print("  ...")
    missing = sum(len(log.lacking) for log in lacking)
    found = f"{missing:,} are missing or do not read, in {len(lacking)} of {len(logs)} logs" if missing else "all there"
    console.print(f"front images of {len(tokens):,} scenes: {found}")
    return not missing
