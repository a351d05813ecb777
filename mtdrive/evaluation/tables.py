"""Reading tables of scores, as `mtdrive evaluate` and `mtdrive score` write them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

TEXTS = ("token", "family", "policy", "status", "metric")


def read_scores(path: Path) -> pd.DataFrame:
    """A table of scores; texts as they stand there, though pandas takes NA for nothing and hex digits for numbers."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = table.columns.difference(TEXTS)
    table[numbers] = table[numbers].apply(pd.to_numeric)
    return table
