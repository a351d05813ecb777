"""Which scenes: navsim's filters (`train_test_split`), files of tokens, or all windows of a data split.

navsim's filter is a pair of YAML files: `train_test_split/NAME.yaml` names the data split and, among its defaults, the
`scene_filter/NAME.yaml` beside it, which holds the fields of navsim's `SceneFilter` (navsim/common/dataclasses.py).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.logs import LEAST_FUTURE, NUM_FUTURE, NUM_HISTORY
from mtdrive.simulation.navsim_format.names import log_name, scene_token, split_name

FILTERS = Path("navsim/planning/script/config/common/train_test_split")  # in a checkout of navsim
ENDINGS = (".yaml", ".yml")
COLUMN = "token"  # of a CSV file of tokens, as navsim's own tables call it

# As text: PyYAML reads 104,000 tokens five times as fast, and one such as 0123456789012345 stays what it is.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUTH = {"true": True, "false": False}
_FIELDS = {
    *("num_history_frames", "num_future_frames", "frame_interval", "has_route", "max_scenes", "log_names", "tokens"),
    *("include_synthetic_scenes", "all_mapping", "synthetic_scene_tokens", "reactive_synthetic_initial_tokens"),
    *("non_reactive_synthetic_initial_tokens", "_target_", "_convert_"),
}


@dataclass(frozen=True)
class SceneSet:
    """What a set of scenes is called in stores, datasets and reports."""

    name: str
    """Name of the filter, or of the data split whose windows it holds."""

    data_split: str
    """Folder of `navsim_logs` and `sensor_blobs` that the scenes are from."""

    filter: str | None
    """Fingerprint of the filter; None for all windows of the data split."""

    @property
    def store(self) -> str:
        """Folder of its compiled scenes. navsim has filters by the names of data splits: test, trainval, mini."""
        return f"{self.name}-filter" if self.filter is not None and self.name == self.data_split else self.name

    def __str__(self) -> str:
        if self.filter is None:
            return f"{self.name}, all windows"
        return f"{self.name} (filter {self.filter} of split {self.data_split})"


def read_scene_set(content: object) -> SceneSet:
    """A scene set as a JSON file holds it (`dataclasses.asdict`).

    Raises:
        ValueError: it is none.
    """
    if not isinstance(content, Mapping) or content.keys() != {"name", "data_split", "filter"}:
        raise ValueError("scene_set does not hold name, data_split and filter")
    try:
        name, split = split_name(content["name"]), split_name(content["data_split"])
    except MTDriveError as error:
        raise ValueError(f"scene_set holds no name that a folder could have: {error}") from error
    if (filter_ := content["filter"]) is not None and not isinstance(filter_, str):
        raise ValueError("filter of scene_set is no text")
    return SceneSet(name, split, filter_)


@dataclass(frozen=True)
class SceneFilter:
    """Scenes of a data split. The defaults are all windows that `logs.scene_windows` takes for scenes."""

    name: str
    """Name in stores and reports."""

    data_split: str
    """Folder of `navsim_logs` and `sensor_blobs`."""

    file: Path | None = None
    """File that the filter was read from; None for all windows of the data split."""

    log_names: tuple[str, ...] | None = None
    """Logs to look in; those that are not there are passed over, as navsim does. None for all."""

    tokens: tuple[str, ...] | None = None
    """Tokens of the scenes; those that no log has are passed over, as navsim does. None for all."""

    num_future: int = NUM_FUTURE
    """Frames after t0 that a scene needs."""

    frame_interval: int = 1
    """Frames from one window to the next."""

    has_route: bool = True
    """Whether scenes without a route are left out."""

    synthetic_tokens: tuple[str, ...] = ()
    """Second-stage scenes that belong to it, which no log has."""

    @cached_property
    def scene_set(self) -> SceneSet:
        """Name and fingerprint."""
        return SceneSet(self.name, self.data_split, None if self.file is None else self._fingerprint())

    def _fingerprint(self) -> str:
        """Of everything that decides which scenes there are; the order of logs and tokens does not."""
        rules = [self.data_split, self.num_future, self.frame_interval, self.has_route]
        names = [None if names is None else sorted(set(names)) for names in (self.log_names, self.tokens)]
        content = json.dumps([*rules, *names, sorted(set(self.synthetic_tokens))])
        return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()

    def selected(self, available: Collection[str]) -> list[str]:
        """The logs to read of those that are available, in their order."""
        wanted = None if self.log_names is None else set(self.log_names)
        return [name for name in available if wanted is None or name in wanted]


def all_windows(data_split: str) -> SceneFilter:
    """All scenes of a data split. Raises MTDriveError for what is no name of one."""
    return SceneFilter(split_name(data_split), data_split)


def read_filter(name_or_path: str, devkit_root: Path | None, data_split: str | None = None) -> SceneFilter:
    """One of navsim's filters.

    Args:
        name_or_path: a name such as navtest, a `train_test_split/NAME.yaml`, or a `scene_filter/NAME.yaml`.
        devkit_root: a checkout of navsim, in which names are looked up.
        data_split: where the scenes are, if the file does not say.

    Raises:
        MTDriveError: there is no such file, it is no filter, or it asks for something that is not supported.
    """
    file = _find(name_or_path, devkit_root)
    said, content = _content(file)
    if data_split is not None and said is not None and data_split != said:
        raise MTDriveError(f"{file} is a filter of split {said}, not of split={data_split}; leave split out.")
    if (split := said or data_split) is None:
        raise MTDriveError(f"{file} does not say which data split it is of; give split=..., too.")
    return _filter(file, split_name(split), content)


def read_tokens(file: Path, data_split: str) -> SceneFilter:
    """Scenes by a file of their tokens: one a line, or column COLUMN of a .csv file.

    Raises:
        MTDriveError: there is no such file, or it holds no token, or something that is none.
    """
    if not file.is_file():
        raise MTDriveError(f"There is no file {file}; a list of scenes is written tokens=[0123456789abcdef,...].")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                found = [row[COLUMN] for row in csv.DictReader(lines)]
            else:
                found = [line.strip() for line in lines]
    except KeyError:
        raise MTDriveError(f"{file} has no column {COLUMN}; name the column of the scenes so.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MTDriveError(f"Cannot read tokens={file}: {error}.") from None
    tokens = dict.fromkeys(scene_token(token) for token in found if token)
    if not tokens:
        raise MTDriveError(f"tokens={file} holds no token; write one a line, or a .csv file with a column {COLUMN}.")
    return SceneFilter(_name_of(file), split_name(data_split), file, tokens=tuple(tokens))


def known_filters(folders: Collection[Path]) -> Iterator[SceneFilter]:
    """The filters with tokens or logs in folders of `train_test_split/*.yaml`; what does not read is passed over."""
    for file in sorted({path for folder in folders for path in folder.glob("*.yaml")}):
        try:
            split, content = _content(file)
            known = None if split is None else _filter(file, split, content)
        except MTDriveError:
            continue
        if known is not None and (known.tokens is not None or known.log_names is not None):
            yield known


def devkit_filters(devkit_root: Path) -> Path:
    """The folder of navsim's filters in a checkout."""
    return devkit_root / FILTERS


def _find(name: str, devkit_root: Path | None) -> Path:
    if name.endswith(ENDINGS) or "/" in name:
        if not Path(name).is_file():
            raise MTDriveError(f"There is no file {name}; train_test_split takes navsim's names or the path of a YAML.")
        return Path(name)
    if devkit_root is None:
        raise MTDriveError(
            f"train_test_split={name} is looked up in navsim; set NAVSIM_DEVKIT_ROOT (or navsim_devkit_root=...) to a "
            "checkout of it, or give the path of the YAML."
        )
    folder = devkit_filters(devkit_root)
    file = folder / f"{split_name(name)}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise MTDriveError(f"There is no filter {name} in {folder}" + (f"; it has {known}." if known else "."))
    return file


def _content(file: Path) -> tuple[str | None, Mapping[str, Any]]:
    """The data split that a file names, if it does, and the fields of its scene filter."""
    content = _mapping(file)
    if not (content.keys() & {"data_split", "defaults"}):
        return None, content
    fields: dict[str, Any] = {}
    for entry in content.get("defaults") or ():
        if isinstance(entry, Mapping) and isinstance(name := entry.get("scene_filter"), str):
            fields |= _mapping(file.parent / "scene_filter" / f"{name.removesuffix('.yaml')}.yaml")
    if isinstance(inline := content.get("scene_filter"), Mapping):
        fields |= inline
    if not fields:
        raise MTDriveError(f"{file} names no scene_filter; navsim's train_test_split files do, among their defaults.")
    return content.get("data_split"), fields


def _mapping(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise MTDriveError(f"Cannot read {file} as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, Mapping):
        raise MTDriveError(f"{file} is no filter of navsim: it should hold keys and values.")
    return content


def _filter(file: Path, data_split: str, fields: Mapping[str, Any]) -> SceneFilter:
    if unknown := sorted(str(key) for key in fields.keys() - _FIELDS):
        raise MTDriveError(f"{file} has {unknown[0]}, which navsim's SceneFilter does not know.")
    past, future = _integer(file, fields, "num_history_frames", 4), _integer(file, fields, "num_future_frames", 10, 0)
    if past != NUM_HISTORY or future is None or 0 < future < LEAST_FUTURE:  # private splits have none
        raise MTDriveError(
            f"{file} asks for {past} frames up to t0 and {future} after it; {NUM_HISTORY} and at least {LEAST_FUTURE} "
            "are what scores look at."
        )
    if _integer(file, fields, "max_scenes", None) is not None:
        raise MTDriveError(f"{file} sets max_scenes, which takes the first of any order; list tokens instead.")
    interval = _integer(file, fields, "frame_interval", None) or NUM_HISTORY + future
    second = _names(file, fields, "synthetic_scene_tokens") or _names(file, fields, "reactive_synthetic_initial_tokens")
    logs, tokens = _names(file, fields, "log_names"), _names(file, fields, "tokens")
    return SceneFilter(
        name=_name_of(file),
        data_split=data_split,
        file=file,
        log_names=None if logs is None else tuple(map(log_name, logs)),
        tokens=None if tokens is None else tuple(dict.fromkeys(map(scene_token, tokens))),
        num_future=future,
        frame_interval=interval,
        has_route=_truth(file, fields, "has_route", True),
        synthetic_tokens=tuple(map(scene_token, second or ()))
        if _truth(file, fields, "include_synthetic_scenes", False)
        else (),
    )


def _name_of(file: Path) -> str:
    return split_name(re.sub(r"[^A-Za-z0-9_-]", "-", file.stem))


def _integer(file: Path, fields: Mapping[str, Any], key: str, default: int | None, least: int = 1) -> int | None:
    text = fields.get(key, str(default) if default is not None else "null")
    if isinstance(text, str) and text in _NULL:
        return None
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or not least <= int(text[:10]) <= 10**6:
        raise MTDriveError(f"{key} of {file} is {text!r}; it must be a whole number above {least - 1}, or null.")
    return int(text)


def _truth(file: Path, fields: Mapping[str, Any], key: str, default: bool) -> bool:
    text = fields.get(key, str(default))
    if not isinstance(text, str) or text.lower() not in _TRUTH:
        raise MTDriveError(f"{key} of {file} is {text!r}; it must be true or false.")
    return _TRUTH[text.lower()]


def _names(file: Path, fields: Mapping[str, Any], key: str) -> list[str] | None:
    names = fields.get(key, "null")
    if isinstance(names, str) and names in _NULL:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MTDriveError(f"{key} of {file} must be a list of names, or null.")
    return names
