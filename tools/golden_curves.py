"""Loss curves and scores that a change of the code must not change.

    python tools/golden_curves.py --write    before the change: keep what comes out in tools/golden_curves.json
    python tools/golden_curves.py            after it: the same run, every value compared; exit status 1 if one differs

A small synthetic world; 20 steps of `mtdrive sft` from random weights; 20 steps of `mtdrive rl` from a planner that was
fine-tuned long enough to write readable plans; the scores of four baselines under both metrics. About five minutes on
two CPU cores. Bits depend on the processor and on torch's build, so both runs belong on one machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

GOLDEN = Path(__file__).with_suffix(".json")
TOLERANCE = 1e-6  # relative
STEPS = 20
UNSTEADY = ("seconds", "time", "runtime", "per_second", "flos", "memory")  # parts of names of what a log measures
Values = dict[str, float | str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the values instead of comparing them")
    parser.add_argument("--work", type=Path, help="an empty folder for the runs, which stay there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure((arguments.work or Path(temporary)).resolve())
    if arguments.write:
        GOLDEN.write_text(json.dumps(found, indent=0) + "\n")
        print(f"{len(found)} values in {GOLDEN}")
        return 0
    different = list(differences(json.loads(GOLDEN.read_text()), found))
    print("\n".join(different[:20]))
    print(f"{len(found)} values, {len(different)} differ by more than {TOLERANCE}")
    return int(bool(different))


def measure(work: Path) -> Values:
    """Run everything below `work`; name -> value."""
    work.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OPENSCENE_DATA_ROOT": f"{work}/world",
        "NUPLAN_MAPS_ROOT": f"{work}/world/maps",
        "NAVSIM_EXP_ROOT": str(work),
        "OMP_NUM_THREADS": "1",
    }

    def mtdrive(*words: str) -> None:
        with (work / "log.txt").open("a") as log:
            done = subprocess.run(
                [sys.executable, "-m", "mtdrive.cli", *words], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        if done.returncode:
            sys.exit(f"mtdrive {' '.join(words)} failed; see {work / 'log.txt'} (keep it with --work).")

    mtdrive("synth", f"out={work}/world", "scenes_train=24", "scenes_val=0", "scenes_test=12", "seed=7")
    for split in ("train", "test"):
        mtdrive("cache", f"split={split}")
    mtdrive("record", "split=train", f"out={work}/dataset", "seed=3")
    sft = ["sft", f"dataset={work}/dataset", "logging_steps=1", "seed=1"]
    mtdrive(*sft, f"out={work}/sft20", f"max_steps={STEPS}", "batch_size=4", "gradient_accumulation_steps=2")
    mtdrive(*sft, f"out={work}/sft", "max_steps=300", "save_steps=300")
    mtdrive(
        *("rl", f"planner={work}/sft", f"out={work}/rl", f"max_steps={STEPS}", "seed=2"),
        *("scenes_per_step=4", "scenes_per_pass=2", "group_size=4", "updates_per_step=2", "kl=0.01"),
    )
    found = {**curve("sft", work / "sft20"), **curve("rl", work / "rl")}
    for metric in ("pdms_v1", "epdms_v2"):
        mtdrive("evaluate", f"metric={metric}", f"out={work}/{metric}")
        table = pd.read_csv(work / metric / "scores.csv")
        for row in table.to_dict("records"):
            name = f"{metric}/{row['token']}/{row['policy']}/{row['turn']}"
            found |= {f"{name}/{column}": value for column, value in row.items() if isinstance(value, float)}
    return found


def curve(name: str, run: Path) -> Values:
    """Every value that a training logged, but for what it measured with a clock."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        f"{name}/{number}/{key}": value
        for number, line in enumerate(lines)
        for key, value in line.items()
        if not any(part in key for part in UNSTEADY)
    }


def differences(golden: Values, found: Values) -> Iterator[str]:
    """A line for each value that is missing, new, or another."""
    for name in golden.keys() | found.keys():
        one, other = golden.get(name), found.get(name)
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        both_nan = numbers and math.isnan(one) and math.isnan(other)
        if not (both_nan or one == other or (numbers and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12))):
            yield f"{name}: was {one}, is {other}"


if __name__ == "__main__":
    sys.exit(main())
