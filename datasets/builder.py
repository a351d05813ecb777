"""Recording a dataset: scenes in, parquet shards and images out, in parallel and resumable.

Layout: `samples/part-00000.parquet` (one shard for each block of scenes), `images/<hash>.jpg` (each camera image
once), `recording.json` (what is being recorded, written first), `manifest.json` (what came out, written last).
A shard is written atomically, so a run that was killed leaves whole shards, which the next run keeps.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from mtdrive.datasets.interactions import Recipe, interactions
from mtdrive.datasets.schema import SCHEMA, VERSION, Interaction
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.files import atomic_path
from mtdrive.simulation.navsim_format.images import image_hash, read_image
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore

SCENES_PER_SHARD = 32
ToMessages = Callable[[Scene, str, Interaction], list[dict]]


def record(
    sensor_root: Path, cache_root: Path, split: str, out: Path, recipe: Recipe, to_messages: ToMessages, workers: int
) -> dict:
    """Record the interactions of a split and return the manifest.

    sensor_root: an OPENSCENE_DATA_ROOT. cache_root: holds the scene caches. to_messages: renders (scene, image hash,
    interaction) as a conversation; a module-level function, because worker processes call it.

    Raises:
        MTDriveError: the split has no scene cache, an image is missing or damaged, or `out` holds something else.
    """
    tokens = sorted(SceneStore(cache_root, split).tokens)
    claim(
        out,
        {"version": VERSION, "split": split, "recipe": asdict(recipe), "scenes": len(tokens), "tokens": digest(tokens)},
    )
    blocks = {
        out / "samples" / f"part-{index:05d}.parquet": tokens[start : start + SCENES_PER_SHARD]
        for index, start in enumerate(range(0, len(tokens), SCENES_PER_SHARD))
    }
    left = {path: block for path, block in blocks.items() if not path.exists()}
    arguments = (sensor_root, cache_root, split, out, recipe, to_messages)
    with tqdm(
        total=len(tokens), initial=len(tokens) - sum(map(len, left.values())), unit="scene", desc="record"
    ) as bar:
        for path in run(left, arguments, workers):
            bar.update(len(left[path]))
    manifest = summarise(list(blocks), recipe, split)
    with atomic_path(out / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=2))
    return manifest


def claim(out: Path, identity: dict) -> None:
    """Mark `out` as holding this recording, or refuse if it holds another one."""
    marker = out / "recording.json"
    if marker.exists():
        if json.loads(marker.read_text()) != identity:
            raise MTDriveError(f"{out} holds another recording (see {marker}); delete it or choose another out=.")
        return
    if (out / "samples").exists():
        raise MTDriveError(f"{out} holds samples of unknown origin; delete it or choose another out=.")
    with atomic_path(marker) as path:
        path.write_text(json.dumps(identity, indent=2))


def digest(lines: list[str]) -> str:
    """Short hash of a list of strings."""
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def run(blocks: dict[Path, list[str]], arguments: tuple, workers: int) -> Iterator[Path]:
    """Write the shards, over processes if there is more than one worker; yield each as it is done."""
    if workers <= 1 or len(blocks) <= 1:
        for path, block in blocks.items():
            write_shard(path, block, *arguments)
            yield path
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(write_shard, path, block, *arguments): path for path, block in blocks.items()}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_shard(
    path: Path,
    tokens: list[str],
    sensor_root: Path,
    cache_root: Path,
    split: str,
    out: Path,
    recipe: Recipe,
    to_messages: ToMessages,
) -> None:
    """Record a block of scenes into one parquet file."""
    store = SceneStore(cache_root, split)
    rows = []
    for token in tokens:
        scene = store.load(token)
        image = store_image(sensor_root, split, scene.camera.image, out / "images")
        for index, sample in enumerate(interactions(scene, recipe)):
            rows.append(
                {
                    "id": f"{token}-{index}",
                    "token": token,
                    "turns": len(sample.exchanges) + 1,
                    "messages": to_messages(scene, image, sample),
                    "image": image,
                    "scores": [*(earlier.score for earlier in sample.exchanges), sample.target.score],
                    "sources": [*(earlier.source for earlier in sample.exchanges), sample.target.source],
                    "metric": recipe.metric,
                    "feedback": recipe.feedback,
                    "seed": recipe.seed,
                }
            )
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)


def store_image(sensor_root: Path, split: str, relative: str, folder: Path) -> str:
    """Keep one copy of an image under its content hash, which is returned."""
    name = image_hash(read_image(sensor_root, split, relative))
    target = folder / f"{name}.jpg"
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(sensor_root / "sensor_blobs" / split / relative, temporary)
    return name


def summarise(shards: list[Path], recipe: Recipe, split: str) -> dict:
    """The manifest: counts, mean scores by turn, and a hash of every shard."""
    turns, sources = Counter(), Counter()
    first, last = [], []
    for shard in shards:
        table = pq.read_table(shard, columns=["turns", "scores", "sources"])
        for row in table.to_pylist():
            turns[row["turns"]] += 1
            sources[row["sources"][-1]] += 1
            if row["turns"] > 1:
                first.append(row["scores"][0])
                last.append(row["scores"][-1])
    return {
        "version": VERSION,
        "split": split,
        "recipe": asdict(recipe),
        "samples": sum(turns.values()),
        "samples_by_turns": {str(key): turns[key] for key in sorted(turns)},
        "targets_by_source": dict(sources.most_common()),
        "mean_score_of_first_plans": float(np.mean(first)) if first else None,
        "mean_score_of_corrections": float(np.mean(last)) if last else None,
        "shards": {shard.name: hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards},
    }
