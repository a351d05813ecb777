"""What a training run was started with, kept as `run.json` beside its checkpoints.

So a run with other settings never resumes from them, and a finished run is not run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.training.checkpoints import latest_checkpoint

RUN_NAME = "run.json"
OPEN = ("trl", "vllm.options")  # mappings whose names are not ours, so that a name more or less is another value


def settings_of(config: Any, free: Collection[str]) -> dict[str, object]:
    """The values of settings, a dataclass, by key (`group.key` in groups), without the keys that a run may change.

    free: these keys.
    """
    return {key: value for key, value in _flat(asdict(config)).items() if key not in free}


class Run:
    """A training run in a folder.

    Args:
        out: the folder.
        settings: by key, what decides the result.
        ends: by key, what decides when the run ends; may be changed to go on further.

    Raises:
        MTDriveError: the folder has a run with other settings, or a `run.json` that does not read.
    """

    def __init__(self, out: str | Path, settings: Mapping[str, object], ends: Mapping[str, object]):
        self._path, self._content = Path(out) / RUN_NAME, {"settings": dict(settings), "ends": dict(ends)}
        before = _read(self._path)
        if before and (before["finished"] or latest_checkpoint(out)):
            for key, value in before["settings"].items():
                if key in settings and settings[key] != value:
                    raise MTDriveError(
                        f"{out} holds a run with {key}={value}, not {key}={settings[key]}; delete it or choose "
                        "another out=."
                    )
        saved = any(Path(out).glob("*.safetensors"))
        self.finished = saved and before == self._content | {"finished": True}

    def begin(self) -> None:
        """Write `run.json`, from which on only the same settings may resume the run."""
        self._write(finished=False)

    def finish(self) -> None:
        """Write in `run.json` that the run has reached its end."""
        self._write(finished=True)

    def _write(self, finished: bool) -> None:
        if is_main_process():
            with atomic_path(self._path) as path:
                path.write_text(json.dumps(self._content | {"finished": finished}, indent=2))


def is_main_process() -> bool:
    """Whether this is the first, or only, process of `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise MTDriveError(f"{path} does not read ({error}); delete it, or choose another out=.") from error


def _flat(values: Mapping[Any, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) and name not in OPEN else {name: value}
    return flat
