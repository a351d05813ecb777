"""Statistics of a recording: numbers of samples by every column that it is balanced over, and a hash of every shard."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from mtdrive.datasets.schema import LEFT_OUT

COUNTED = ("kind", "turns", "family", "issue", "verdict")


def summarise(shards: list[Path]) -> dict:
    """Counts of samples, mean scores of refinements, and hashes, for JSON; one shard in memory at a time.

    counts: column -> value -> samples, most frequent first, without empty values. `flawed_by_source` and
    `targets_by_source` count the first and the last plans of planning and refinement.
    """
    counts: dict[str, Counter[str]] = {
        column: Counter() for column in (*COUNTED, "flawed_by_source", "targets_by_source")
    }
    first = last = 0.0
    left_out: list[str] = []
    for shard in shards:
        left_out += json.loads((pq.read_schema(shard).metadata or {}).get(LEFT_OUT.encode(), b"[]"))
        for row in pq.read_table(shard, columns=[*COUNTED, "scores", "sources"]).to_pylist():
            for column in COUNTED:
                counts[column][str(row[column])] += row[column] != ""
            if row["kind"] in ("planning", "refinement"):
                counts["targets_by_source"][row["sources"][-1]] += 1
            if row["kind"] == "refinement":
                counts["flawed_by_source"][row["sources"][0]] += 1
                first += row["scores"][0]
                last += row["scores"][-1]
    refined = counts["kind"]["refinement"]
    return {
        "samples": counts["kind"].total(),
        "scenes_without_image": left_out,
        "counts": {column: dict((+counter).most_common()) for column, counter in counts.items()},
        "mean_score_of_first_plans": first / refined if refined else None,
        "mean_score_of_corrections": last / refined if refined else None,
        "shards": {shard.name: file_digest(shard) for shard in shards},
    }


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
