"""`mtdrive cache`: compile the scenes of a filter or split into memory-mappable scene caches."""

from __future__ import annotations

import time
from itertools import islice

from rich.console import Console
from rich.text import Text

from mtdrive.settings.data import CacheSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene_cache.build import CacheReport, build_caches, build_synthetic_caches
from mtdrive.simulation.scene_cache.image_check import check_images
from mtdrive.simulation.scene_cache.store import SYNTHETIC, SceneStore
from mtdrive.terminal import terminal

NAMED = 3  # scenes without a front image, of each log, or without a log, that are named
MANY = 20  # failures that are printed


def run(config: CacheSettings) -> int:
    """Build the caches; exit status 1 if a scene failed, or if images were to be checked and one does not read."""
    started = time.perf_counter()
    cache_root, chosen = config.cache_root, config.scene_filter
    report = build_caches(
        config.data_root,
        config.maps_root,
        chosen,
        cache_root,
        tokens=config.named_tokens,
        log_names=config.log_names,
        workers=config.workers,
        alone=True,
    )
    console = terminal()
    tell(report, console)
    folder = cache_root / chosen.scene_set.store
    console.print(f"{folder}: {counts(report)}, {time.perf_counter() - started:.1f} s")
    if report.absent and chosen.tokens is not None:
        console.print(
            f"{len(report.absent):,} of the {len(chosen.tokens):,} scenes of {chosen.scene_set} are in no log that is "
            f"here, such as {', '.join(report.absent[:NAMED])}"
        )
    second = compile_second_stage(config, console)
    complete = not (config.check_images and report.scenes) or _have_images(config, report.scenes)
    return 0 if complete and not report.failed and not second.failed else 1


def tell(report: CacheReport, console: Console) -> None:
    """Name the scenes that failed, or the first of many."""
    for name, reason in islice(report.failed.items(), MANY):
        console.print(Text.assemble((name, "red"), f": {reason}"))
    if len(report.failed) > MANY:
        console.print(f"... and {len(report.failed) - MANY:,} more")


def counts(report: CacheReport) -> str:
    """What a build did, in numbers."""
    return f"{len(report.built)} built, {len(report.skipped)} up to date, {len(report.failed)} failed"


def compile_second_stage(config: CacheSettings, console: Console) -> CacheReport:
    """Compile the synthetic scenes of a two-stage filter, if it is known where they are."""
    tokens = config.scene_filter.synthetic_tokens
    if config.synthetic_scenes is None:
        if tokens:
            console.print(
                f"{len(tokens):,} scenes of the second stage left out; give synthetic_scenes=... to compile them"
            )
        return CacheReport()
    if not tokens:
        raise MTDriveError(f"{config.scene_filter.scene_set} has no second stage; leave synthetic_scenes out.")
    report = build_synthetic_caches(
        config.synthetic_scenes, config.maps_root, config.cache_root, tokens, workers=config.workers
    )
    tell(report, console)
    console.print(f"{config.cache_root / SYNTHETIC}: {counts(report)}")
    return report


def _have_images(config: CacheSettings, tokens: list[str]) -> bool:
    """Whether all of these scenes have a front image; prints log by log which do not."""
    store, console = SceneStore.of(config.cache_root, config.scene_filter), terminal()
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
