"""Building the scene caches of a filter or of a data split, in parallel."""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from tqdm import tqdm

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format import logs, official_loader
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.navsim_format.names import scene_token
from mtdrive.simulation.navsim_format.scene_filter import SceneFilter, SceneSet, all_windows
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic, read_synthetic_scene
from mtdrive.simulation.runtime.files import CannotWrite
from mtdrive.simulation.runtime.locks import locked, only_run_in
from mtdrive.simulation.runtime.processes import map_unordered
from mtdrive.simulation.scene_cache.compile import compile_scene
from mtdrive.simulation.scene_cache.format import Fingerprint, is_current, save_scene
from mtdrive.simulation.scene_cache.index import Index, check_same, merged, read_index, tokens_of, write_index
from mtdrive.simulation.scene_cache.store import SYNTHETIC, scene_path

logger = logging.getLogger(__name__)

NO_SUCH_SCENE = "no such scene in these logs"
KEPT_MAPS = ".maps"  # folder beside the stores, which the stores of all filters share
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

    absent: list[str] = field(default_factory=list)
    """Tokens that a filter lists and no log has; navsim passes them over as well."""

    notes: list[str] = field(default_factory=list)
    """What is left out of the maps of the scenes that were compiled, and which scenes navsim's own loader refuses
    though they are compiled; a sentence each."""

    @property
    def scenes(self) -> list[str]:
        """Tokens of all scenes that are there now."""
        return list(dict.fromkeys([*self.built, *self.skipped]))  # a scene of two logs is compiled for either


def build_caches(
    openscene_data_root: Path | str,
    nuplan_maps_root: Path | str,
    scenes: SceneFilter | str,
    cache_root: Path | str,
    *,
    tokens: Collection[str] | None = None,
    log_names: Collection[str] | None = None,
    workers: int | str = 2,
    alone: bool = False,
) -> CacheReport:
    """Compile the scenes of a filter, or the given tokens or logs of it; caches that are up to date are kept.

    A scene that cannot be compiled does not stop the others. scenes: a filter, or a data split for all its windows.
    workers: as in `map_unordered`. alone: refuse to work beside another build that is alone; those that need some
    scenes may go on meanwhile.

    Raises:
        MTDriveError: the data split, or a log that is asked for, is missing, there is nothing to compile, nowhere to
            write to, or the store holds other scenes.
    """
    chosen = all_windows(scenes) if isinstance(scenes, str) else scenes
    if chosen.num_future < logs.LEAST_FUTURE:
        raise MTDriveError(f"{chosen.scene_set} has {chosen.num_future} frames after t0: only mtdrive submit takes it.")
    available = logs.log_names(openscene_data_root, chosen.data_split)
    if log_names is not None and (unknown := set(log_names) - set(available)):
        raise MTDriveError(f"Split {chosen.data_split} has no log {', '.join(sorted(unknown))}.")
    asked = None if log_names is None else set(log_names)
    selected = [name for name in chosen.selected(available) if asked is None or name in asked]
    if not selected:
        raise MTDriveError(f"Split {chosen.data_split} of {openscene_data_root} has no log of {chosen.scene_set}.")
    folder = _made(Path(cache_root) / chosen.scene_set.store)
    wanted = None if tokens is None else frozenset(tokens)
    if chosen.tokens is not None:
        wanted = frozenset(chosen.tokens) if wanted is None else wanted & frozenset(chosen.tokens)
    paths = [logs.log_path(openscene_data_root, chosen.data_split, name) for name in selected]
    build = _Build(
        scene_set=chosen.scene_set,
        folder=folder,
        maps_root=Path(nuplan_maps_root),
        read=partial(_log_scenes, scene_filter=replace(chosen, tokens=None, log_names=None, synthetic_tokens=())),
        wanted=wanted,
        listed=None if chosen.tokens is None else len(chosen.tokens),
        whole=tokens is None and log_names is None,
    )
    with only_run_in(folder) if alone else nullcontext():
        report = build.run(paths, workers)
    if tokens is not None:
        unread = [path.name for path in paths if path.stem in report.failed]
        reason = f"not in the logs that can be read; {unread[0]} cannot" if unread else NO_SUCH_SCENE
        report.failed.update(dict.fromkeys(sorted({*tokens} - {*report.scenes, *report.failed}), reason))
        report.absent.clear()
    elif report.absent and not report.scenes:
        raise MTDriveError(f"None of the {len(paths)} logs here has a scene of {chosen.scene_set}.")
    if not (report.scenes or report.failed):
        raise MTDriveError(f"There is no scene with a route in {len(paths)} logs of split {chosen.data_split}.")
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
    wanted, folder = frozenset(map(scene_token, tokens)), _made(Path(cache_root) / SYNTHETIC)
    build = _Build(
        scene_set=SceneSet(SYNTHETIC, SYNTHETIC, None),
        listed=None,
        whole=False,
        folder=folder,
        maps_root=Path(nuplan_maps_root),
        read=_synthetic_scene,
        wanted=wanted,
    )
    report = build.run(_synthetic_files(source, folder, wanted), workers)
    report.failed.update(dict.fromkeys(report.absent, NO_SUCH_SCENE))
    report.absent.clear()
    return report


def _synthetic_files(source: Path, folder: Path, tokens: frozenset[str]) -> list[Path]:
    """The files of synthetic scenes, as an earlier build found them; else all, as navsim calls them by other tokens."""
    files = {path.stem: path for path in sorted(source.glob("*.pkl"))}
    index = read_index(folder)
    file_of = {} if index is None else tokens_of(index.logs)
    names = {file_of.get(token, token) for token in tokens}
    return [files[name] for name in sorted(names)] if names <= files.keys() else list(files.values())


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MTDriveError(f"Cannot write scene caches to {folder}: {error.strerror}.") from error
    return folder


@dataclass(frozen=True)
class _Build:
    """What is to be compiled from files: logs, or synthetic scenes, which are kept like logs of one scene."""

    scene_set: SceneSet
    """Which scenes they are."""

    listed: int | None
    """Number of tokens that the filter lists; None if it lists none."""

    whole: bool
    """Whether they are all scenes of the set."""

    folder: Path
    """Folder of the store."""

    maps_root: Path
    """A NUPLAN_MAPS_ROOT."""

    read: _Reader
    """How a file is read."""

    wanted: frozenset[str] | None
    """Tokens of the scenes; None for all that the files hold."""

    def run(self, paths: Sequence[Path], workers: int | str) -> CacheReport:
        """Compile the scenes of these files."""
        found = read_index(self.folder)
        if found is not None:
            check_same(self.folder, found.scene_set, self.scene_set)
        results = {}
        with tqdm(total=len(paths), desc=f"scene caches of {self.scene_set.name}", unit="file") as progress:
            for result in map_unordered(self._compile, sorted(paths, key=_size, reverse=True), workers):
                results[result.log_name] = result
                progress.update()
        ordered = [results[path.stem] for path in paths]
        _refuse_doubles(ordered)
        report = CacheReport(
            built=[token for result in ordered for token in result.built],
            skipped=[token for result in ordered for token in result.skipped],
            failed={name: reason for result in ordered for name, reason in result.failed.items()},
            notes=[
                *dict.fromkeys(note for result in ordered for note in result.notes),
                *official_loader.notes({token: why for result in ordered for token, why in result.objections.items()}),
            ],
        )
        report.absent.extend(sorted((self.wanted or set()) - {*report.scenes, *report.failed}))
        self._write_index(ordered, complete=self.whole and not report.failed)
        for note in report.notes:
            logger.warning(note)
        return report

    def _write_index(self, results: Sequence[_LogResult], complete: bool) -> None:
        """Add the scenes of these logs; those of other builds stay while their log is the same."""
        done = [(r.log_name, r.fingerprint, [*r.built, *r.skipped], set(r.failed)) for r in results]
        with locked(self.folder / INDEX_LOCK, wait=True):
            index = read_index(self.folder) or Index(self.scene_set, self.listed)
            logs = merged(index, done)
            write_index(self.folder, replace(index, logs=logs, complete=complete or index.complete))

    def _compile(self, path: Path) -> _LogResult:
        """Compile the scenes of one file."""
        try:
            if not path.is_file():  # a folder, a link to nothing, or a pipe, which would never end
                raise MTDriveError(f"{path} is no file.")
            windows = self.read(path, self.wanted)
            log_digest = _digest(path)
        except Exception as error:
            return _LogResult(log_name=path.stem, failed={path.stem: _reason(error)})
        result = _LogResult(log_name=path.stem, fingerprint=log_digest)
        for token, frames in windows.items():
            try:
                target = scene_path(self.folder, path.stem, token)
                map_file = map_path(self.maps_root, frames[logs.NUM_HISTORY - 1]["map_location"])
                fingerprint = Fingerprint(log_digest, map_digest := _map_digest(map_file))
                if is_current(target, fingerprint):
                    result.skipped.append(token)
                else:
                    road_map = load_map(map_file, self.folder.parent / KEPT_MAPS / f"{map_digest}.map")
                    save_scene(target, compile_scene(frames, road_map, self.scene_set.data_split), fingerprint)
                    result.built.append(token)
                    result.notes.extend(note for note in road_map.notes if note not in result.notes)
                if not is_synthetic(token) and (why := official_loader.objection(frames)):
                    result.objections[token] = why
            except CannotWrite:
                raise  # nor would the others be written
            except Exception as error:
                result.failed[token] = _reason(error)
        return result


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


def _log_scenes(path: Path, tokens: frozenset[str] | None, scene_filter: SceneFilter) -> _Windows:
    return logs.scene_windows(
        logs.read_log(path),
        tokens,
        scene_filter.frame_interval,
        scene_filter.num_future,
        scene_filter.has_route,
        across_gaps=scene_filter.file is not None,
    )


def _synthetic_scene(path: Path, tokens: frozenset[str] | None) -> _Windows:
    frames = read_synthetic_scene(path)
    token = scene_token(frames[logs.NUM_HISTORY - 1]["token"])
    return {token: frames} if tokens is None or token in tokens else {}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _map_digest(path: Path) -> str:
    status = path.stat()
    return _remembered_digest(path, status.st_mtime_ns, status.st_size)


@lru_cache
def _remembered_digest(path: Path, _mtime: int, _size: int) -> str:
    return _digest(path)
