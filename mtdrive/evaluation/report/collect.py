"""Reading a run's folder, as `mtdrive quickstart` lays it out, into what a report shows."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pandas as pd

from mtdrive.evaluation.report.data import ReportData, StageRun


def collect(run: Path) -> ReportData:
    """Read a finished run.

    Raises:
        MTDriveError: a file of the run is missing or does not read.
    """
    return ReportData(
        "MTDrive",
        {},
        read_stages(run),
        pd.DataFrame(columns=["token", "policy", "feedback", "turn", "score", "status", "family"]),
        (),
        (),
    )


def read_stages(run: Path) -> tuple[StageRun, ...]:
    """The stages in the order in which they ended."""
    markers = sorted((run / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    contents = [json.loads(marker.read_text()) for marker in markers]
    names = [field.name for field in fields(StageRun)]
    return tuple(StageRun(**{name: content[name] for name in names}) for content in contents if content["done"])
