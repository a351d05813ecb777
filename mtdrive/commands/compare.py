"""`mtdrive compare`: evaluations side by side, on the same scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from mtdrive.evaluation.comparison import compare, comparison_tables, scene_scores
from mtdrive.evaluation.evaluations import (
    Evaluation,
    check_baselines,
    check_comparable,
    differing,
    open_evaluation,
    short_names,
)
from mtdrive.settings.evaluation import CompareSettings
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.scene_cache.index import check_same
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.terminal import terminal
from mtdrive.visualization.records import EpisodeRecord, Recording, last_plan, read_evaluation
from mtdrive.visualization.turns import SAME, references, show_turns
from mtdrive.visualization.viewer.page import write_viewer
from mtdrive.visualization.viewer.scenes import ViewerScene, viewer_scene

WIDTH = 110  # of the tables in a file or pipe


def run(config: CompareSettings) -> None:
    """Compare; see configs/compare.yaml."""
    folders = [Path(folder) for folder in config.runs]
    evaluations = dict(zip(short_names(folders), map(open_evaluation, folders), strict=True))
    check_comparable(list(evaluations.values()), config.allow)
    check_baselines(list(evaluations.values()))
    tables = {name: evaluation.table for name, evaluation in evaluations.items()}
    differences = compare(tables, config.resamples, config.seed)
    scenes = scene_scores(tables)
    with only_run_in(Path(config.out)):
        write_results(config, evaluations, differences, scenes)
        print_results(config, evaluations, differences, scenes)
        if config.page:
            write_page(config, evaluations, scenes[scenes.apart >= SAME].index[: config.page].tolist())


def write_results(
    config: CompareSettings, evaluations: Mapping[str, Evaluation], differences: pd.DataFrame, scenes: pd.DataFrame
) -> None:
    """The tables, and what the runs come from."""
    out, first = Path(config.out), next(iter(evaluations.values()))
    about = {
        "metric": first.provenance["metric"],
        "metric_version": first.provenance["metric_version"],
        "resamples": config.resamples,
        "seed": config.seed,
        "differing": differing(list(evaluations.values())),
        "runs": {name: {"folder": str(found.folder), **found.provenance} for name, found in evaluations.items()},
    }
    with atomic_path(out / "differences.csv") as path:
        differences.to_csv(path, index=False)
    with atomic_path(out / "scenes.csv") as path:
        scenes.to_csv(path)
    with atomic_path(out / "comparison.json") as path:
        path.write_text(json.dumps(about, indent=2))


def print_results(
    config: CompareSettings, evaluations: Mapping[str, Evaluation], differences: pd.DataFrame, scenes: pd.DataFrame
) -> None:
    """What the runs are, what they differ in, and the tables."""
    console, (base, *_) = terminal(WIDTH), evaluations
    first = evaluations[base].provenance
    console.print(f"{first['metric']} version {first['metric_version']}, {len(scenes)} scenes that all runs have")
    for name, evaluation in evaluations.items():
        left_out = evaluation.table.token.nunique() - len(scenes)
        console.print(f"  {name}: {evaluation.folder}" + (f", {left_out} scenes left out" if left_out else ""))
    for key, values in differing(list(evaluations.values())).items():
        console.print(f"{key}: " + ", ".join(f"{value} in {name}" for name, value in zip(evaluations, values)))
    for table in comparison_tables(differences, base):
        console.print(table)
    console.print(f"{len(differences)} differences in {Path(config.out) / 'differences.csv'}")


def write_page(config: CompareSettings, evaluations: Mapping[str, Evaluation], tokens: Sequence[str]) -> None:
    """The scenes with these tokens, each with the plan that every run ends with."""
    console, page = terminal(WIDTH), Path(config.out) / "comparison.html"
    if not tokens:
        console.print("No scene differs: there is nothing to show on a page.")
        page.unlink(missing_ok=True)
        return
    recordings = {
        name: read_evaluation(evaluation.folder / "episodes.jsonl") for name, evaluation in evaluations.items()
    }
    base, *others = recordings
    bar = tqdm(tokens, desc="scenes", unit="scene")
    title = f"{', '.join(others)} beside {base}: the scenes that differ most"
    write_viewer(page, title, page_scenes(config, recordings, bar), f"{base} to {others[-1]}")
    console.print(f"{len(tokens)} scenes that differ most in {page}")


def page_scenes(
    config: CompareSettings, recordings: Mapping[str, Recording], tokens: Sequence[str]
) -> Iterator[ViewerScene]:
    """Scene by scene, the plans that the runs end with stand where the viewer expects turns."""
    first = next(iter(recordings.values()))
    episodes = {name: {e.token: e for e in recording.episodes} for name, recording in recordings.items()}
    store = SceneStore(config.cache_root, first.scene_set.store)
    check_same(config.cache_root / first.scene_set.store, store.scene_set, first.scene_set)
    for token in tokens:
        ends = tuple(last_plan(by_token[token], name) for name, by_token in episodes.items())
        record = EpisodeRecord(token, token, ends, next(iter(episodes.values()))[token].family)
        scene = store.load(token)
        image = read_image(config.data_root, scene.split, scene.camera.image)
        turns = show_turns(scene, record, first.metric, "privileged")
        yield viewer_scene(scene, image, record, turns, references(scene, ["human"], first.metric), first.metric)
