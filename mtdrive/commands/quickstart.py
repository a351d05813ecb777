"""`mtdrive quickstart`: every verb of the main job, one after the other, in one folder, ending with a report.

Each stage is a process of its own, so that its memory is measured and given back, and so that the command that it
prints can be repeated alone. A stage leaves `stages/NAME.json`: what it ran with, before it starts, and how long it
took, when it is done. A stage that is done is not run again; one that was stopped goes on by its verb's own means.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from hydra.core.override_parser.types import Quote, QuotedString
from rich.console import Console
from rich.text import Text

from mtdrive import __version__
from mtdrive.evaluation.report.collect import collect
from mtdrive.evaluation.report.data import StageRun
from mtdrive.evaluation.report.headline import headlines
from mtdrive.evaluation.report.page import duration, size, write_report
from mtdrive.settings import load_settings
from mtdrive.settings.quickstart import QuickstartSettings
from mtdrive.simulation.baselines import BASELINES, INTERVAL
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.terminal import terminal

POLL = 0.5  # [s] between two looks at a running stage
PLAIN, NOT_TEXT = re.compile(r"[A-Za-z_/][\w./-]*"), {"true", "false", "null", "nan", "inf"}  # in Hydra's grammar
# A training step frees and asks for the same memory again: glibc should keep it rather than give it back every time.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36), "MALLOC_TOP_PAD_": str(2**26)}
LOG_TAIL = 12  # lines of its log that a failed stage shows


@dataclass(frozen=True)
class Stage:
    """One command. overrides: after the verb. makes: the file or folder that is its result.

    fingerprint: of its whole configuration and of those before it. baseline: whose plans are to be written to the
    file that the key `trajectories` names, or None.
    """

    name: str
    verb: str
    overrides: tuple[str, ...]
    makes: Path
    fingerprint: str
    baseline: str | None = None

    @property
    def command(self) -> str:
        return shlex.join(["mtdrive", self.verb, *self.overrides])


def run(config: QuickstartSettings) -> None:
    """Run the stages; see configs/quickstart.yaml."""
    console = terminal()
    out = Path(config.out)
    os.environ.update(config.environment)
    stages = plan(config)
    console.print("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in config.environment.items()))
    with only_run_in(out) as lock:
        with atomic_path(out / "quickstart.yaml") as path:
            path.write_text(yaml.safe_dump(asdict(config), sort_keys=False))
        for number, stage in enumerate(stages, start=1):
            label = Text(f"{number:2d}/{len(stages)} {stage.name:<{max(len(s.name) for s in stages)}}  ", "bold")
            marker = out / "stages" / f"{stage.name}.json"
            if finished(stage, marker):
                console.print(label + Text("done before", "not bold"))
                continue
            prepare(stage, marker)
            if stage.baseline is not None:
                write_plans(stage.baseline, config.stages[stage.name].keys, out)
            console.print(label + Text(stage.command, "not bold dim"))
            done = execute(stage, out / "stages" / f"{stage.name}.log", lock, console)
            write_marker(marker, {"fingerprint": stage.fingerprint, "done": True, **asdict(done)})
            console.print(label + Text(f"{duration(done.seconds)}, {size(done.peak_memory)}", "not bold"))
        data = collect(out)
        write_report(data, out / "report.html")
    for line in headlines(data.table):
        console.print(line)
    console.print(f"Report: {out / 'report.html'} ({duration(sum(stage.seconds for stage in data.stages))})")


def plan(config: QuickstartSettings) -> list[Stage]:
    """The stages of the configuration, each with its composed settings checked."""
    stages, fingerprint = [], __version__
    for name, stage in config.stages.items():
        if stage is None:
            continue
        overrides = tuple(f"{key}={to_override(value)}" for key, value in stage.keys.items())
        settings = json.dumps(asdict(load_settings(stage.verb, overrides)))
        fingerprint = hashlib.blake2b(f"{fingerprint}\n{stage.verb}\n{settings}".encode(), digest_size=8).hexdigest()
        stages.append(Stage(name, stage.verb, overrides, Path(config.out) / stage.makes, fingerprint, stage.baseline))
    return stages


def to_override(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{to_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(to_override(item) for item in value) + "]"
    if isinstance(value, str) and (not PLAIN.fullmatch(value) or value.lower() in NOT_TEXT):
        return QuotedString(value, Quote.single).with_quotes()
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def read_marker(marker: Path) -> dict[str, Any]:
    return json.loads(marker.read_text()) if marker.exists() else {}


def write_marker(marker: Path, content: dict[str, Any]) -> None:
    with atomic_path(marker) as path:
        path.write_text(json.dumps(content, indent=2))


def finished(stage: Stage, marker: Path) -> bool:
    """Whether the stage ran to its end with these settings and its result is still there."""
    content = read_marker(marker)
    return content.get("fingerprint") == stage.fingerprint and content["done"] and stage.makes.exists()


def prepare(stage: Stage, marker: Path) -> None:
    """Remove what the stage made with other settings, and note what it is about to run with.

    Raises:
        MTDriveError: the result's place is taken by something that no quickstart made.
    """
    content = read_marker(marker)
    if stage.makes.exists() and not content:
        raise MTDriveError(f"{stage.makes} exists and was not made by mtdrive quickstart; choose another out=.")
    if content and content["fingerprint"] != stage.fingerprint:
        remove(stage.makes)
    write_marker(marker, {"fingerprint": stage.fingerprint, "done": False})


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_plans(baseline: str, keys: Mapping[str, Any], exp_root: Path) -> None:
    """Write a baseline's plans of a split's scenes as `mtdrive score` reads them; keys: of that verb."""
    store = SceneStore(exp_root / "scene_cache", keys["split"])
    poses = np.stack([BASELINES[baseline](store.load(token)) for token in store.tokens])
    with atomic_path(Path(keys["trajectories"])) as path, path.open("wb") as file:
        np.savez(file, token=np.array(store.tokens), poses=poses, interval_length=INTERVAL)


def execute(stage: Stage, log_path: Path, lock: int, console: Console) -> StageRun:
    """Run the stage's command to its end, with its output in a log.

    Raises:
        MTDriveError: the command failed.
    """
    started = time.perf_counter()
    environment = {**KEEP_MEMORY, **os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "140"}
    with log_path.open("w") as log, console.status(Text(stage.name)) as status:
        process = subprocess.Popen(
            [sys.executable, "-m", "mtdrive.cli", stage.verb, *stage.overrides],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
        )
        try:
            peak = watch(process, lambda: status.update(Text(f"{stage.name}  {last_line(log_path)}")))
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        tail = "\n".join(read_log(log_path)[-LOG_TAIL:])
        raise MTDriveError(
            f"stage {stage.name} failed with exit status {process.returncode}. Its log {log_path} ends with:\n{tail}\n"
            f"Repeat it alone with: {stage.command}"
        )
    return StageRun(stage.name, stage.command, time.perf_counter() - started, peak)


def watch(process: subprocess.Popen, report: Callable[[], None]) -> int:
    """Wait for a process; returns the peak memory [bytes] of it and its children together."""
    peak = 0
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return max(peak, usage.ru_maxrss * 1024)
        peak = max(peak, memory(process.pid))
        report()
        time.sleep(POLL)


def memory(pid: int) -> int:
    """Memory [bytes] of a process and its children; pages that they share count once."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total


def read_log(path: Path) -> list[str]:
    """Lines of a log that are not empty; of a progress bar the newest state."""
    lines = path.read_text(errors="replace").split("\n")
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines if line.strip()]


def last_line(path: Path) -> str:
    lines = read_log(path)
    return lines[-1].strip()[:120] if lines else ""
