"""Score random and adversarial trajectories: none may crash the scorer, and all must score the same again.

    python tools/fuzz_scoring.py --cache-root outputs/quickstart/scene_cache --split test --count 100000

Every scene's batch is scored twice, the second time in another order and in other groups. Ends with an exception at the
first scene where the two scorings differ, or where a score is neither a number in [0, 1] nor of a row that is named
invalid.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtdrive.simulation.metrics.registry import VERSIONS
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import OK, Scores, score
from mtdrive.simulation.trajectory import SAMPLINGS

GROUP = 250  # trajectories of one scene


def adversarial_plans(random: np.random.Generator, count: int, num_poses: int = 8) -> np.ndarray:
    """Plans (count, num_poses, 3) that no planner should make: standing, spinning, jumping to and fro, far off the map,
    tiny, huge, not finite; of every size in between."""
    scale = 10.0 ** random.uniform(-6, 6, (count, 1, 3))
    poses = np.cumsum(random.normal(size=(count, num_poses, 3)) * scale, axis=1)

    def some() -> np.ndarray:
        return random.random(count) < 0.1

    poses[some()] = 0.0
    poses[some(), :, 2] *= 1e9
    poses[some(), :, :2] += 1e7
    poses[some(), ::2] *= -1.0
    poses[some(), random.integers(num_poses), random.integers(3)] = random.choice([1e308, -1e155, 5e-324])
    poses[some(), random.integers(num_poses), random.integers(3)] = random.choice([np.nan, np.inf, -np.inf])
    return poses


def score_twice(scene: Scene, poses: np.ndarray, interval: float, metric: str, random: np.random.Generator) -> Scores:
    """Scores of a batch that are the same, bit by bit, in another order and other groups.

    Raises:
        AssertionError: they are not, or a row is neither scored in [0, 1] nor invalid.
    """
    scores = score(scene, poses, interval, metric)
    order, cut = random.permutation(len(poses)), random.integers(len(poses) + 1)
    parts = [score(scene, poses[rows], interval, metric) for rows in (order[:cut], order[cut:])]
    for name, values in named(scores).items():
        again = np.concatenate([named(part)[name] for part in parts])
        np.testing.assert_array_equal(again, values[order], err_msg=f"{name} in scene {scene.token}")
    valid = scores.status == OK
    for name, values in {**scores.columns, "score": scores.score}.items():
        in_bounds = (values >= 0.0) & (values <= 1.0)
        assert np.array_equal(np.where(valid, in_bounds, np.isnan(values)), np.ones(len(values))), (
            f"{name} in scene {scene.token}: {values[valid & ~in_bounds]}"
        )
    return scores


def named(scores: Scores) -> dict[str, np.ndarray]:
    """All arrays of scores whose rows are trajectories."""
    return {**scores.columns, **scores.events, "score": scores.score, "status": scores.status}


def fuzz(scenes: Sequence[Scene], count: int, seed: int = 0) -> Counter:
    """Score count trajectories over the scenes, all samplings and score versions; returns how many had which status."""
    random = np.random.default_rng(seed)
    cases = list(product(SAMPLINGS.items(), VERSIONS))
    statuses = Counter()
    with tqdm(total=count, desc="adversarial", unit="trajectory") as progress:
        for scene in cycle(scenes):
            size = min(GROUP, count - statuses.total())
            if not size:
                return statuses
            (num_poses, interval), metric = cases[random.integers(len(cases))]
            scores = score_twice(scene, adversarial_plans(random, size, num_poses), interval, metric, random)
            statuses.update(scores.status.tolist())
            progress.update(size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache-root", type=Path, required=True, help="scene caches, as `mtdrive cache` makes them")
    parser.add_argument("--split", required=True)
    parser.add_argument("--count", type=int, default=100_000, help="trajectories")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    store = SceneStore(arguments.cache_root, arguments.split)
    scenes = [store.load(token) for token in store.tokens]
    statuses = fuzz(scenes, arguments.count, arguments.seed)
    print(f"{statuses.total()} trajectories over {len(scenes)} scenes, none crashed, all scored the same twice:")
    print(", ".join(f"{number} {status}" for status, number in statuses.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
