"""Drive a planner through official navsim's scripts and through ours, and compare plans and scores.

    python tools/bridge_parity.py --navsim ~/navsim --version v2.2 --nuplan ~/nuplan-devkit \
        --python ~/navsim-venv/bin/python --planner outputs/sft --data-root D --maps-root M \
        --filter D/train_test_split/synthetic_test.yaml --out outputs/bridge

navsim and nuplan-devkit are plain checkouts, --python an interpreter in which both and mtdrive live (docs/navsim.md).
Runs, with `agent=mtdrive_agent`, navsim's metric caching, submission script and evaluation script (v2.2: the
one-stage script, or with --synthetic-scenes the two-stage one), and beside them `mtdrive evaluate` (one turn),
`mtdrive submit` and `mtdrive score`. With --turns above 1 there are no submissions, feedback is perceived, and the
averages agree only if every scene has a plan of the planner's own. Prints how many plans are the same and, for every
column, how many scores are; exits with 1 unless all plans are identical and no score differs by more than --tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mtdrive.rollout.episode_file import read_episodes
from mtdrive.simulation.submission.files import read_submission

ROOT = Path(__file__).resolve().parents[1]
FRESH = Path(__file__).with_name("fresh_metric_caches.py")
METRIC = {"v1.1": "pdms_v1", "v2.2": "epdms_v2"}
TEAM = ("team_name=mtdrive", "authors=mtdrive", "email=mtdrive", "institution=mtdrive", "country=mtdrive")
Plans = dict[str, np.ndarray]


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    """Environment variables of both sides; the maps are linked because nuPlan writes beside them."""
    maps = arguments.out / "maps"
    if not maps.exists():
        ignored = shutil.ignore_patterns(".maplocks")
        shutil.copytree(arguments.maps_root.resolve(), maps, copy_function=os.symlink, ignore=ignored)
    return {
        **os.environ,
        "OPENSCENE_DATA_ROOT": str(arguments.data_root.resolve()),
        "NUPLAN_MAPS_ROOT": str(maps),
        "NAVSIM_EXP_ROOT": str(arguments.out),
    }


def official(arguments: argparse.Namespace, script: str, *overrides: str) -> None:
    """Run one of navsim's scripts; what it says is kept in a file."""
    checkouts = map(str, (arguments.navsim.resolve(), arguments.nuplan.resolve(), ROOT))
    common = "pkg://navsim.planning.script.config.common"
    fresh = arguments.fresh_caches and script == "run_metric_caching"
    command = [
        str(arguments.python),
        *([str(FRESH)] if fresh else []),
        str(arguments.navsim.resolve() / "navsim/planning/script" / f"{script}.py"),
        f"hydra.searchpath=[file://{arguments.filter.resolve().parents[1]},{common}]",  # ours before one of that name
        f"train_test_split={arguments.filter.stem}",
        "worker=sequential",
        *overrides,
    ]
    variables = {"PYTHONPATH": os.pathsep.join(checkouts), "NUPLAN_DATA_STORE": "local"}
    log = arguments.out / f"{script}.log"
    print(f"navsim {arguments.version}: {script} ({log})", flush=True)
    with log.open("w") as file:
        subprocess.run(
            command, env=environment(arguments) | variables, check=True, stdout=file, stderr=subprocess.STDOUT
        )


def ours(arguments: argparse.Namespace, *words: str) -> None:
    """Run one of our verbs."""
    print(f"mtdrive {words[0]}", flush=True)
    log = arguments.out / f"mtdrive-{words[0]}.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "mtdrive.cli", *words]
        subprocess.run(command, env=environment(arguments), check=True, stdout=file, stderr=subprocess.STDOUT)


def run_ours(arguments: argparse.Namespace) -> None:
    """Compile, evaluate, submit, score."""
    metric, planner = f"metric={METRIC[arguments.version]}", f"planner={arguments.planner.resolve()}"
    scenes = f"train_test_split={arguments.filter.resolve()}"
    synthetic = [f"synthetic_scenes={arguments.synthetic_scenes.resolve()}"] if arguments.synthetic_scenes else []
    ours(arguments, "cache", scenes)
    turns = [f"turns={arguments.turns}", "feedback=perceived"]
    ours(arguments, "evaluate", scenes, planner, metric, *turns, "baselines=[]", f"out={arguments.out}/evaluate")
    version, plans = f"navsim={arguments.version}", arguments.out / "submit" / "submission.pkl"
    if arguments.turns == 1:
        ours(arguments, "submit", scenes, planner, version, *TEAM, *synthetic, f"out={arguments.out}/submit")
    else:
        plans, (by_token, _) = arguments.out / "plans.npz", evaluated_plans(arguments)
        np.savez(plans, token=list(by_token), poses=np.stack(list(by_token.values())), interval_length=0.5)
    stages = [*synthetic, f"mapping={arguments.filter.resolve()}", "traffic=idm"] if synthetic else []
    out = f"out={arguments.out}/scores.csv"
    ours(arguments, "score", scenes, f"trajectories={plans}", metric, *stages, out)


def run_official(arguments: argparse.Namespace) -> Path:
    """Cache, make a submission, evaluate; returns the table of scores."""
    agent = ["agent=mtdrive_agent", f"agent.planner={arguments.planner.resolve()}", f"agent.turns={arguments.turns}"]
    agent.append(f"agent.metric={METRIC[arguments.version]}")
    cache, first = arguments.out / "metric_cache", arguments.version == "v1.1"
    synthetic = [] if arguments.synthetic_scenes is None else [
        f"synthetic_scenes_path={arguments.synthetic_scenes.resolve()}",
        f"synthetic_sensor_path={arguments.synthetic_scenes.resolve().parent / 'sensor_blobs'}",
    ]  # fmt: skip
    official(
        arguments, "run_metric_caching", f"{'cache.cache_path' if first else 'metric_cache_path'}={cache}", *synthetic
    )
    # Without synthetic scenes, v2.2's submission script fails unless this list is there.
    none = ["+train_test_split.scene_filter.reactive_synthetic_initial_tokens=[]"] if not (first or synthetic) else []
    submission, scores = arguments.out / "official_submission", arguments.out / "official_scores"
    if arguments.turns == 1:
        written = [f"output_dir={submission}", "experiment_name=submission"]
        official(arguments, "run_create_submission_pickle", *agent, *TEAM, *written, *synthetic, *none)
    script = "run_pdm_score" if first or synthetic else "run_pdm_score_one_stage"
    written = [f"output_dir={scores}", "experiment_name=scores", f"metric_cache_path={cache}"]
    official(arguments, script, *agent, *written, *synthetic)
    return max(scores.glob("*.csv"))


def evaluated_plans(arguments: argparse.Namespace) -> tuple[Plans, Plans]:
    """The newest plans by `mtdrive evaluate`, where there are some: by token, and by the hash of the front image."""
    _, episodes = read_episodes(arguments.out / "evaluate" / "episodes.jsonl")
    plans = [
        (episode, next((turn.poses for turn in reversed(episode.turns) if turn.poses is not None), None))
        for episode in episodes
    ]
    by_token = {episode.scene_token: poses for episode, poses in plans if poses is not None}
    return by_token, {episode.image_hash: poses for episode, poses in plans if poses is not None}


def submitted_plans(path: Path) -> Plans:
    """The plans in a submission pickle."""
    submission = read_submission(path)
    return dict(zip(submission.tokens.tolist(), submission.poses, strict=True))


def recorded_plans(folder: Path) -> Plans:
    """What the agent noted of its own plans, by the hash of the front image."""
    lines = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return {line["image"]: np.array(line["poses"]) for line in lines if not line["fallback"]}


def compare_plans(name: str, plans: Plans, expected: Plans, console: Console) -> bool:
    """Whether the plans are the same, bit for bit, for the same scenes."""
    same = sum(key in plans and np.array_equal(plans[key], poses) for key, poses in expected.items())
    console.print(f"{name}: {len(plans)} plans, {same} of {len(expected)} identical")
    return same == len(expected) == len(plans)


def compare_scores(table: pd.DataFrame, expected: pd.DataFrame, tolerance: float, console: Console) -> bool:
    """Whether all scores agree."""
    table, expected = table.set_index("token"), expected.set_index("token")
    agree = set(table.index) == set(expected.index)
    shown = Table("column", "rows", "equal", "largest difference")
    for column in expected.columns.drop(["valid"], errors="ignore"):
        if column not in table or not pd.api.types.is_numeric_dtype(expected[column]):
            continue
        theirs, mine = expected[column].astype(float), table[column].reindex(expected.index).astype(float)
        differs = (mine - theirs).abs().mask(mine.isna() & theirs.isna(), 0.0).fillna(np.inf)
        agree &= bool((differs <= tolerance).all())
        shown.add_row(column, str(len(differs)), str(int((differs <= tolerance).sum())), f"{differs.max():.2e}")
    console.print(shown)
    return agree


def main() -> int:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--navsim", type=Path, required=True, help="checkout of autonomousvision/navsim")
    parser.add_argument("--version", choices=METRIC, required=True, help="which version the checkout is")
    parser.add_argument("--nuplan", type=Path, required=True, help="checkout of motional/nuplan-devkit")
    parser.add_argument("--python", type=Path, required=True, help="interpreter with all requirements")
    parser.add_argument("--planner", type=Path, required=True, help="folder of a trained planner")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--maps-root", type=Path, required=True)
    parser.add_argument("--filter", type=Path, required=True, help="a file train_test_split/NAME.yaml")
    parser.add_argument("--synthetic-scenes", type=Path, help="v2.2: folder of the second stage's pickles")
    parser.add_argument("--fresh-caches", action="store_true", help="caches that do not depend on the order of scenes")
    parser.add_argument("--turns", type=int, default=1, help="that the planner may take")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for everything that is written")
    parser.add_argument("--tolerance", type=float, default=1e-9)
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True)

    run_ours(arguments)
    scores = pd.read_csv(run_official(arguments), dtype={"token": str}, index_col=0)
    console, out = Console(width=140), arguments.out
    by_token, by_image = evaluated_plans(arguments)
    recorded = recorded_plans(out / "official_scores" / "mtdrive_agent")
    seen = {image: poses for image, poses in recorded.items() if image in by_image}  # not those of second stages
    agree = compare_plans("navsim's evaluation against mtdrive evaluate", seen, by_image, console)
    if arguments.turns == 1:
        submitted = submitted_plans(out / "submit" / "submission.pkl")
        first_stage = {token: poses for token, poses in submitted.items() if token in by_token}
        agree &= compare_plans("mtdrive submit against evaluate", first_stage, by_token, console)
        official_submission = submitted_plans(out / "official_submission" / "submission.pkl")
        agree &= compare_plans("navsim's submission against mtdrive submit", official_submission, submitted, console)
    table = pd.read_csv(out / "scores.navsim.csv", dtype={"token": str}, index_col=0)
    agree &= compare_scores(table, scores, arguments.tolerance, console)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
