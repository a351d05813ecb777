"""Which part of multi-turn reinforcement learning helps? Trains a planner in several ways and compares them.

    python tools/ablation.py --run outputs/quickstart --out outputs/ablation --preset cpu-night

Every arm starts from the one planner that the run of `mtdrive quickstart` fine-tuned, learns on the run's training
scenes until it has generated the same number of tokens, with several seeds, and is evaluated on the run's test scenes
with privileged and with perceived feedback. Nothing is chosen by the test scenes: an arm's last planner counts.

Resumable: what is finished is not run again, what was stopped goes on from its checkpoint. The report (`report.md`,
`scores.csv`, `ablation.png`) is of whatever is finished; `--report-only` writes it without running anything.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from ablation_report import write_report
from rich.console import Console
from tqdm import tqdm

from mtdrive.commands.quickstart import KEEP_MEMORY, last_line, to_override
from mtdrive.simulation.runtime.files import atomic_path

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
    """tokens: that each run generates. rl: what all runs are told. seeds: runs of an arm. jobs: runs at a time."""

    tokens: int
    seeds: int
    jobs: int
    rl: Mapping[str, object] = field(default_factory=dict)


PRESETS = {
    "cpu-hour": Preset(tokens=600_000, seeds=3, jobs=2, rl={"learning_rate": 2e-4}),
    "cpu-night": Preset(tokens=5_000_000, seeds=3, jobs=2, rl={"learning_rate": 1.5e-4, "scenes_per_step": 16}),
    "gpu-hour": Preset(tokens=20_000_000, seeds=3, jobs=3, rl={"scenes_per_step": 32, "group_size": 16}),
    "smoke": Preset(tokens=1, seeds=2, jobs=2, rl={"scenes_per_step": 2, "group_size": 2}),
}


@dataclass(frozen=True)
class Command:
    """`mtdrive VERB` with these keys, which makes `out`."""

    verb: str
    keys: Mapping[str, object]
    out: Path

    def execute(self, environment: Mapping[str, str]) -> None:
        """Run it, unless it is done. Raises RuntimeError with the end of its log if it fails, or if `out` holds the
        result of another command."""
        marker, arguments = self.out.with_suffix(".json"), [f"{k}={to_override(v)}" for k, v in self.keys.items()]
        said = json.loads(marker.read_text()) if marker.exists() else {"arguments": arguments, "done": False}
        if said["arguments"] != arguments:
            raise RuntimeError(f"{self.out} was made with other settings (see {marker}); choose another --out.")
        if said["done"]:
            return
        with atomic_path(marker) as path:
            path.write_text(json.dumps(said))
        log_path = self.out.with_suffix(".log")
        with log_path.open("w") as log:
            done = subprocess.run(
                [sys.executable, "-m", "mtdrive.cli", self.verb, *arguments, f"out={to_override(str(self.out))}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**KEEP_MEMORY, **os.environ, **environment},
            )
        if done.returncode:
            raise RuntimeError(f"mtdrive {self.verb} failed; its log {log_path} ends with: {last_line(log_path)}")
        with atomic_path(marker) as path:
            path.write_text(json.dumps({**said, "done": True}))


def commands(planner: Path, out: Path, arm: str, seed: int, preset: Preset, steps: bool = False) -> list[Command]:
    """What one run of an arm takes, from `planner` on. steps: see `feedback_steps` in configs/rl.yaml."""
    folder = out / arm.replace(" ", "-") / str(seed)
    training = []
    if arm != SFT:
        keys = {"planner.model": str(planner), "split": "train", "seed": seed, "turns": 3, **preset.rl, **ARMS[arm]}
        keys |= {"feedback_steps": True} if steps else {}
        keys |= {"max_generated_tokens": preset.tokens, "max_steps": ENDLESS}
        training, planner = [Command("rl", keys, folder / "rl")], folder / "rl"
    keys = {"split": "test", "planner": "tiny", "planner.model": str(planner), "turns": 3, "baselines": ["human"]}
    keys |= {"feedback_steps": True} if steps else {}
    return training + [Command("evaluate", {**keys, "feedback": source}, folder / source) for source in FEEDBACK]


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
    if not (planner / "config.json").exists():
        sys.exit(f"{planner} holds no planner; give --run the folder of a finished mtdrive quickstart, or --planner.")
    environment = {
        "OPENSCENE_DATA_ROOT": str(run / "world"),
        "NUPLAN_MAPS_ROOT": str(run / "world" / "maps"),
        "NAVSIM_EXP_ROOT": str(run),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)),
    }

    def do(arm: str, seed: int) -> None:
        for command in commands(planner, out, arm, seed, preset, arguments.feedback_steps):
            command.out.parent.mkdir(parents=True, exist_ok=True)
            command.execute(environment)

    failures = []
    if not arguments.report_only:
        # All arms' first seeds first, so that a run that is cut short compares all of them.
        work = [(arm, seed) for seed in range(seeds) for arm in arguments.arms if arm != SFT or seed == 0]
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(do, *item) for item in work]
            for future in tqdm(as_completed(futures), total=len(work), unit="run"):
                if future.exception():
                    failures.append(str(future.exception()))
    write_report(out, list(ARMS), Console(highlight=False, soft_wrap=True))
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
