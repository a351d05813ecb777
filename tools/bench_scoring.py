"""Time official navsim and this scorer side by side, on the same scenes and trajectories.

    python tools/bench_scoring.py --navsim ~/navsim --nuplan ~/nuplan-devkit --python ~/navsim-venv/bin/python \
        --data-root D --maps-root M --split test --metric pdms_v1

navsim and nuplan-devkit are plain checkouts (navsim branch v1.1 for pdms_v1, v2.2 for epdms_v2), --python an
interpreter with what they need. Both sides run on the same core, in turns, so that a disturbance of the machine meets
both. --scaling adds how our cost grows and what a whole split takes. Prints tables; --json keeps every measurement.
`mtdrive bench` measures ours alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy is imported, here and in the child processes

import bench_scaling  # noqa: E402
import numpy as np  # noqa: E402
from parity import official_environment  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from tqdm import tqdm  # noqa: E402

from mtdrive.simulation.installation.timing import GROUPS, Spread, evenly, time_build, time_scene, varied_plans  # noqa: E402
from mtdrive.simulation.scene_cache.store import SceneStore  # noqa: E402
from mtdrive.simulation.scoring import score  # noqa: E402

OFFICIAL = Path(__file__).with_name("official_timing.py")
INTERVAL = 0.5
CALLS = 8  # official calls timed in a scene
BLOCK = 10  # scenes that are built in a row


class Official:
    """The official code in a process of its own, asked by lines of JSON."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def ask(self, do: str, **request: object) -> dict:
        """The answer to a request: `do` names a method of `official_timing.Session`, the rest are its arguments."""
        print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"The official code ended with exit status {self._process.wait()}; what it printed is above.")
        return json.loads(answer)


@contextmanager
def official(arguments: argparse.Namespace, tokens: list[str], folder: Path):
    """Start the official code; its scenes are `tokens`."""
    command = [arguments.python, OFFICIAL, "--metric", arguments.metric, "--split", arguments.split]
    command += ["--tokens", ",".join(tokens), "--folder", folder / "metric_cache"]
    command += ["--human-penalty-filter"] if arguments.human_penalty_filter else []
    with subprocess.Popen(
        list(map(str, command)),
        env=official_environment(arguments, folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Official(process)
        finally:
            process.stdin.close()


def side_by_side(arguments: argparse.Namespace, store: SceneStore, tokens: list[str], folder: Path) -> dict:
    """Seconds by measurement, each a list over blocks or scenes, and what the comparison of scores found."""
    warm_up = one_scene_per_map(store, tokens)
    with official(arguments, [*warm_up, *tokens], folder) as navsim:
        building, paths = build_side_by_side(arguments, navsim, [warm_up, *blocks(tokens)], store, folder)
        scoring, differences = score_side_by_side(arguments, navsim, [*warm_up, *tokens], paths, store)
    times = {name: seconds[1:] for name, seconds in building.items()}
    times |= {name: seconds[len(warm_up) :] for name, seconds in scoring.items()}
    return {"times": times, "compared": len(differences), "largest_difference": max(differences)}


def blocks(tokens: list[str]) -> list[list[str]]:
    """The tokens in blocks of BLOCK."""
    return [tokens[start : start + BLOCK] for start in range(0, len(tokens), BLOCK)]


def build_side_by_side(
    arguments: argparse.Namespace, navsim: Official, parts: list[list[str]], store: SceneStore, folder: Path
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds per scene of each block of scenes, and the files of the official caches by token.

    Ours counts everything, reading the logs too; official has read them before.
    """
    times: dict[str, list[float]] = {"official build": [], "build": []}
    paths = {}
    roots = (arguments.data_root, arguments.maps_root, arguments.split)
    for number, part in enumerate(tqdm(parts, desc="building", unit="block")):
        built = {token: navsim.ask("build", token=token) for token in part}
        paths |= {token: answer["path"] for token, answer in built.items()}
        times["official build"].append(float(np.mean([answer["seconds"] for answer in built.values()])))
        log_names = {store.log_name(token) for token in part}
        times["build"].append(time_build(*roots, folder / f"block_{number}", part, log_names))
    return times, paths


def score_side_by_side(
    arguments: argparse.Namespace, navsim: Official, tokens: list[str], paths: dict[str, str], store: SceneStore
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of each scene (per trajectory, where several were scored), and differences of scores."""
    human_filter = arguments.human_penalty_filter if arguments.metric == "epdms_v2" else None
    times: dict[str, list[float]] = {}
    differences = []

    def theirs(token: str, poses: np.ndarray) -> dict[str, float]:
        loaded = navsim.ask("load", path=paths[token])
        single = navsim.ask("score", poses=poses[:CALLS].tolist(), interval=INTERVAL)
        batch = navsim.ask("batch", poses=poses.tolist(), interval=INTERVAL)
        scores = score(store.load(token), poses[:CALLS], INTERVAL, arguments.metric, human_filter)
        same = {**scores.columns, "score": scores.score}
        for index, row in enumerate(single["rows"]):
            differences.append(max(abs(same[name][index] - value) for name, value in row.items()))
        return {
            "official load": loaded["seconds"],
            "official call": float(np.median(single["seconds"])),
            "official batch": batch["seconds"] / len(poses),
            "official batch, sampled": (batch["seconds"] - batch["sampling"]) / len(poses),
        }

    def ours(token: str, poses: np.ndarray) -> dict[str, float]:
        scene = time_scene(store, token, poses, arguments.metric, GROUPS, human_filter)
        groups = {f"score {size}": seconds / size for size, seconds in scene.score.items()}
        return {"load": scene.load, "prepare": scene.prepare, **groups}

    for index, token in enumerate(tqdm(tokens, desc="scoring", unit="scene")):
        poses = varied_plans(store.load(token), max(GROUPS))
        for turn in (theirs, ours) if index % 2 else (ours, theirs):
            for name, seconds in turn(token, poses).items():
                times.setdefault(name, []).append(seconds)
    return times, differences


def one_scene_per_map(store: SceneStore, tokens: list[str]) -> list[str]:
    """Scenes that are not measured but load the maps and compile the kernels; others than `tokens` where possible."""
    wanted = {store.load(token).map_name for token in tokens}
    found: dict[str, str] = {}
    for token in [*(token for token in store.tokens if token not in set(tokens)), *tokens]:
        if len(found) == len(wanted):
            break
        found.setdefault(store.load(token).map_name, token)
    return [token for name, token in found.items() if name in wanted]


def milliseconds(samples: list[float]) -> str:
    """Median, 10th and 90th percentile of times [s], in milliseconds."""
    spread = Spread.of(np.array(samples) * 1e3)
    return f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def ratio(slow: np.ndarray, fast: np.ndarray) -> str:
    """Median, 10th and 90th percentile of how many times faster the second is, pair by pair."""
    spread = Spread.of(slow / fast)
    return f"{spread.median:.0f} ({spread.low:.0f} to {spread.high:.0f})"


def show(console: Console, measured: dict, title: str) -> None:
    """Medians over the scenes, with 10th and 90th percentile; ratios are taken scene by scene."""
    times = {name: np.array(samples) for name, samples in measured["times"].items()}
    once = times["load"] + times["prepare"]
    columns = ("official [ms]", "ours [ms]", "times faster")
    scene = Table("a scene", *columns, title=f"{title}, {len(once)} scenes", title_justify="left")
    scene.add_row("cache building", *compared(times["official build"], times["build"]))
    scene.add_row("cache load", *compared(times["official load"], times["load"]))
    scene.add_row("cache load and preparation", *compared(times["official load"], once))

    each = Table("a trajectory", *columns, title_justify="left", title="all in: with cache load and preparation")
    with_load = times["official load"] + times["official call"]
    for size in GROUPS:
        all_in = once / size + times[f"score {size}"]
        each.add_row(f"official one by one with load, ours {size} at once all in", *compared(with_load, all_in))
    for size in GROUPS:
        ours = times[f"score {size}"]
        each.add_row(f"official one by one, ours {size} at once", *compared(times["official call"], ours))
    most = max(GROUPS)
    ours = times[f"score {most}"]
    all_in = once / most + ours
    loaded = times["official load"] / most + times["official batch"]
    each.add_row(f"both {most} at once", *compared(times["official batch"], ours))
    each.add_row(
        f"both {most} at once, official from sampled states", *compared(times["official batch, sampled"], ours)
    )
    each.add_row(f"both {most} at once, all in", *compared(loaded, all_in))
    for table in (scene, each):
        console.print(table)
    count, largest = measured["compared"], measured["largest_difference"]
    console.print(f"{count} trajectories compared, largest difference of a sub-metric or score {largest:.1e}\n")


def compared(theirs: np.ndarray, ours: np.ndarray) -> tuple[str, str, str]:
    """The cells of a row: both times, and their ratio."""
    return milliseconds(theirs), milliseconds(ours), ratio(theirs, ours)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--navsim", type=Path, required=True, help="checkout of autonomousvision/navsim")
    parser.add_argument("--nuplan", type=Path, required=True, help="checkout of motional/nuplan-devkit")
    parser.add_argument("--python", type=Path, required=True, help="interpreter with the requirements of both")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--maps-root", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--metric", choices=["pdms_v1", "epdms_v2"], default="pdms_v1")
    parser.add_argument("--human-penalty-filter", action="store_true")
    parser.add_argument("--scenes", type=int, default=40, help="to measure side by side, evenly spaced over the split")
    parser.add_argument("--scaling", action="store_true", help="measure how our cost grows, and a whole split")
    parser.add_argument("--json", type=Path, help="file to write all measurements to")
    arguments = parser.parse_args()

    console = Console(width=140, highlight=False)
    core = min(os.sched_getaffinity(0))
    console.print(f"{platform.machine()}, {os.cpu_count()} CPU cores, one used; Python {platform.python_version()}")
    result = {"metric": arguments.metric, "human_penalty_filter": arguments.human_penalty_filter}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        roots = (arguments.data_root, arguments.maps_root, arguments.split)
        all_cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        time_build(*roots, folder / "scene_cache")
        store = SceneStore(folder / "scene_cache", arguments.split)
        result["side_by_side"] = side_by_side(arguments, store, evenly(store.tokens, arguments.scenes), folder)
        show(console, result["side_by_side"], f"{arguments.metric} on {arguments.split}")
        if arguments.scaling:
            os.sched_setaffinity(0, all_cores)
            result["scaling"] = bench_scaling.measure(console, store, arguments.metric, roots, folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
