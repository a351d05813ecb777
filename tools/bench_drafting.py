"""What drafting saves: the same episodes of a planner with every drafter, side by side.

    python tools/bench_drafting.py --planner outputs/step_flash/sft --exp-root outputs/step_flash \
        --data-root outputs/step_flash/world

Each drafter drives the same scenes in turns with the others, sampled at temperature 1, after one round that warms up.
The ratio is that of a round's times without drafting and with it, so that a disturbance of the machine meets both.
--greedy also compares greedy episodes on all scenes of some splits with those without drafting, token by token.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mtdrive.planner.models import Planner, load_planner
from mtdrive.rollout.drafting import DRAFTERS
from mtdrive.rollout.engine import Engine, engine_of
from mtdrive.rollout.episode import Episode
from mtdrive.rollout.multi_turn import Task, run_episodes
from mtdrive.rollout.sampling import sampling_params
from mtdrive.settings import planner_settings
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor
from mtdrive.simulation.installation.timing import Spread, evenly
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.scene_cache.store import SceneStore


class Timed:
    """An assessor that keeps the seconds that scoring took."""

    def __init__(self) -> None:
        self._inner, self.seconds = InProcessAssessor(assess), 0.0

    def submit(self, scene, poses):
        """See `Assessor`."""
        started = time.perf_counter()
        future = self._inner.submit(scene, poses)
        self.seconds += time.perf_counter() - started
        return future


def drive(
    planner: Planner, tasks: Sequence[Task], group: int, turns: int, draft: str, *, greedy: bool = False, seed: int = 0
) -> tuple[list[Episode], Engine, float]:
    """Episodes, the engine that generated them, and seconds of generation."""
    params = sampling_params(planner.model, planner.processor.tokenizer, greedy=greedy)
    engine = engine_of(planner, draft)(planner.model, params, planner.max_new_tokens)
    if not isinstance(engine, Engine):
        sys.exit("This planner cannot share prompts between episodes, so nothing drafts for it.")
    generator, assessor, started = torch.Generator().manual_seed(seed), Timed(), time.perf_counter()
    episodes = run_episodes(tasks, planner, engine, assessor, turns=turns, group=group, generator=generator)
    return episodes, engine, time.perf_counter() - started - assessor.seconds


def gaps(one: Sequence[Episode], other: Sequence[Episode]) -> list[float]:
    """Where two greedy runs of an episode part: how far [nat] the two tokens are apart in log-probability.

    Rounding decides between tokens that are equally likely.
    """
    found = []
    for a, b in zip(one, other, strict=True):
        for s, t in zip(a.turns, b.turns, strict=False):
            if not np.array_equal(s.completion_ids, t.completion_ids):
                shorter = min(len(s.completion_ids), len(t.completion_ids))
                at = int((s.completion_ids[:shorter] != t.completion_ids[:shorter]).argmax())
                found.append(abs(float(s.log_probs[at] - t.log_probs[at])))
                break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planner", required=True, help="folder of a trained planner")
    parser.add_argument("--exp-root", type=Path, required=True, help="holds scene_cache/<split>")
    parser.add_argument("--data-root", type=Path, required=True, help="holds sensor_blobs/<split>")
    parser.add_argument("--split", default="train")
    parser.add_argument("--episodes", type=int, nargs="+", default=[8, 64, 256], help="driven at a time")
    parser.add_argument("--group", type=int, default=8, help="episodes of a scene")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="that count")
    parser.add_argument("--greedy", nargs="*", default=[], help="splits")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", type=Path, help="file to write all measurements to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    planner = load_planner(planner_settings(arguments.planner))
    names = [name for name in DRAFTERS if name != "mtp" or planner.draft_heads is not None]

    def tasks(split: str, count: int | None = None) -> list[Task]:
        store = SceneStore(arguments.exp_root / "scene_cache", split)
        scenes = [store.load(token) for token in (store.tokens if count is None else evenly(store.tokens, count))]
        pixels = (read_image(arguments.data_root, scene.split, scene.camera.image) for scene in scenes)
        return [Task.from_scene(planner, scene, image) for scene, image in zip(scenes, pixels, strict=True)]

    console = Console(width=140, highlight=False)
    console.print(
        f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__} on {arguments.threads} threads"
    )
    table = Table(
        "episodes", "draft", "tokens a pass", "generation [s]", "times faster", title=f"Rollouts of {arguments.planner}"
    )
    measured = []
    for count in arguments.episodes:
        given, group = tasks(arguments.split, max(1, count // arguments.group)), min(arguments.group, count)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        tokens: dict[str, list[float]] = {name: [] for name in names}
        for number in tqdm(range(arguments.rounds + 1), desc=f"{count} episodes"):
            for name in names:
                _, engine, taken = drive(planner, given, group, arguments.turns, name, seed=number)
                if number:
                    seconds[name].append(taken)
                    tokens[name].append(engine.written / engine.passes)
        for name in names:
            faster = Spread.of([a / b for a, b in zip(seconds["none"], seconds[name], strict=True)])
            row = (np.mean(tokens[name]), np.median(seconds[name]), faster)
            measured.append({"episodes": count, "draft": name, "tokens": tokens[name], "seconds": seconds[name]})
            ratio = f"{faster.median:.2f} ({faster.low:.2f} to {faster.high:.2f})"
            table.add_row(str(count), name, f"{row[0]:.2f}", f"{row[1]:.2f}", ratio)
    console.print(table)
    if arguments.greedy:
        given = [task for split in arguments.greedy for task in tasks(split)]
        driven = {
            name: [
                episode
                for start in tqdm(range(0, len(given), 64), desc=f"greedy, {name}")
                for episode in drive(planner, given[start : start + 64], 1, arguments.turns, name, greedy=True)[0]
            ]
            for name in names
        }
        for name, episodes in driven.items():
            apart = gaps(driven["none"], episodes)
            said = f", by tokens at most {max(apart):.1e} nat apart" if apart else ""
            console.print(f"{name}: {len(apart)} of {len(episodes)} greedy episodes differ{said}")
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
