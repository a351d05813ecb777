"""Scene caches of a split: building them in parallel, and opening them.

`<cache_root>/<split>/<log>/<token>.scene`, and `index.json` beside the logs, written when a build ends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from tqdm import tqdm

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format import logs, official_loader
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.navsim_format.names import log_name as checked_log_name
from mtdrive.simulation.navsim_format.names import scene_token, split_name
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic, read_synthetic_scene
from mtdrive.simulation.runtime.files import CannotWrite, atomic_path
from mtdrive.simulation.runtime.json_files import read_json
from mtdrive.simulation.runtime.locks import locked, only_run_in
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.compile import compile_scene
from mtdrive.simulation.scene_cache.format import (
    SUFFIX,
    Fingerprint,
    is_current,
    load_fingerprint,
    load_scene,
    save_scene,
)

logger = logging.getLogger(__name__)

NO_SUCH_SCENE = "no such scene in these logs"
SYNTHETIC = "synthetic_scenes"  # the split that they are kept under
INDEX_LOCK = ".index.lock"


_Windows = dict[str, Sequence[logs.Frame]]  # frames of scenes, by token
_Reader = Callable[[Path, frozenset[str] | None], _Windows]  # of the scenes in a file, or of some of them


@dataclass(frozen=True)
class CacheReport:
    """What a build did."""

    built: list[str] = field(default_factory=list)
    """Tokens of the scenes that were compiled."""

    skipped: list[str] = field(default_factory=list)
    """Tokens of the scenes whose cache was up to date."""

    failed: dict[str, str] = field(default_factory=dict)
    """Token -> reason, or log name -> reason where the log cannot be read."""

    notes: list[str] = field(default_factory=list)
    """What is left out of the maps of the scenes that were compiled, and which scenes navsim's own loader refuses
    though they are compiled; a sentence each."""


class SceneStore:
    """The compiled scenes of a split.

    Raises:
        MTDriveError: no build of this split has ended.
    """

    def __init__(self, cache_root: Path | str, split: str) -> None:
        split_name(split)
        self._folder = Path(cache_root) / split
        index = _read_index(self._folder)
        if not index:
            raise MTDriveError(f"There are no scene caches in {self._folder}; run mtdrive cache split={split}.")
        self._log_of = {token: log for log, entry in index.items() for token in entry["tokens"]}

    @property
    def tokens(self) -> list[str]:
        """Tokens of all scenes, log by log."""
        return list(self._log_of)

    @property
    def log_names(self) -> set[str]:
        """Logs that the scenes come from."""
        return set(self._log_of.values())

    def log_name(self, token: str) -> str:
        """The log that a scene comes from.

        Raises:
            MTDriveError: the scene has not been compiled.
        """
        try:
            return self._log_of[token]
        except KeyError:
            raise MTDriveError(f"There is no scene {token} in {self._folder}; run mtdrive cache for it.") from None

    def load(self, token: str) -> Scene:
        """One scene; its arrays are read-only.

        Raises:
            MTDriveError: the scene has not been compiled, or its file is damaged, outdated or that of another scene.
        """
        path = _scene_path(self._folder, self.log_name(token), token)
        scene = load_scene(path)
        if (scene.token, scene.split) != (token, self._folder.name):
            raise MTDriveError(
                f"{path} holds scene {scene.token} of split {scene.split}; delete {self._folder} and run mtdrive cache."
            )
        return scene

    def fingerprint(self, token: str) -> Fingerprint:
        """Digests of the log and the map that a scene was compiled from. Raises as `load`."""
        return load_fingerprint(_scene_path(self._folder, self.log_name(token), token))


def build_caches(
    openscene_data_root: Path | str,
    nuplan_maps_root: Path | str,
    split: str,
    cache_root: Path | str,
    *,
    tokens: Collection[str] | None = None,
    log_names: Collection[str] | None = None,
    workers: int | str = 2,
    alone: bool = False,
) -> CacheReport:
    """Compile the scenes of a split, or the given tokens or logs of it; caches that are up to date are kept.

    A scene that cannot be compiled does not stop the others. workers: as in `map_unordered`. alone: refuse to
    work beside another build that is alone; those that need some scenes may go on meanwhile.

    Raises:
        MTDriveError: the split, or a log that is asked for, is missing, there is nothing to compile, or nowhere to
            write to.
    """
    available = logs.log_names(openscene_data_root, split)
    if log_names is not None and (unknown := set(log_names) - set(available)):
        raise MTDriveError(f"Split {split} has no log {', '.join(sorted(unknown))}.")
    selected = available if log_names is None else [name for name in available if name in set(log_names)]
    folder = _made(Path(cache_root) / split)
    wanted = None if tokens is None else frozenset(tokens)
    paths = [logs.log_path(openscene_data_root, split, name) for name in selected]
    with only_run_in(folder) if alone else nullcontext():
        report = _build(paths, _log_scenes, Path(nuplan_maps_root), split, folder, wanted, workers)
    if not (report.built or report.skipped or report.failed):
        raise MTDriveError(f"There is no scene with a route in {len(paths)} logs of split {split}.")
    return report


def build_synthetic_caches(
    synthetic_scenes: Path | str,
    nuplan_maps_root: Path | str,
    cache_root: Path | str,
    tokens: Collection[str],
    *,
    workers: int | str = 2,
) -> CacheReport:
    """Compile synthetic scenes, as split SYNTHETIC; otherwise as `build_caches`.

    Args:
        synthetic_scenes: the folder of their pickles.

    Raises:
        MTDriveError: there is no such folder, or nowhere to write to.
    """
    source = Path(synthetic_scenes)
    if not source.is_dir():
        raise MTDriveError(f"There is no folder {source}; check synthetic_scenes.")
    folder, wanted = _made(Path(cache_root) / SYNTHETIC), frozenset(tokens)
    paths = [path for path in (source / f"{scene_token(token)}.pkl" for token in sorted(wanted)) if path.is_file()]
    return _build(paths, _synthetic_scene, Path(nuplan_maps_root), SYNTHETIC, folder, wanted, workers)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MTDriveError(f"Cannot write scene caches to {folder}: {error.strerror}.") from error
    return folder


def _build(
    paths: Sequence[Path],
    read: _Reader,
    maps_root: Path,
    split: str,
    folder: Path,
    wanted: frozenset[str] | None,
    workers: int | str,
) -> CacheReport:
    """Compile the scenes of files: of logs, or of synthetic scenes, which are kept like logs of one scene."""
    build = partial(_build_log, read=read, maps_root=maps_root, split=split, folder=folder, tokens=wanted)
    results = {}
    with tqdm(total=len(paths), desc=f"scene caches of {split}", unit="file") as progress:
        for result in map_unordered(build, sorted(paths, key=_size, reverse=True), workers):
            results[result.log_name] = result
            progress.update()
    ordered = [results[path.stem] for path in paths]
    _refuse_doubles(ordered)
    _write_index(folder, ordered)

    report = CacheReport(
        built=[token for result in ordered for token in result.built],
        skipped=[token for result in ordered for token in result.skipped],
        failed={name: reason for result in ordered for name, reason in result.failed.items()},
        notes=[
            *dict.fromkeys(note for result in ordered for note in result.notes),
            *official_loader.notes({token: why for result in ordered for token, why in result.objections.items()}),
        ],
    )
    for note in report.notes:
        logger.warning(note)
    done = {*report.built, *report.skipped, *report.failed}
    unread = [path.name for path in paths if path.stem in report.failed]
    reason = f"not in the logs that can be read; {unread[0]} cannot" if unread else NO_SUCH_SCENE
    report.failed.update(dict.fromkeys(sorted((wanted or set()) - done), reason))
    return report


@dataclass(frozen=True)
class _LogResult(CacheReport):
    log_name: str = ""
    fingerprint: str = ""
    objections: dict[str, str] = field(default_factory=dict)


def _refuse_doubles(results: Sequence[_LogResult]) -> None:
    """Fail a scene that an earlier log holds as well."""
    log_of: dict[str, str] = {}
    for result in results:
        for token in [*result.built, *result.skipped]:
            first = log_of.setdefault(token, result.log_name)
            if first != result.log_name:
                result.failed[token] = f"Log {result.log_name} holds it again; it is the scene of log {first}."


def _build_log(
    path: Path, read: _Reader, maps_root: Path, split: str, folder: Path, tokens: frozenset[str] | None
) -> _LogResult:
    """Compile the scenes of one file."""
    try:
        if not path.is_file():  # a folder, a link to nothing, or a pipe, which would never end
            raise MTDriveError(f"{path} is no file.")
        windows = read(path, tokens)
        log_digest = _digest(path)
    except Exception as error:
        return _LogResult(log_name=path.stem, failed={path.stem: _reason(error)})
    result = _LogResult(log_name=path.stem, fingerprint=log_digest)
    for token, frames in windows.items():
        try:
            target = _scene_path(folder, path.stem, token)
            map_file = map_path(maps_root, frames[logs.NUM_HISTORY - 1]["map_location"])
            fingerprint = Fingerprint(log_digest, _map_digest(map_file))
            if is_current(target, fingerprint):
                result.skipped.append(token)
            else:
                road_map = load_map(map_file)
                save_scene(target, compile_scene(frames, road_map, split), fingerprint)
                result.built.append(token)
                result.notes.extend(note for note in road_map.notes if note not in result.notes)
            if not is_synthetic(token) and (why := official_loader.objection(frames)):
                result.objections[token] = why
        except CannotWrite:
            raise  # nor would the others be written
        except Exception as error:
            result.failed[token] = _reason(error)
    return result


def _reason(error: Exception) -> str:
    """Why a scene failed; for an unexpected exception also where, since the build goes on."""
    if isinstance(error, MTDriveError):
        return str(error)
    if isinstance(error, OSError):
        return f"Cannot read or write {error.filename}: {error.strerror}."
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno})"


def _size(path: Path) -> int:
    """Of a file that may not be there; the largest begin first."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _log_scenes(path: Path, tokens: frozenset[str] | None) -> _Windows:
    return logs.scene_windows(logs.read_log(path), tokens)


def _synthetic_scene(path: Path, tokens: frozenset[str] | None) -> _Windows:
    frames = read_synthetic_scene(path)
    token = scene_token(frames[logs.NUM_HISTORY - 1]["token"])
    return {token: frames} if tokens is None or token in tokens else {}


def _scene_path(folder: Path, log_name: str, token: str) -> Path:
    return folder / checked_log_name(log_name) / f"{scene_token(token)}{SUFFIX}"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _map_digest(path: Path) -> str:
    status = path.stat()
    return _remembered_digest(path, status.st_mtime_ns, status.st_size)


@lru_cache
def _remembered_digest(path: Path, _mtime: int, _size: int) -> str:
    return _digest(path)


def _read_index(folder: Path) -> dict[str, dict]:
    """Log name -> its digest ("log") and the scenes of it that are compiled ("tokens")."""
    path = folder / "index.json"
    try:
        index = read_json(path)
        whole = all(
            isinstance(entry["log"], str) and {*map(type, entry["tokens"])} <= {str} and type(entry["tokens"]) is list
            for entry in index.values()
        )
        tokens = [token for entry in index.values() for token in entry["tokens"]]
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise MTDriveError(f"{path} is damaged ({error}); delete it and run mtdrive cache.") from error
    if not whole or len(set(tokens)) < len(tokens):
        raise MTDriveError(f"{path} does not list each scene once, by log; delete it and run mtdrive cache.")
    return index


def _write_index(folder: Path, results: list[_LogResult]) -> None:
    """Add the scenes of these logs; those of other builds stay while their log is the same."""
    with locked(folder / INDEX_LOCK, wait=True):
        _merge_index(folder, results)


def _merge_index(folder: Path, results: list[_LogResult]) -> None:
    index = _read_index(folder)
    for result in results:
        earlier = index.pop(result.log_name, None)
        kept = earlier["tokens"] if earlier and earlier["log"] == result.fingerprint else []
        done = dict.fromkeys([*kept, *result.built, *result.skipped])
        tokens = [token for token in done if token not in result.failed]
        if tokens:
            index[result.log_name] = {"log": result.fingerprint, "tokens": tokens}
    with atomic_path(folder / "index.json") as temporary:
        temporary.write_text(json.dumps(dict(sorted(index.items())), indent=1))
