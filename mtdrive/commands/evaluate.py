"""`mtdrive evaluate`: per-turn scores of a planner beside the baselines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mtdrive.evaluation.families import read_families
from mtdrive.evaluation.rows import PlanRow, as_table, baseline_rows, episode_rows
from mtdrive.evaluation.score_summary import comfort_note
from mtdrive.evaluation.summary import as_rich_table, difference_lines, summarise
from mtdrive.planner.fits import feedback_steps_for
from mtdrive.planner.settings import PlannerSettings
from mtdrive.rollout.episode import Episode
from mtdrive.rollout.episode_file import EpisodesHeader, write_episodes
from mtdrive.settings.evaluation import EvaluateSettings
from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.navsim_format.scene_filter import SceneSet
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.scene_cache.format import FORMAT_VERSION
from mtdrive.simulation.scene_cache.image_check import without_image
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.terminal import terminal

if TYPE_CHECKING:
    from mtdrive.planner.models import Planner

WIDTH = 125  # of the table in a file or pipe


def run(config: EvaluateSettings) -> None:
    """Evaluate; see configs/evaluate.yaml."""
    with only_run_in(config.folder):
        evaluate(config)


def evaluate(config: EvaluateSettings) -> None:
    """Drive, score and write."""
    store = config.open_store()
    tokens = store.tokens[: config.limit]
    lacking: dict[str, str] = {}
    if config.planner is not None:
        lacking = without_image(config.data_root, store, tokens, config.max_missing_images)
        tokens = [token for token in tokens if token not in lacking]
    families = read_families(config.families) if config.families else {}
    evaluated = None if config.planner is None else Evaluated.load(config, config.planner, store.scene_set, len(tokens))
    rows: list[PlanRow] = []
    if config.baselines:
        for token in tqdm(tokens, desc="baselines", unit="scene"):
            rows += baseline_rows(store.load(token), families.get(token, ""), config.baselines, config.metric)
    episodes = drive_planner(config, evaluated, store, tokens) if evaluated else []
    episodes = [replace(episode, family=families.get(episode.scene_token, "")) for episode in episodes]
    for episode in episodes:
        rows += episode_rows(episode, episode.family, config.turns)
    source = Source(store, len(tokens), list(lacking))
    write_results(config, source, evaluated.header if evaluated else None, rows, episodes)


@dataclass(frozen=True)
class Source:
    """The scenes that are evaluated."""

    store: SceneStore
    """Where they are from."""

    scenes: int
    """Number of scenes."""

    without_image: list[str]
    """Tokens of those that were left out, which have no image."""


@dataclass(frozen=True)
class Evaluated:
    """The planner to evaluate, and how."""

    planner: Planner
    """The planner."""

    header: EpisodesHeader
    """What its episodes come from."""

    @classmethod
    def load(cls, config: EvaluateSettings, settings: PlannerSettings, scene_set: SceneSet, scenes: int) -> Evaluated:
        """Load the planner that is evaluated on so many scenes.

        Raises:
            MTDriveError: it does not load, or does not fit what it is asked to do.
        """
        from mtdrive.planner.models import load_planner  # evaluating the baselines alone needs no torch

        planner = load_planner(settings)
        header = EpisodesHeader(
            planner=settings.name,
            prompt_style=planner.style.name,
            scene_set=scene_set,
            metric=config.metric,
            metric_revision=score_version(config.metric).revision,
            feedback_source=config.feedback,
            feedback_steps=feedback_steps_for(planner.card, config.feedback_steps, settings),
            turns=config.turns,
            temperature=float(config.temperature),
            seed=config.seed,
            scenes=scenes,
        )
        return cls(planner, header)


def drive_planner(
    config: EvaluateSettings, evaluated: Evaluated, store: SceneStore, tokens: list[str]
) -> list[Episode]:
    """One episode per scene."""
    from mtdrive.evaluation.planner_episodes import planner_episodes
    from mtdrive.rollout.multi_turn import Task

    planner = evaluated.planner

    def load(token: str) -> Task:
        scene = store.load(token)
        return Task.from_scene(planner, scene, read_image(config.data_root, scene.split, scene.camera.image))

    episodes = planner_episodes(
        planner,
        tokens,
        load,
        turns=config.turns,
        metric=config.metric,
        source=config.feedback,
        steps=evaluated.header.feedback_steps,
        temperature=config.temperature,
        draft=config.draft,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return list(tqdm(episodes, desc="planner", unit="scene", total=len(tokens)))


def write_results(
    config: EvaluateSettings,
    source: Source,
    header: EpisodesHeader | None,
    rows: list[PlanRow],
    episodes: list[Episode],
) -> None:
    """The files, and the table on the terminal."""
    table, out = as_table(rows), config.folder
    summary = {"provenance": provenance(config, source, header), **summarise(table, config.resamples, config.seed)}
    with atomic_path(out / "scores.csv") as path:
        table.to_csv(path, index=False)
    with atomic_path(out / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2))
    if header is not None:
        write_episodes(out / "episodes.jsonl", header, episodes)
    console = terminal(WIDTH)
    feedback = f", {config.feedback} feedback" if episodes else ""
    comfort = comfort_note(config.metric, 0, len(table))
    title = f"{source.store.title(source.scenes)}, {config.metric}{feedback}{comfort}"
    console.print(as_rich_table(summary, title))
    for line in difference_lines(summary):
        console.print(line)
    if source.without_image:
        console.print(f"left out for want of an image: {len(source.without_image):,} scenes, see above")
    console.print(f"{len(table)} rows in {out / 'scores.csv'}, summary in {out / 'summary.json'}")


def provenance(config: EvaluateSettings, source: Source, header: EpisodesHeader | None) -> dict[str, Any]:
    """What the numbers come from; all of the planner is null where there is none."""
    return {
        "scene_set": asdict(source.store.scene_set),
        "scenes": source.scenes,
        "scenes_without_image": source.without_image,
        "metric": config.metric,
        "metric_version": score_version(config.metric).revision,
        "extended_comfort_rows": 0 if score_version(config.metric).has_extended_comfort else None,
        "scene_cache_format": FORMAT_VERSION,
        "planner": header and header.planner,
        "prompt": header and header.prompt_style,
        "feedback": header and header.feedback_source,
        "feedback_steps": header and header.feedback_steps,
        "turns": header and header.turns,
        "temperature": header and header.temperature,
        "resamples": config.resamples,
        "seed": config.seed,
    }
