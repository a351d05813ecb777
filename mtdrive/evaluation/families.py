"""Which family each scene belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.json_files import read_json


def read_families(path: str) -> dict[str, str]:
    """Family by token, from a CSV file with columns `token` and `family` or a synthetic world's manifest.json.

    Raises:
        MTDriveError: the file is missing or is neither.
    """
    try:
        if path.endswith(".json"):
            manifest: Any = read_json(Path(path))
            return {scene["token"]: scene["family"] for scene in manifest["scenes"]}
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return dict(zip(table["token"], table["family"], strict=True))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise MTDriveError(
            f"families={path} is neither a CSV file with columns token and family nor a world's manifest.json."
        ) from error
