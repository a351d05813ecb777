"""Verify a recorded dataset: simulate some of its rows again and name whatever disagrees.

A row's plans are taken as given; scores, feedback, answers and the rendered conversation must follow from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mtdrive.datasets.counts import file_digest
from mtdrive.datasets.flawed import NO_PLANS
from mtdrive.datasets.material import Material
from mtdrive.datasets.reader import check_shard, load_image, read_manifest, scene_set_of
from mtdrive.datasets.recipe import Recipe
from mtdrive.datasets.recording import ToMessages, contents
from mtdrive.datasets.samples.comparison import comparison
from mtdrive.datasets.samples.refinement import exchange
from mtdrive.datasets.samples.understanding import question
from mtdrive.datasets.schema import Interaction, Sample, Target
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.navsim_format.images import image_hash
from mtdrive.simulation.navsim_format.names import shard_name
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import score

TOLERANCE = 1e-9  # of scores


@dataclass(frozen=True)
class Problem:
    """Something in a dataset that disagrees with the simulation."""

    where: str
    """Id of a row, or name of a file."""

    what: str
    """What is wrong, to be read after `where`."""


def verify_dataset(
    root: Path, cache_root: Path, to_messages: ToMessages, rows: int, seed: int, workers: int
) -> tuple[int, list[Problem]]:
    """Simulate up to `rows` rows again, drawn evenly; also look at the hashes of all shards and the ids of all rows.

    Returns how many rows were simulated, and the problems.

    Raises:
        MTDriveError: the folder holds no finished recording, or its split has no scene cache.
    """
    manifest = read_manifest(root)
    problems, ids = [], []
    for name, digest in manifest["shards"].items():
        path = root / "samples" / shard_name(name)
        if not path.exists():
            problems.append(Problem(name, "is missing"))
            continue
        if file_digest(path) != digest:
            problems.append(Problem(name, "is not the file that was recorded"))
        check_shard(path)
        ids += [(name, row["id"]) for row in pq.read_table(path, columns=["id"]).to_pylist()]
    problems += [Problem(key, "stands there twice") for key, count in Counter(i for _, i in ids).items() if count > 1]
    if len(ids) != manifest["samples"]:
        problems.append(Problem("manifest.json", f"counts {manifest['samples']} samples, the shards {len(ids)}"))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:rows])
    jobs = [
        (root / "samples" / name, {key for _, key in group})
        for name, group in groupby((ids[index] for index in chosen), key=lambda entry: entry[0])
    ]
    work = partial(verify_rows, root, cache_root, manifest, to_messages)
    return len(chosen), problems + [problem for found in map_unordered(work, jobs, workers) for problem in found]


def verify_rows(
    root: Path, cache_root: Path, manifest: dict, to_messages: ToMessages, job: tuple[Path, set[str]]
) -> list[Problem]:
    """The problems of the named rows of a shard."""
    path, ids = job
    store, recipe = SceneStore(cache_root, scene_set_of(manifest, root).store), Recipe(**manifest["recipe"])
    table = pq.read_table(path)
    rows = table.filter([key in ids for key in table["id"].to_pylist()]).to_pylist()
    provenance = {"metric_version": manifest["metric_version"], "generator": manifest["generator"]}
    problems = []
    for token, group in groupby(rows, key=lambda row: row["token"]):
        try:
            material = Material(store.load(token), recipe, NO_PLANS)
        except MTDriveError as error:
            problems += [Problem(row["id"], str(error)) for row in group]
            continue
        for row in group:
            problems += [Problem(row["id"], what) for what in disagreements(row, material, provenance, to_messages)]
            if not has_image(root, row["image"]):
                problems.append(Problem(row["id"], f"its image {row['image']}.jpg is missing or was changed"))
    return problems


def disagreements(row: dict, material: Material, provenance: dict, to_messages: ToMessages) -> Iterator[str]:
    """What in a row does not follow from its plans."""
    sample = rebuild_sample(row, material)
    expected = contents(material.scene, row["image"], sample, material.recipe, to_messages) | provenance
    for column, value in expected.items():
        if not agrees(row[column], value):
            yield f"{column} is {shorten(row[column])}, and should be {shorten(value)}"
    if row["kind"] == "refinement" and row["scores"][-1] <= max(row["scores"][:-1]):
        yield "its corrected plan does not score higher than the plans before it"


def rebuild_sample(row: dict, material: Material) -> Sample:
    """The sample that a row's plans and sources make, with everything else computed anew."""
    plans, sources, scene = np.array(row["plans"]), row["sources"], material.scene
    if row["kind"] == "comparison":
        return comparison(material, plans, tuple(sources))
    if row["kind"] in ("collision", "off_road"):
        return question(material, row["kind"], plans, tuple(sources))
    recipe, metric = material.recipe, material.recipe.metric
    target = Target(plans[-1], sources[-1], float(score(scene, plans[-1:], metric=metric).score[0]))
    earlier = []
    if len(plans) > 1:
        earlier = assess(scene, plans[:-1], metric=metric, source=recipe.feedback, steps=recipe.feedback_steps)
    exchanges = [exchange(*turn) for turn in zip(plans[:-1], sources[:-1], earlier, strict=True)]
    return Interaction(scene.token, tuple(exchanges), target)


def agrees(recorded: Any, expected: object) -> bool:
    """Equality; of numbers within the tolerance."""
    if isinstance(expected, float):
        return abs(recorded - expected) <= TOLERANCE
    if isinstance(expected, list):
        return len(recorded) == len(expected) and all(map(agrees, recorded, expected))
    if isinstance(expected, dict):  # parquet fills absent keys with None
        return all(agrees(recorded[key], expected.get(key)) for key in recorded)
    return recorded == expected


def has_image(root: Path, name: str) -> bool:
    """Whether the image with that hash is there."""
    try:
        return image_hash(load_image(root, name)) == name
    except (MTDriveError, OSError):
        return False


def shorten(value: object) -> str:
    """The text of a value, without its middle where it is long."""
    text = str(value)
    return text if len(text) <= 120 else f"{text[:60]} ... {text[-55:]}"
