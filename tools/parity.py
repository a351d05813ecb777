"""Compare our scores with official navsim's, row by row, over a NAVSIM-format root.

    python tools/parity.py --navsim ~/navsim --nuplan ~/nuplan-devkit --python ~/navsim-venv/bin/python \
        --data-root D --maps-root M --split test --metric pdms_v1

navsim and nuplan-devkit are plain checkouts (navsim branch v1.1 for pdms_v1, v2.2 for epdms_v2), --python an
interpreter with what they need. Without --trajectories, each scene's baselines and random variations of its
recorded human are scored. Two-frame extended comfort takes --extended-comfort and --trajectories of frames 0.5 s apart:
the k-th trajectories of all tokens are then scored together, as one submission. Prints for every metric: rows compared,
rows equal, largest difference, both means, and the first rows that differ; exits with 1 if a score differs by more than
--tolerance or any sub-metric differs.

With --shared-processor the official code scores a second time, with one metric cache processor for all scenes, as its
own caching script has (docs/scoring.md says what that does), and the comparison with these scores is printed as well.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mtdrive.datasets.perturbed import PERTURBATIONS, perturbed_plans
from mtdrive.simulation.baselines import BASELINES
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.store import SceneStore

OFFICIAL = Path(__file__).with_name("official_scores.py")


def candidates(data_root: Path, maps_root: Path, split: str, cache_root: Path, limit: int | None, variations: int):
    """Tokens (N,) and poses (N, 8, 3): the baselines and `variations` flawed plans of every scene."""
    build_caches(data_root, maps_root, split, cache_root)
    store = SceneStore(cache_root, split)
    tokens, poses = [], []
    for index, token in enumerate(sorted(store.tokens)[:limit]):
        scene = store.load(token)
        plans = [baseline(scene) for baseline in BASELINES.values()]
        equally = dict.fromkeys(PERTURBATIONS, 1.0)
        plans.extend(perturbed_plans(scene, np.random.default_rng(index), variations, equally)[0])
        tokens.extend([token] * len(plans))
        poses.extend(plans)
    return np.array(tokens), np.stack(poses)


def official_environment(arguments: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Environment variables of the official code; the maps are linked in `folder` because nuPlan writes beside them."""
    maps = folder / "maps"
    locks = shutil.ignore_patterns(".maplocks")
    shutil.copytree(arguments.maps_root.resolve(), maps, copy_function=os.symlink, ignore=locks)
    return {
        **os.environ,
        "OPENSCENE_DATA_ROOT": str(arguments.data_root.resolve()),
        "NUPLAN_MAPS_ROOT": str(maps),
        "NAVSIM_EXP_ROOT": str(folder),
        "NUPLAN_DATA_STORE": "local",
        "PYTHONPATH": f"{arguments.navsim.resolve()}{os.pathsep}{arguments.nuplan.resolve()}",
    }


def run_official(
    arguments: argparse.Namespace, trajectories: Path, folder: Path, shared_processor: bool = False
) -> pd.DataFrame:
    """Scores by the official code, in its own interpreter."""
    folder.mkdir()
    out = folder / "official.csv"
    command = [arguments.python, "-P", OFFICIAL, "--metric", arguments.metric, "--split", arguments.split]
    command += ["--trajectories", trajectories, "--out", out]
    command += ["--human-penalty-filter"] if arguments.human_penalty_filter else []
    command += ["--extended-comfort"] if arguments.extended_comfort else []
    command += ["--shared-processor"] if shared_processor else []
    command += ["--traffic", arguments.traffic]
    subprocess.run(list(map(str, command)), env=official_environment(arguments, folder), check=True)
    return pd.read_csv(out, dtype={"token": str})


def run_ours(arguments: argparse.Namespace, trajectories: Path, folder: Path) -> pd.DataFrame:
    """Scores by `mtdrive score`; for extended comfort, the k-th of every token together, as one submission."""
    if not arguments.extended_comfort:
        return score_file(arguments, trajectories, folder)
    with np.load(trajectories) as file:
        stored = dict(file)
    occurrence = pd.Series(stored["token"]).groupby(stored["token"]).cumcount().to_numpy()
    tables = []
    for k in range(occurrence.max() + 1):
        rows, part = np.flatnonzero(occurrence == k), folder / f"{k}.npz"
        np.savez(part, **{**stored, "token": stored["token"][rows], "poses": stored["poses"][rows]})
        tables.append(score_file(arguments, part, folder).set_index(rows))
    return pd.concat(tables).sort_index()


def score_file(arguments: argparse.Namespace, trajectories: Path, folder: Path) -> pd.DataFrame:
    """Scores by `mtdrive score`."""
    out = folder / "ours.csv"
    command = [sys.executable, "-m", "mtdrive.cli", "score", f"openscene_data_root={arguments.data_root.resolve()}"]
    command += [f"nuplan_maps_root={arguments.maps_root.resolve()}", f"split={arguments.split}", f"out={out}"]
    command += [f"trajectories={trajectories}", f"metric={arguments.metric}", f"navsim_exp_root={folder}"]
    command.append(f"traffic={arguments.traffic}")
    if arguments.metric == "epdms_v2":
        command.append(f"human_penalty_filter={str(arguments.human_penalty_filter).lower()}")
    subprocess.run(command, check=True)
    return pd.read_csv(out, dtype={"token": str})


def compare(ours: pd.DataFrame, official: pd.DataFrame, tolerance: float, title: str, console: Console) -> bool:
    """Print the comparison; True if everything agrees. Progress and score may differ by `tolerance`, the rest by 0."""
    columns = ("metric", "rows", "equal", "largest difference", "our mean", "official mean", "first rows that differ")
    table = Table(*columns, title=title, title_justify="left")
    agree = list(ours["token"]) == list(official["token"])
    for column in official.columns.drop("token"):
        both_absent = ours[column].isna() & official[column].isna()
        difference = (ours[column] - official[column]).abs().fillna(np.inf).mask(both_absent, 0.0).to_numpy()
        allowed = tolerance if column in ("score", "ego_progress") else 0.0
        differing = np.flatnonzero(difference > allowed)
        agree &= len(differing) == 0
        rows = ", ".join(f"{row} ({ours['token'][row]})" for row in differing[:3])
        means = [f"{scores[column].mean():.6f}" for scores in (ours, official)]
        table.add_row(column, str(len(ours)), str(len(ours) - len(differing)), f"{difference.max():.2e}", *means, rows)
    console.print(table)
    return agree


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
    parser.add_argument("--extended-comfort", action="store_true", help="epdms_v2: of frames that follow each other")
    parser.add_argument("--traffic", choices=["log_replay", "idm"], default="log_replay", help="idm: epdms_v2 alone")
    parser.add_argument("--trajectories", type=Path, help="npz with token, poses, interval_length")
    parser.add_argument("--limit", type=int, help="at most this many scenes")
    parser.add_argument("--variations", type=int, default=6, help="flawed plans a scene, beside the baselines")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument(
        "--shared-processor",
        action="store_true",
        help="show also what the official code gives if one processor makes all metric caches, as in its own script",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trajectories = arguments.trajectories
        if trajectories is None:
            trajectories = folder / "trajectories.npz"
            tokens, poses = candidates(
                arguments.data_root,
                arguments.maps_root,
                arguments.split,
                folder / "scene_cache",
                arguments.limit,
                arguments.variations,
            )
            np.savez(trajectories, token=tokens, poses=poses, interval_length=0.5)
        ours = run_ours(arguments, trajectories, folder)
        official = run_official(arguments, trajectories, folder / "fresh")
        console = Console(width=160)
        agree = compare(ours, official, arguments.tolerance, "official: a processor for each scene", console)
        if arguments.shared_processor:
            shared = run_official(arguments, trajectories, folder / "shared", shared_processor=True)
            compare(ours, shared, arguments.tolerance, "official: one processor for all scenes", console)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
