"""`mtdrive quickstart`: every verb of the main job, one after the other, in one folder, ending with a report.

Each stage is a process of its own, so that its memory is measured and given back, and so that the command that it
prints can be repeated alone. See `mtdrive.stages.stage` for how a run that was stopped goes on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.text import Text

from mtdrive.evaluation.report.collect import collect
from mtdrive.evaluation.report.headline import headlines
from mtdrive.evaluation.report.page import duration, size, write_report
from mtdrive.settings import load_settings, planner_settings
from mtdrive.settings.quickstart import QuickstartSettings
from mtdrive.simulation.baselines import BASELINES, INTERVAL
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.stages.stage import Command, Stage, StageRun, begin, execute, is_done, plan_stages
from mtdrive.terminal import terminal


def run(config: QuickstartSettings) -> None:
    """Run the stages; see configs/quickstart.yaml."""
    console = terminal()
    out = Path(config.out)
    markers = out / "stages"
    os.environ.update(config.environment)
    stages = plan(config)
    console.print("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in config.environment.items()))
    width = max(len(stage.name) for stage in stages)
    with only_run_in(out) as lock:
        with atomic_path(out / "quickstart.yaml") as path:
            path.write_text(yaml.safe_dump(asdict(config), sort_keys=False))
        for number, stage in enumerate(stages, start=1):
            label = Text(f"{number:2d}/{len(stages)} {stage.name:<{width}}  ", "bold")
            if is_done(stage, markers):
                console.print(label + Text("done before", "not bold"))
                continue
            begin(stage, markers)
            settings = config.stages[stage.name]
            if settings is not None and settings.baseline is not None:
                write_plans(settings.baseline, settings.keys, out)
            console.print(label + Text(stage.command, "not bold dim"))
            done = execute_with_status(stage, markers, lock, console)
            console.print(label + Text(f"{duration(done.seconds)}, {size(done.peak_memory)}", "not bold"))
        data = collect(out)
        write_report(data, out / "report.html")
    for line in headlines(data.table):
        console.print(line)
    console.print(f"Report: {out / 'report.html'} ({duration(sum(stage.seconds for stage in data.stages))})")


def execute_with_status(stage: Stage, markers: Path, lock: int | None, console: Console) -> StageRun:
    """Run a stage; meanwhile the terminal shows the newest line of its log."""
    with console.status(Text(stage.name)) as status:
        return execute(stage, markers, lock, lambda line: status.update(Text(f"{stage.name}  {line}")))


def plan(config: QuickstartSettings) -> list[Stage]:
    """The stages of the configuration; fine-tuning makes its planner, with the sizes that were asked for.

    Raises:
        MTDriveError: a verb does not accept the settings of a stage.
    """
    out, usual = Path(config.out), asdict(planner_settings(config.planner.model))
    changed = {f"planner.{key}": value for key, value in asdict(config.planner).items() if value != usual[key]}
    commands = (
        Command(name, stage.verb, changed | stage.keys if stage.verb == "sft" else stage.keys, out / stage.makes)
        for name, stage in config.stages.items()
        if stage is not None
    )
    return plan_stages(commands, load_settings)


def write_plans(baseline: str, keys: Mapping[str, Any], exp_root: Path) -> None:
    """Write a baseline's plans of a split's scenes as `mtdrive score` reads them; keys: of that verb."""
    store = SceneStore(exp_root / "scene_cache", keys["split"])
    poses = np.stack([BASELINES[baseline](store.load(token)) for token in store.tokens])
    with atomic_path(Path(keys["trajectories"])) as path, path.open("wb") as file:
        np.savez(file, token=np.array(store.tokens), poses=poses, interval_length=INTERVAL)
