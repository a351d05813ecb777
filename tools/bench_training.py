"""Time one RL step of stock TRL and of this project side by side: the same model, scenes, answers and scorer calls.

    python tools/bench_training.py --exp-root outputs/quickstart --data-root outputs/quickstart/world

Every workload runs each side in a fresh process; the two make their steps in turns, so that a disturbance of the
machine meets both. What stock is stands in `training_sides.py`. --scaling adds how both grow with group, turns and
image tokens; --device cuda --dtype bfloat16 --model 600m is the same on a GPU, with the share of the step that it idles
(not run yet).
Prints tables; --json keeps every measurement.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from training_workload import GRIDS, SIZES, STEP_SIZES, Workload, as_dict

from mtdrive.simulation.installation.timing import Spread

SIDE = Path(__file__).with_name("training_sides.py")
SIDES = ("stock", "ours")
GOALS = {300: 4, 600: 6, 1200: 8}  # times more samples per second, by image tokens
GROUPS, TURNS = (4, 8, 16), (1, 2, 3, 4)
PHASES = ("vision", "prefill", "decode", "scoring", "loss")
MB = 2**20


class Side:
    """One side in a process of its own."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def step(self, wish: str = "step") -> dict:
        """Make a step; returns what it took. wish: "profile" to measure the GPU's idle share too."""
        print(wish, file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict:
        """The next answer of the process."""
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"One side ended with exit status {self._process.wait()}; what it printed is above.")
        return json.loads(line)


@contextmanager
def side(name: str, workload: Workload) -> Iterator[Side]:
    """Start a side, "stock" or "ours", or the comparison of numbers, "equality"."""
    environment = os.environ | {"OMP_NUM_THREADS": str(workload.threads), "TRL_EXPERIMENTAL_SILENCE": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(SIDE.parent.parent), os.environ.get("PYTHONPATH", "")])}
    environment |= {"PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, str(SIDE), name, json.dumps(as_dict(workload))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield Side(process)
        finally:
            process.stdin.close()


def side_by_side(workload: Workload, rounds: int) -> dict:
    """By side: the answers of `rounds` steps, after one that warms up; on a GPU one more, whose idle share counts."""
    steps: dict[str, list[dict]] = {name: [] for name in SIDES}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(side(name, workload)) for name in SIDES}
        for number in range(rounds + 1):
            for name in SIDES:
                taken = sides[name].step()
                if number:
                    steps[name].append(taken)
        idle = {name: sides[name].step("profile")["idle"] for name in SIDES} if workload.device == "cuda" else {}
    same = [
        np.mean([a == b for (x, _), (y, _) in zip(*pair, strict=True) for a, b in zip(x, y, strict=True)])
        for pair in zip(*([step.pop("said") for step in steps[name]] for name in SIDES), strict=True)
    ]
    return {"workload": as_dict(workload), "same_tokens": float(min(same)), "idle": idle, **steps}


def phases(step: dict) -> dict[str, float]:
    """Seconds of a step by phase; decode is what generation does beside the others, with sampling and bookkeeping."""
    s = step["seconds"]
    known = {name: s[name] for name in ("vision", "prefill", "scoring")}
    return known | {"decode": s["generation"] - sum(known.values()), "loss": s["step"] - s["generation"]}


def peak(step: dict, phase: str | None = None) -> float:
    """MB over what the process held before the model was made."""
    peaks = step["peaks"]
    return ((max(peaks.values()) if phase is None else peaks[phase]) - step["before"]) / MB


def spread(samples: Sequence[float], digits: int = 2) -> str:
    """Median, 10th and 90th percentile."""
    s = Spread.of(samples)
    return f"{s.median:.{digits}f} ({s.low:.{digits}f} to {s.high:.{digits}f})"


def compared(result: dict, kind: str = "step") -> list[float]:
    """Times that stock takes longer, round by round."""
    return [a["seconds"][kind] / b["seconds"][kind] for a, b in zip(*(result[name] for name in SIDES), strict=True)]


def median(steps: list[dict], value: Callable[[dict], float]) -> float:
    """Median over steps of a value of each."""
    return float(np.median([value(step) for step in steps]))


def show(console: Console, results: dict[int, dict], title: str) -> None:
    """Print time, memory and shares of the step of both sides, by image tokens."""
    columns = ("stock [s]", "ours [s]", "stock [samples/s]", "ours [samples/s]", "times faster", "goal", "by CPU time")
    speed = Table("image tokens", *columns, title=title, title_justify="left")
    memory = Table(
        *("image tokens", "stock [MB]", "ours [MB]", "ours / stock", "stock in all [MB]", "ours in all [MB]"),
        title="Peak memory over that before the model is made (ratio), and in all",
        title_justify="left",
    )
    shares = Table("image tokens", "side", *PHASES, "idle", title="Share of the step [%]", title_justify="left")
    for tokens, result in results.items():
        seconds = {name: [step["seconds"]["step"] for step in result[name]] for name in SIDES}
        samples = result["workload"]["scenes"] * result["workload"]["group"]
        rates = [f"{samples / np.median(seconds[name]):.2f}" for name in SIDES]
        ratios = (spread(compared(result)), f"{GOALS[tokens]}", spread(compared(result, "cpu")))
        speed.add_row(str(tokens), *(spread(seconds[name]) for name in SIDES), *rates, *ratios)
        grown = [max(peak(step) for step in result[name]) for name in SIDES]
        whole = [max(max(step["peaks"].values()) for step in result[name]) / MB for name in SIDES]
        memory.add_row(
            str(tokens), *(f"{m:.0f}" for m in grown), f"{grown[1] / grown[0]:.2f}", *(f"{m:.0f}" for m in whole)
        )
        for name in SIDES:
            parts = [
                median(result[name], lambda step, p=p: 100 * phases(step)[p] / step["seconds"]["step"]) for p in PHASES
            ]
            idle = f"{100 * result['idle'][name]:.0f}" if name in result["idle"] else "-"
            shares.add_row(str(tokens), name, *(f"{part:.0f}" for part in parts), idle)
    for table in (speed, memory, shares):
        console.print(table)
    same = min(result["same_tokens"] for result in results.values())
    calls = {result[name][-1]["scorings"] for result in results.values() for name in SIDES}
    called = ", ".join(map(str, sorted(calls)))
    console.print(f"Both sides generated the same tokens: {100 * same:.2f} %. Scorer calls of each side: {called}.\n")


def show_scaling(console: Console, results: list[dict], field: str, title: str) -> None:
    """What generation (without scoring) and loss cost by the workload's field `field`."""
    parts = {
        "generation": lambda step: step["seconds"]["generation"] - step["seconds"]["scoring"],
        "loss": lambda step: step["seconds"]["step"] - step["seconds"]["generation"],
    }
    columns = [f"{part} [{unit}]" for unit in ("s", "MB") for part in parts]
    columns += ["times faster", "by CPU time"]
    table = Table(field.replace("_", " "), *columns, title=f"{title}, stock / ours", title_justify="left")
    for result in results:
        pairs = [[f"{median(result[name], seconds):.2f}" for name in SIDES] for seconds in parts.values()]
        pairs += [[f"{max(peak(step, part) for step in result[name]):.0f}" for name in SIDES] for part in parts]
        ratios = (spread(compared(result, kind)) for kind in ("step", "cpu"))
        table.add_row(str(result["workload"][field]), *(" / ".join(pair) for pair in pairs), *ratios)
    console.print(table)


def show_roofline(console: Console, results: dict[int, dict]) -> None:
    """Bytes that a decode step must read (weights of the language model, keys and values) against its time."""
    columns = (
        "side",
        "bytes a step [MB]",
        "a step (ms)",
        "reached [GB/s]",
        "memory [GB/s]",
        "of the bound [%]",
    )
    table = Table("image tokens", *columns, title="Decode steps (forward passes alone)", title_justify="left")
    for tokens, result in results.items():
        steps = result["workload"]["turns"] * (result["workload"]["answer_tokens"] - 1)
        for name in SIDES:
            last = result[name][-1]
            seconds = median(result[name], lambda step: step["seconds"]["decode forward"]) / steps
            reached = last["decode_bytes"] / seconds
            table.add_row(
                *(str(tokens), name, f"{last['decode_bytes'] / MB:.1f}", f"{seconds * 1e3:.2f}"),
                *(f"{reached / 1e9:.1f}", f"{last['bandwidth'] / 1e9:.1f}", f"{100 * reached / last['bandwidth']:.0f}"),
            )
    console.print(table)


def show_growth(console: Console, base: Workload, results: dict[int, dict]) -> list[dict]:
    """How both sides grow with group and turns, by steps of their own, and with image tokens, by `results`."""
    points = [replace(base, group=group) for group in GROUPS]
    points += [replace(base, turns=turns) for turns in TURNS if turns != base.turns]
    grown = [side_by_side(point, 2) for point in tqdm(points, desc="growth")]
    same_group = [result for result in grown if result["workload"]["group"] == base.group]
    same_group.sort(key=lambda result: result["workload"]["turns"])
    show_scaling(console, grown[: len(GROUPS)], "group", f"Growth with the group, {base.scenes} scenes")
    show_scaling(console, same_group, "turns", f"Growth with the turns, {base.scenes} scenes")
    scenes = next(iter(results.values()))["workload"]["scenes"]
    show_scaling(console, list(results.values()), "image_tokens", f"Growth with image tokens, {scenes} scenes")
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp-root", type=Path, required=True, help="holds scene_cache/<split>")
    parser.add_argument("--data-root", type=Path, required=True, help="holds sensor_blobs/<split>")
    parser.add_argument("--split", default="train")
    parser.add_argument("--model", choices=[*SIZES, *STEP_SIZES], default="tiny", help="in training_workload.py")
    parser.add_argument("--image-tokens", type=int, nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--scenes", type=int, default=4, help="of a step")
    parser.add_argument("--group", type=int, default=8, help="episodes of a scene")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--passes", type=int, default=1, help="forward and backward passes that share out the scenes")
    parser.add_argument("--recompute", action="store_true", help="activation checkpointing, on both sides")
    parser.add_argument("--rounds", type=int, default=2, help="steps of each side that count")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--scaling", action="store_true", help="measure growth with group and turns, 2 scenes")
    parser.add_argument("--json", type=Path, help="file to write all measurements to")
    arguments = parser.parse_args()
    shared = {"exp_root", "data_root", "split", "model", "scenes", "group", "turns", "passes", "recompute", "threads"}
    given = {name: getattr(arguments, name) for name in shared | {"device", "dtype"}}
    base = Workload(**{name: str(value) if isinstance(value, Path) else value for name, value in given.items()})

    console = Console(width=160, highlight=False)
    machine = torch.cuda.get_device_name() if base.device == "cuda" else f"{os.cpu_count()} CPU cores"
    console.print(f"{platform.machine()}, {machine}, torch {torch.__version__} on {base.threads} threads, {base.dtype}")
    workloads = [replace(base, image_tokens=tokens) for tokens in arguments.image_tokens]
    results = {w.image_tokens: side_by_side(w, arguments.rounds) for w in tqdm(workloads, desc="side by side")}
    parameters = next(iter(results.values()))["ours"][0]["parameters"]
    size = f"{parameters / 1e6:.1f} M parameters, {base.scenes} scenes x {base.group} episodes x {base.turns} turns"
    show(console, results, f"One RL step, {size} of {base.answer_tokens} tokens")
    if all(step["decode_bytes"] for result in results.values() for name in SIDES for step in result[name]):
        show_roofline(console, results)
    everything: dict = {"side_by_side": results}
    if base.dtype == "float32":
        everything["equality"] = {}
        for workload in workloads:
            with side("equality", workload) as process:
                found = everything["equality"][workload.image_tokens] = process.answer()
            console.print(
                f"{workload.image_tokens} image tokens, shared prompts against the plain pass, largest relative "
                f"difference: log-probabilities {found['log_probs']:.1e}, gradients {found['gradients']:.1e}"
            )
    if arguments.scaling:
        everything["growth"] = show_growth(console, replace(base, scenes=2, image_tokens=300), results)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
