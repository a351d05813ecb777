"""Read JSON of unknown origin: documents of bounded size and depth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LARGEST_JSON = 1 << 26  # bytes of a document
LARGEST_LINE = 1 << 22  # characters of a document that is one line of many


def read_json(path: Path) -> Any:
    """The document in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, is larger than LARGEST_JSON, or is nested too deep.
    """
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
    return _parsed(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> Iterator[Any]:
    """The documents in a file, one a line (JSONL). Raises as `read_json`."""
    with path.open(encoding="utf-8") as file:
        while line := file.readline(LARGEST_LINE):
            if len(line) == LARGEST_LINE:
                raise ValueError(f"a line has more than {LARGEST_LINE:,} characters")
            yield _parsed(line)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
