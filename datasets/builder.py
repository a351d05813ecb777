"""Record a dataset: scenes in, parquet shards and images out, in parallel and resumable.

Layout: `samples/part-00000.parquet` (one shard for each block of scenes), `images/<hash>.jpg` (each camera image
once), `recording.json` (what is being recorded, written first), `manifest.json` (what came out, written last).
A shard is written atomically, so a run that was killed leaves whole shards, which the next run keeps.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from mtdrive.datasets.counts import summarise
from mtdrive.datasets.reader import read_object
from mtdrive.datasets.recording import Recording
from mtdrive.datasets.schema import LEFT_OUT, SCHEMA
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene_cache.image_check import has_image, without_image
from mtdrive.simulation.scene_cache.store import SceneStore

SCENES_PER_SHARD = 32


def record(
    recording: Recording, store: SceneStore, workers: int, scenes_per_shard: int = SCENES_PER_SHARD
) -> tuple[dict, int]:
    """Record the samples of scenes; returns the manifest, and how many samples were recorded now.

    Raises:
        MTDriveError: too many of the scenes have no image, `out` holds something else, or another run is at work there.
    """
    tokens = sorted(store.tokens)
    with only_run_in(recording.out):
        return _record(recording, store, tokens, workers, scenes_per_shard)


def _record(
    recording: Recording, store: SceneStore, tokens: list[str], workers: int, scenes_per_shard: int
) -> tuple[dict, int]:
    out = recording.out
    identity = recording.identity(tokens, [store.fingerprint(token) for token in tokens])
    claim(out, identity)
    blocks = {
        out / "samples" / f"part-{index:05d}.parquet": tokens[start : start + scenes_per_shard]
        for index, start in enumerate(range(0, len(tokens), scenes_per_shard))
    }
    left = [(path, block) for path, block in blocks.items() if not path.exists()]
    without_image(recording.sensor_root, store, tokens, recording.max_missing_images, workers)
    new, done = 0, len(tokens) - sum(len(block) for _, block in left)
    with tqdm(total=len(tokens), initial=done, unit="scene", desc="record") as bar:
        for scenes, samples in map_unordered(partial(write_shard, recording), left, workers):
            new += samples
            bar.update(scenes)
    manifest = identity | summarise(list(blocks))
    with atomic_path(out / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=2))
    return manifest, new


def claim(out: Path, identity: dict) -> None:
    """Mark `out` as holding this recording, or refuse if it holds another one."""
    marker = out / "recording.json"
    if marker.exists():
        recorded = read_object(marker)
        if changed := [key for key, value in identity.items() if recorded.get(key) != value]:
            raise MTDriveError(
                f"{out} holds another recording, of other {', '.join(changed)} (see {marker}); delete it or choose "
                "another out=."
            )
        return
    if (out / "samples").exists():
        raise MTDriveError(f"{out} holds samples of unknown origin; delete it or choose another out=.")
    with atomic_path(marker) as path:
        path.write_text(json.dumps(identity, indent=2))


def write_shard(recording: Recording, job: tuple[Path, list[str]]) -> tuple[int, int]:
    """Record a block of scenes into one parquet file; returns the numbers of its scenes and samples."""
    path, tokens = job
    store = SceneStore(recording.cache_root, recording.scene_set.store)
    rows, left_out = [], []
    for token in tokens:
        scene = store.load(token)
        if has_image(recording.sensor_root, scene):
            rows += recording.rows(scene)
        else:
            left_out.append(token)
    schema = SCHEMA.with_metadata({LEFT_OUT: json.dumps(left_out)})
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
    return len(tokens), len(rows)
