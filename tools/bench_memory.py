"""Measure the keys and values that a rollout holds, turn by turn: Step 3.5 Flash's layers, and full attention only.

    python tools/bench_memory.py --exp-root outputs/quickstart --data-root outputs/quickstart/world

The model is `step_flash_tiny` with random weights, whose answers all have the length of an answer; feedback is that on
fixed plans. A prompt's keys and values are held once for all its episodes. Prints a table.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from training_workload import GRIDS, STEP_SIZES, Workload, material

from mtdrive.planner.tokens import feedback_delta_ids
from mtdrive.rollout.engine import Engine
from mtdrive.rollout.multi_turn import Task
from mtdrive.rollout.prefix_cache import LayerCache
from mtdrive.simulation.feedback.text import render_text


@dataclass(frozen=True)
class Held:
    """What is held after a turn."""

    tokens: float
    """Tokens of an episode after its prompt, on average."""
    full: float
    """Bytes of an episode's own keys and values in layers with full attention."""
    sliding: float
    """Bytes of an episode's own keys and values in layers that attend within a window."""
    prompts: int
    """Bytes of all prompts' keys and values."""
    whole: int
    """Bytes of all keys and values."""


def held(workload: Workload) -> Iterator[Held]:
    """Run the workload's turns, with nothing but generation, and tell what each leaves behind."""
    given = material(workload)
    group = workload.group
    prompts = [Task.from_scene(given.planner, scene, given.images[t]).prompt for t, scene in given.scenes.items()]
    session = Engine(given.planner.model, given.params, workload.answer_tokens).open(prompts, group)
    told = [
        np.array(feedback_delta_ids(given.planner.processor, render_text(assessment.feedback), closed=False))
        for scene in given.scenes.values()
        for assessment in given.plans(scene, np.zeros((group, 8, 3)))
    ]
    episodes, deltas = range(workload.episodes), [np.zeros(0, dtype=np.int64)] * workload.episodes
    for _ in range(workload.turns):
        for _ in session.generate(episodes, deltas):
            pass
        deltas = told
        layers = session.cache.layers.values()
        full, sliding = (
            sum(own(layer) for layer in layers if (layer.window is None) == kind) / workload.episodes
            for kind in (True, False)
        )
        shared = sum(layer.prompt_key.nbytes + layer.prompt_value.nbytes for layer in layers)
        tokens = float(session.cache.lengths.float().mean())
        yield Held(tokens, full, sliding, shared, shared + sum(own(layer) for layer in layers))


def own(layer: LayerCache) -> int:
    """Bytes of the episodes' part of a layer."""
    return layer.key.nbytes + layer.value.nbytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp-root", required=True, help="holds scene_cache/<split>")
    parser.add_argument("--data-root", required=True, help="holds sensor_blobs/<split>")
    parser.add_argument("--split", default="train")
    parser.add_argument("--image-tokens", type=int, choices=GRIDS, default=300)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--group", type=int, default=8, help="episodes of a scene")
    parser.add_argument("--turns", type=int, default=8)
    workload = vars(parser.parse_args())
    runs = {model: list(held(Workload(model=model, **workload))) for model in STEP_SIZES}

    episode = "an episode, {} [kB]"
    columns = [episode.format(part) for part in ("sliding layers", "full layers", "3:1", "full only")]
    table = Table("turns", "its tokens", *columns, "in all, 3:1 [MB]", "full only [MB]", "full only / 3:1")
    for turn, (mixed, full) in enumerate(zip(*runs.values(), strict=True), 1):
        sizes = (mixed.sliding, mixed.full, mixed.sliding + mixed.full, full.full)
        table.add_row(
            *(str(turn), f"{mixed.tokens:.0f}", *(f"{size / 1e3:.0f}" for size in sizes)),
            *(f"{mixed.whole / 1e6:.1f}", f"{full.whole / 1e6:.1f}", f"{full.whole / mixed.whole:.1f}"),
        )
    console = Console(width=160, highlight=False)
    console.print(table)
    of_prompts = [run[0].prompts / 1e6 / workload["scenes"] for run in runs.values()]
    console.print(f"Of this, a prompt: {of_prompts[0]:.2f} MB at 3:1, {of_prompts[1]:.2f} MB with full attention only.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
