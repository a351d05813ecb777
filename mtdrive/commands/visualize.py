"""`mtdrive visualize`: pictures, moving pictures or a page to browse, of scenes, plans and conversations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtdrive.settings.evaluation import VisualizeSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import decode_image, read_image
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.runtime.locks import only_run_in
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.index import check_same
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.terminal import terminal
from mtdrive.visualization import figure_scene
from mtdrive.visualization.animation import WRITERS, frames
from mtdrive.visualization.records import (
    EpisodeRecord,
    Recording,
    read_recording,
    read_trajectories,
    scenes_alone,
)
from mtdrive.visualization.turns import DrawnTurn, references, show_turns
from mtdrive.visualization.viewer.page import write_viewer
from mtdrive.visualization.viewer.scenes import ViewerScene, viewer_scene

PICTURES = 8  # at most, if no limit is given; a page takes all scenes


def run(config: VisualizeSettings) -> None:
    """Write the pictures; see configs/visualize.yaml."""
    recording, store = open_recording(config)
    with only_run_in(Path(config.out)):
        written = write(config, recording, store)
    terminal().print(written)


def write(config: VisualizeSettings, recording: Recording, store: SceneStore) -> str:
    """Write what is asked for; returns what that is."""
    out, episodes = Path(config.out), recording.episodes
    bar = tqdm(episodes, desc="scenes", unit="scene")
    if config.format == "html":
        page = out / "viewer.html"
        write_viewer(page, recording.title, _viewer_scenes(config, recording, store, bar))
        return f"{len(episodes)} scenes in {page} ({page.stat().st_size / 1e6:.1f} MB)"
    for episode in bar:
        draw(config, recording, store, episode, out / f"{episode.name}.{config.format}")
    return f"{len(episodes)} pictures in {out}"


def open_recording(config: VisualizeSettings) -> tuple[Recording, SceneStore]:
    """What is to be shown, and the scene caches that it needs.

    Raises:
        MTDriveError: there is nothing to show, or its images or caches are missing.
    """
    tokens = config.shown
    if config.episodes:
        recording = read_recording(Path(config.episodes))
    elif config.trajectories:
        recording = read_trajectories(Path(config.trajectories), config.scene_filter.scene_set, config.metric)
    else:
        names = tokens or config.open_store().tokens
        recording = scenes_alone(names, config.scene_filter.scene_set, config.metric)
    limit = config.limit or (PICTURES if config.format != "html" and not tokens else None)
    recording = recording.of(tokens, limit)
    if config.openscene_data_root is None and any(episode.image is None for episode in recording.episodes):
        raise MTDriveError("Say where the images are: openscene_data_root=... or the variable OPENSCENE_DATA_ROOT.")
    return recording, _store(config, recording)


def _store(config: VisualizeSettings, recording: Recording) -> SceneStore:
    """The scene caches that hold the recording's scenes.

    Raises:
        MTDriveError: they are neither there nor can they be compiled.
    """
    wanted, scenes = list(dict.fromkeys(episode.token for episode in recording.episodes)), recording.scene_set
    try:
        store = SceneStore(config.cache_root, scenes.store)
    except MTDriveError:
        store = None  # none yet
    if store is not None and set(wanted) <= set(store.tokens):
        check_same(config.cache_root / scenes.store, store.scene_set, scenes)
        return store
    chosen = config.scene_filter if config.scene_filter.scene_set == scenes else all_windows(scenes.data_split)
    if chosen.scene_set != scenes:
        raise MTDriveError(f"Not all scenes are compiled of {scenes}; name that filter: train_test_split=...")
    if config.nuplan_maps_root is None:
        raise MTDriveError("Scenes without a cache need the maps: nuplan_maps_root=... or NUPLAN_MAPS_ROOT.")
    report = build_caches(
        config.data_root,
        config.maps_root,
        chosen,
        config.cache_root,
        tokens=wanted,
        workers=1,
    )
    for token, reason in report.failed.items():
        raise MTDriveError(f"Cannot compile scene {token} of {scenes}: {reason}.")
    return SceneStore(config.cache_root, scenes.store)


def load(
    config: VisualizeSettings, recording: Recording, store: SceneStore, episode: EpisodeRecord
) -> tuple[Scene, np.ndarray, tuple[DrawnTurn, ...]]:
    """An episode's scene, front image (H, W, 3) uint8 RGB and turns."""
    scene = store.load(episode.token)
    if episode.image is not None:
        image = decode_image(episode.image)
    else:
        image = read_image(config.data_root, scene.split, scene.camera.image)
    return scene, image, show_turns(scene, episode, recording.metric, recording.source, recording.interval)


def draw(
    config: VisualizeSettings, recording: Recording, store: SceneStore, episode: EpisodeRecord, path: Path
) -> None:
    """Write one picture, still or moving as the ending of `path` says."""
    scene, image, turns = load(config, recording, store, episode)
    plans = [
        *references(scene, config.references, recording.metric),
        *(turn.plan for turn in turns if turn.plan is not None),
    ]
    title = "  ".join(filter(None, (episode.name, episode.family.replace("_", " "), scene.log_name, scene.map_name)))
    if config.format in WRITERS:
        WRITERS[config.format](path, frames(scene, image, plans, title, recording.metric))
        return
    said = [turn for turn in turns if turn.answer]  # plain trajectories have nothing to say
    figure = figure_scene(scene, image, plans, title, recording.metric, said)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _viewer_scenes(
    config: VisualizeSettings, recording: Recording, store: SceneStore, episodes: Iterator[EpisodeRecord]
) -> Iterator[ViewerScene]:
    for episode in episodes:
        scene, image, turns = load(config, recording, store, episode)
        beside = references(scene, config.references, recording.metric)
        yield viewer_scene(scene, image, episode, turns, beside, recording.metric)
