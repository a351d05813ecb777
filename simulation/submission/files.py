"""Files of planned trajectories.

- `.npz` with the arrays KEYS.
- `.csv` with a row for each trajectory: token, x_0, y_0, heading_0, x_1, ...; the number of poses tells the interval.
- Any other name: the submission pickle of navsim's run_create_submission_pickle.py, of v1.1 or of v2 (predictions of
  both stages, one after the other).
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.names import scene_token
from mtdrive.simulation.navsim_format.pickle_names import Record
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.trajectory import SAMPLINGS, validate_batch

LARGEST_ARRAY = 1 << 28  # bytes of an array in an .npz, or of a .csv
KEYS = ("token", "poses", "interval_length")
POSE = ("x", "y", "heading")  # columns of a .csv, each with _k
PREDICTIONS = "predictions"  # of navsim v1.1
STAGES = ("first_stage_predictions", "second_stage_predictions")  # of navsim v2


@dataclass(frozen=True)
class Submission:
    """N planned trajectories."""

    tokens: np.ndarray
    """(N,) str, tokens of their scenes; a token may repeat."""
    poses: np.ndarray
    """(N, T, 3) x [m], y [m], heading [rad], as in `trajectory`."""
    interval: float
    """[s] between poses."""


def read_submission(path: Path) -> Submission:
    """Read a file of trajectories, of any kind that the module docstring lists.

    Raises:
        MTDriveError: the file is missing or damaged, or does not hold trajectories of one accepted sampling.
    """
    if not path.is_file():
        raise MTDriveError(f"There is no file {path}; trajectories=... takes an .npz, a .csv or a navsim submission.")
    submission = {".npz": _read_npz, ".csv": _read_csv}.get(path.suffix, _read_pickle)(path)
    if not len(submission.tokens):
        raise MTDriveError(f"{path} holds no trajectory.")
    try:
        for token in set(_texts(submission.tokens)):
            scene_token(token)
        validate_batch(submission.poses, submission.interval)
    except MTDriveError as error:
        raise MTDriveError(f"{path}: {error}") from None
    return submission


def _texts(tokens: np.ndarray) -> list[str]:
    try:
        return tokens.tolist()
    except (SystemError, ValueError):  # beyond Unicode
        raise MTDriveError("token holds what is no text.") from None


def _read_npz(path: Path) -> Submission:
    try:
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
            arrays = {key: _read_array(file, f"{key}.npy") for key in KEYS if f"{key}.npy" in names}
    except Exception as error:  # a damaged archive can raise almost any exception
        raise MTDriveError(f"Cannot read {path} as an .npz of plain arrays ({error}).") from error
    if missing := [key for key in KEYS if key not in arrays]:
        raise MTDriveError(f"{path} has no array {' or '.join(missing)}; it needs {', '.join(KEYS)}.")
    tokens, poses, interval = (arrays[key] for key in KEYS)
    if tokens.ndim != 1 or tokens.dtype.kind != "U":
        raise MTDriveError(f"{path}: token must be an array of strings (N,), not {tokens.dtype} {tokens.shape}.")
    if poses.ndim == 0 or len(poses) != len(tokens):
        raise MTDriveError(f"{path}: poses {poses.shape} must have one row for each of the {len(tokens)} tokens.")
    if interval.ndim != 0 or interval.dtype.kind not in "fi":
        raise MTDriveError(f"{path}: interval_length must be one number of seconds, not an array {interval.shape}.")
    return Submission(tokens, poses, float(interval))


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of numbers or strings, as `numpy.save` writes it.

    Raises:
        ValueError: it is none, is larger than LARGEST_ARRAY, or its shape does not fit its bytes.
    """
    if archive.getinfo(name).file_size > LARGEST_ARRAY:
        raise ValueError(f"{name} has more than {LARGEST_ARRAY:,} bytes")
    file = io.BytesIO(archive.read(name))
    read_header = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(file)]
    shape, fortran_order, dtype = read_header(file)
    content = file.read()
    if dtype.kind not in "fiucbSUmM" or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} is no plain array of the shape in its header")
    if not len(content):
        return np.empty(shape if max(shape) <= LARGEST_ARRAY else 0, dtype)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_csv(path: Path) -> Submission:
    try:
        if path.stat().st_size > LARGEST_ARRAY:
            raise ValueError(f"it has more than {LARGEST_ARRAY:,} bytes")
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            count = len(header) // len(POSE)
            if header != ["token", *(f"{name}_{k}" for k in range(count) for name in POSE)]:
                raise MTDriveError(f"{path} must have the columns token, x_0, y_0, heading_0, x_1, ..., in this order.")
            tokens, plans = [], []
            for row in rows:
                tokens.append(scene_token(row[0]))
                plans.append(np.array(row[1:], dtype=np.float64).reshape(count, len(POSE)))
        poses = np.array(plans).reshape(len(plans), count, len(POSE))
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise MTDriveError(f"Cannot read {path} as a .csv of trajectories ({error}).") from error
    return Submission(np.array(tokens, dtype=np.str_), poses, SAMPLINGS.get(count, np.nan))


class TrajectorySampling(Record):
    """Stands in for nuPlan's `TrajectorySampling` dataclass."""

    interval_length: float
    """[s] between poses."""


class Trajectory(Record):
    """Stands in for navsim's `Trajectory` dataclass."""

    poses: np.ndarray
    """(T, 3)."""
    trajectory_sampling: TrajectorySampling
    """The interval between poses."""


CLASSES = {
    ("navsim.common.dataclasses", "Trajectory"): Trajectory,
    (
        "nuplan.planning.simulation.trajectory.trajectory_sampling",
        "TrajectorySampling",
    ): TrajectorySampling,
}


def _read_pickle(path: Path) -> Submission:
    content = load_pickle(path, kind="navsim submission", classes=CLASSES)
    if not isinstance(content, dict):
        content = {}
    stages = [key for key in (*STAGES, PREDICTIONS) if key in content]
    if stages not in ([PREDICTIONS], [*STAGES]):
        raise MTDriveError(
            f"{path} is no navsim submission: it has no `{PREDICTIONS}` (v1.1), nor `{'`, `'.join(STAGES)}` (v2)."
        )
    trajectories: dict[str, Trajectory] = {}
    for stage in stages:
        predictions = content[stage]
        if not isinstance(predictions, list) or not all(isinstance(by_token, dict) for by_token in predictions):
            raise MTDriveError(f"{path} is no navsim submission: `{stage}` is no list of dicts by token.")
        if len(predictions) != 1:
            raise MTDriveError(f"{path} holds {len(predictions)} sets of {stage}; as in navsim, it must hold one.")
        for token in predictions[0]:
            scene_token(token)
        if twice := trajectories.keys() & predictions[0].keys():
            raise MTDriveError(f"{path} has {min(twice)} in both stages.")
        trajectories |= predictions[0]
    if not all(isinstance(item, Trajectory) for item in trajectories.values()):
        raise MTDriveError(f"{path}: every prediction must be a navsim Trajectory.")
    try:
        poses = [np.asarray(item.poses) for item in trajectories.values()]
        if strange := {array.dtype for array in poses if array.dtype.kind not in "iuf"}:
            raise MTDriveError(f"{path}: the poses of every prediction must be plain numbers, not {strange.pop()}.")
        intervals = {float(item.trajectory_sampling.interval_length) for item in trajectories.values()}
        tokens, stacked = np.array(list(trajectories), dtype=np.str_), np.stack(poses) if poses else np.empty((0, 8, 3))
    except (AttributeError, TypeError, ValueError) as error:
        raise MTDriveError(f"{path}: the predictions are not trajectories of one shape ({error}).") from None
    if len(intervals) > 1:
        raise MTDriveError(f"{path} mixes trajectories at intervals of {' and '.join(map(str, sorted(intervals)))} s.")
    return Submission(tokens, stacked, intervals.pop() if intervals else 0.5)
