"""Which part of multi-turn reinforcement learning helps? Trains a planner in several ways and compares them.

    python tools/ablation.py --run outputs/quickstart --out outputs/ablation --preset cpu-night

Every arm starts from the one planner that the run of `mtdrive quickstart` fine-tuned, learns on the run's training
scenes until it has generated the same number of tokens, with several seeds, and is evaluated on the run's test scenes
with privileged and with perceived feedback. Nothing is chosen by the test scenes: an arm's last planner counts.

It can be stopped: what is finished is not run again, and the rest goes on from its checkpoints. The report
(`report.md`, `scores.csv`, `ablation.png`) covers what is finished; `--report-only` writes it without running anything.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from ablation_report import STAGES, write_report
from rich.console import Console
from tqdm import tqdm

from mtdrive.planner.card import CARD
from mtdrive.settings import load_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.stages.stage import Command, Stage, begin, execute, has_other_settings, is_done, plan_stages

SFT = "sft"
ARMS: dict[str, dict] = {
    SFT: {},  # not trained any further
    "single-turn grpo": {"estimator": "grpo", "turns": 1},
    "multi-turn grpo": {"estimator": "grpo"},
    "mtgrpo": {"estimator": "mtgrpo"},
    "mtgrpo_outcome": {"estimator": "mtgrpo_outcome"},
    "return_to_go": {"estimator": "return_to_go"},
    "gigpo": {"estimator": "gigpo"},
}
FEEDBACK = ("privileged", "perceived")
ENDLESS = 10**5  # steps: the budget of tokens ends a run


@dataclass(frozen=True)
class Preset:
    """Sizes of an ablation."""

    tokens: int
    """Tokens that each run generates in training."""
    seeds: int
    """Runs of an arm."""
    jobs: int
    """Runs at a time."""
    rl: Mapping[str, object] = field(default_factory=dict)
    """Keys of `mtdrive rl` that all runs share."""


PRESETS = {
    "cpu-hour": Preset(tokens=600_000, seeds=3, jobs=2, rl={"learning_rate": 2e-4}),
    "cpu-night": Preset(tokens=5_000_000, seeds=3, jobs=2, rl={"learning_rate": 1.5e-4, "scenes_per_step": 16}),
    "gpu-hour": Preset(tokens=20_000_000, seeds=3, jobs=3, rl={"scenes_per_step": 32, "group_size": 16}),
    "smoke": Preset(tokens=1, seeds=2, jobs=2, rl={"scenes_per_step": 2, "group_size": 2}),
}


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Where one run of an arm is kept: its planner, its evaluations, and its stages."""
    return out / arm.replace(" ", "-") / str(seed)


def plan(planner: Path, folder: Path, arm: str, seed: int, preset: Preset, steps: bool = False) -> list[Stage]:
    """The stages of one run of an arm: training, and an evaluation with each source of feedback.

    Args:
        planner: folder of the planner that all arms start from.
        folder: of the run.
        arm: one of ARMS.
        seed: of the training.
        preset: sizes.
        steps: see `feedback_steps` in configs/rl.yaml.
    """
    shared: dict[str, object] = {"feedback_steps": True} if steps else {}
    commands = []
    if arm != SFT:
        out = folder / "rl"
        keys = {"planner": str(planner), "split": "train", "seed": seed, "turns": 3, **preset.rl, **ARMS[arm]}
        keys |= {**shared, "max_generated_tokens": preset.tokens, "max_steps": ENDLESS, "out": str(out)}
        commands.append(Command("rl", "rl", keys, out))
        planner = out
    for source in FEEDBACK:
        out = folder / source
        keys = {"split": "test", "planner": str(planner), "turns": 3, "baselines": ["human"]}
        keys |= {**shared, "feedback": source, "out": str(out)}
        commands.append(Command(source, "evaluate", keys, out))
    return plan_stages(commands, load_settings)


def run_stages(stages: Sequence[Stage], folder: Path, lock: int | None) -> None:
    """Run those stages of a run that are not done.

    Raises:
        MTDriveError: a stage failed, or was made with other settings; hours of training are not removed for that.
    """
    markers = folder / STAGES
    if changed := [stage.name for stage in stages if has_other_settings(stage, markers)]:
        raise MTDriveError(f"The settings of {', '.join(changed)} in {folder} have changed; choose another --out.")
    for stage in stages:
        if not is_done(stage, markers):
            begin(stage, markers)
            execute(stage, markers, lock)


def run_all(runs: Mapping[Path, list[Stage]], out: Path, jobs: int) -> list[str]:
    """Run the stages of all runs, `jobs` runs at a time; returns why runs failed.

    Raises:
        MTDriveError: another ablation is at work in the folder.
    """
    failures = []
    with only_run_in(out) as lock, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_stages, stages, folder, lock) for folder, stages in runs.items()]
        for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
            if error := future.exception():
                failures.append(str(error))
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished mtdrive quickstart")
    parser.add_argument("--planner", type=Path, help="folder of the planner to start from, if not the run's sft/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the report")
    parser.add_argument("--preset", choices=PRESETS, default="cpu-night")
    parser.add_argument("--jobs", type=int, help="runs at a time, if not as many as the preset has")
    parser.add_argument("--seeds", type=int, help="runs of every arm, if not as many as the preset has")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="only these")
    parser.add_argument("--feedback-steps", action="store_true", help="the planner was taught with feedback_steps=true")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    run, out, preset = arguments.run.resolve(), arguments.out.resolve(), PRESETS[arguments.preset]
    jobs, seeds = arguments.jobs or preset.jobs, arguments.seeds or preset.seeds
    planner = (arguments.planner or run / "sft").resolve()
    if not (planner / CARD).exists():
        sys.exit(f"{planner} holds no planner; give --run the folder of a finished mtdrive quickstart, or --planner.")
    os.environ |= {  # of every stage
        "OPENSCENE_DATA_ROOT": str(run / "world"),
        "NUPLAN_MAPS_ROOT": str(run / "world" / "maps"),
        "NAVSIM_EXP_ROOT": str(run),
        "NAVSIM_DEVKIT_ROOT": str(run / "world"),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)),
    }

    runs = {}
    for seed in range(seeds):  # all arms' first seeds first, so that a run that is cut short compares all of them
        for arm in arguments.arms if seed == 0 else [arm for arm in arguments.arms if arm != SFT]:
            folder = run_folder(out, arm, seed)
            runs[folder] = plan(planner, folder, arm, seed, preset, arguments.feedback_steps)
    try:
        failures = [] if arguments.report_only else run_all(runs, out, jobs)
    except MTDriveError as error:
        sys.exit(str(error))
    write_report(out, list(ARMS), Console(highlight=False, soft_wrap=True))
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
