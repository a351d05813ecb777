"""`mtdrive evaluate`: per-turn scores of a planner beside the baselines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mtdrive.evaluation.families import read_families
from mtdrive.evaluation.rows import PlanRow, as_table, baseline_rows, episode_rows
from mtdrive.evaluation.summary import as_rich_table, difference_lines, summarise
from mtdrive.rollout.episode import Episode
from mtdrive.rollout.episode_file import EpisodesHeader, write_episodes
from mtdrive.settings.evaluation import EvaluateSettings
from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.scene_cache.format import FORMAT_VERSION
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.terminal import terminal

WIDTH = 110  # of the table in a file or pipe


def run(config: EvaluateSettings) -> None:
    """Evaluate; see configs/evaluate.yaml."""
    with only_run_in(Path(config.out)):
        evaluate(config)


def evaluate(config: EvaluateSettings) -> None:
    """Drive, score and write."""
    store = SceneStore(config.cache_root, config.split)
    tokens = store.tokens[: config.limit]
    families = read_families(config.families) if config.families else {}
    rows: list[PlanRow] = []
    if config.baselines:
        for token in tqdm(tokens, desc="baselines", unit="scene"):
            rows += baseline_rows(store.load(token), families.get(token, ""), config.baselines, config.metric)
    episodes = drive_planner(config, store, tokens) if config.planner else []
    episodes = [replace(episode, family=families.get(episode.scene_token, "")) for episode in episodes]
    for episode in episodes:
        rows += episode_rows(episode, episode.family, config.turns)
    write_results(config, len(tokens), rows, episodes)


def drive_planner(config: EvaluateSettings, store: SceneStore, tokens: list[str]) -> list[Episode]:
    """One episode per scene."""
    # Evaluating the baselines alone needs no torch.
    from mtdrive.evaluation.planner_episodes import planner_episodes
    from mtdrive.planner.models import load_planner
    from mtdrive.rollout.multi_turn import Task

    planner = load_planner(config.planner)

    def load(token: str) -> Task:
        scene = store.load(token)
        return Task.from_scene(planner, scene, read_image(config.openscene_data_root, config.split, scene.camera.image))

    episodes = planner_episodes(
        planner,
        tokens,
        load,
        turns=config.turns,
        metric=config.metric,
        source=config.feedback,
        steps=config.feedback_steps,
        temperature=config.temperature,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return list(tqdm(episodes, desc="planner", unit="scene", total=len(tokens)))


def write_results(config: EvaluateSettings, scenes: int, rows: list[PlanRow], episodes: list[Episode]) -> None:
    """The files, and the table on the terminal."""
    table, out = as_table(rows), Path(config.out)
    summary = {"provenance": provenance(config, scenes), **summarise(table, config.resamples, config.seed)}
    with atomic_path(out / "scores.csv") as path:
        table.to_csv(path, index=False)
    with atomic_path(out / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2))
    if episodes:
        write_episodes(out / "episodes.jsonl", header(config, scenes), episodes)
    console = terminal(WIDTH)
    feedback = f", {config.feedback} feedback" if episodes else ""
    console.print(as_rich_table(summary, f"{config.split}, {scenes} scenes, {config.metric}{feedback}"))
    for line in difference_lines(summary):
        console.print(line)
    console.print(f"{len(table)} rows in {out / 'scores.csv'}, summary in {out / 'summary.json'}")


def header(config: EvaluateSettings, scenes: int) -> EpisodesHeader:
    """What the episodes come from."""
    return EpisodesHeader(
        planner=config.planner.model,
        prompt_style=config.planner.prompt,
        split=config.split,
        metric=config.metric,
        metric_revision=score_version(config.metric).revision,
        feedback_source=config.feedback,
        feedback_steps=config.feedback_steps,
        turns=config.turns,
        temperature=float(config.temperature),
        seed=config.seed,
        scenes=scenes,
    )


def provenance(config: EvaluateSettings, scenes: int) -> dict[str, Any]:
    """What the numbers come from. feedback is null where no planner got any."""
    planner = config.planner
    return {
        "split": config.split,
        "scenes": scenes,
        "metric": config.metric,
        "metric_version": score_version(config.metric).revision,
        "scene_cache_format": FORMAT_VERSION,
        "planner": planner and planner.model,
        "prompt": planner and planner.prompt,
        "feedback": config.feedback if planner else None,
        "feedback_steps": config.feedback_steps if planner else None,
        "turns": config.turns if planner else None,
        "temperature": config.temperature if planner else None,
        "resamples": config.resamples,
        "seed": config.seed,
    }
