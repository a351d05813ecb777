"""A stage of a run: one `mtdrive` command, run once, and again when its settings or those of a stage before change.

In the run's folder for stages each leaves its output, `NAME.log`, and a marker, `NAME.json`. The marker holds the
stage's fingerprint, and whether it is done; from then on also its `StageRun`. A stage that is done is not run again;
one that was stopped is started again, and its verb goes on with what is there.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mtdrive import __version__
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.stages.overrides import to_overrides
from mtdrive.stages.process import log_lines, run_logged

LOG_TAIL = 12  # lines of its log that a failed stage shows


@dataclass(frozen=True)
class Command:
    """A command that a run consists of."""

    name: str
    """Names the stage, its marker and its log; no two stages of a run share one."""
    verb: str
    """The verb of `mtdrive`."""
    keys: Mapping[str, object]
    """The keys of the verb that are set."""
    result: Path
    """The file or folder that it makes."""


@dataclass(frozen=True)
class Stage:
    """A command whose settings were checked, as `plan_stages` makes it."""

    name: str
    """As `Command.name`."""
    verb: str
    """As `Command.verb`."""
    overrides: tuple[str, ...]
    """What follows the verb on the command line."""
    result: Path
    """As `Command.result`."""
    fingerprint: str
    """Of its settings and of those of all stages before it."""

    @property
    def command(self) -> str:
        """What repeats the stage alone, to be pasted into a shell."""
        return shlex.join(["mtdrive", self.verb, *self.overrides])


@dataclass(frozen=True)
class StageRun:
    """What a stage that is done took."""

    name: str
    """Name of the stage."""
    command: str
    """What repeats it alone."""
    seconds: float
    """Wall time [s]."""
    peak_memory: int
    """Largest memory [bytes] of its processes together."""


def plan_stages(commands: Iterable[Command], compose: Callable[[str, Sequence[str]], Any]) -> list[Stage]:
    """The stages of a run. A stage's fingerprint changes with any of its settings, or of a stage before it.

    Args:
        commands: in the order in which they run.
        compose: (verb, overrides) -> all settings of the verb, defaults included, as a dataclass.
    """
    stages, fingerprint = [], __version__
    for command in commands:
        overrides = to_overrides(command.keys)
        settings = json.dumps(asdict(compose(command.verb, overrides)))
        content = f"{fingerprint}\n{command.verb}\n{settings}"
        fingerprint = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        stages.append(Stage(command.name, command.verb, overrides, command.result, fingerprint))
    return stages


def marker_path(stage: Stage, folder: Path) -> Path:
    """The stage's marker in the run's folder for stages."""
    return folder / f"{stage.name}.json"


def is_done(stage: Stage, folder: Path) -> bool:
    """Whether the stage ran to its end with these settings and its result is still there."""
    marker = _read_marker(marker_path(stage, folder))
    return marker is not None and _same_settings(stage, marker) and marker["done"] and stage.result.exists()


def has_other_settings(stage: Stage, folder: Path) -> bool:
    """Whether the stage was started before with other settings."""
    marker = _read_marker(marker_path(stage, folder))
    return marker is not None and not _same_settings(stage, marker)


def begin(stage: Stage, folder: Path) -> None:
    """Remove what the stage made with other settings, and note what it is about to run with.

    Raises:
        MTDriveError: something that the stage did not make stands where its result belongs.
    """
    path = marker_path(stage, folder)
    marker = _read_marker(path)
    if stage.result.exists() and marker is None:
        raise MTDriveError(
            f"{stage.result} exists and was not made by this run ({path} is missing); choose another out=."
        )
    if marker is not None and not _same_settings(stage, marker):
        _remove(stage.result)
    _write_marker(path, {"fingerprint": stage.fingerprint, "done": False})


def execute(
    stage: Stage, folder: Path, lock: int | None, report: Callable[[str], object] = lambda line: None
) -> StageRun:
    """Run the stage's command to its end and note that it is done. For `lock` and `report` see `run_logged`.

    Raises:
        MTDriveError: the command failed; the message shows the end of its log.
    """
    log = folder / f"{stage.name}.log"
    ended = run_logged([sys.executable, "-m", "mtdrive.cli", stage.verb, *stage.overrides], log, lock, report)
    if ended.exit_status:
        tail = "\n".join(log_lines(log)[-LOG_TAIL:])
        raise MTDriveError(
            f"stage {stage.name} failed with exit status {ended.exit_status}. Its log {log} ends with:\n{tail}\n"
            f"Repeat it alone with: {stage.command}"
        )
    run = StageRun(stage.name, stage.command, ended.seconds, ended.peak_memory)
    marker = {"fingerprint": stage.fingerprint, "done": True, **asdict(run)}
    _write_marker(marker_path(stage, folder), marker)
    return run


def finished_stages(folder: Path) -> tuple[StageRun, ...]:
    """The stages that are done, in the order in which they ended.

    Raises:
        MTDriveError: a marker is damaged.
    """
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    markers = [marker for path in paths if (marker := _read_marker(path)) is not None and marker["done"]]
    names = [field.name for field in fields(StageRun)]
    return tuple(StageRun(**{name: marker[name] for name in names}) for marker in markers)


def _same_settings(stage: Stage, marker: dict[str, Any]) -> bool:
    return marker["fingerprint"] == stage.fingerprint


def _read_marker(path: Path) -> dict[str, Any] | None:
    """What the marker holds; None if there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MTDriveError(f"{path} is damaged ({error}); delete it and what its stage made, and run again.") from error


def _write_marker(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
