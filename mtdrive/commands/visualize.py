"""`mtdrive visualize`: camera and bird's-eye pictures of scenes and plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from tqdm import tqdm

from mtdrive.simulation.assessment import assess
from mtdrive.simulation.baselines import BASELINES, INTERVAL
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.files import atomic_path
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore, build_caches
from mtdrive.simulation.submission import Submission, read_submission
from mtdrive.visualization import Plan, Role, assessed_plan, figure_scene

ROLES = {"human": Role.HUMAN, "pdm_closed": Role.PDM_CLOSED}


def run(config: DictConfig) -> None:
    """Write the pictures; see configs/visualize.yaml."""
    if config.openscene_data_root is None:
        raise MTDriveError("Say where the data is: openscene_data_root=... or the variable OPENSCENE_DATA_ROOT.")
    if unknown := sorted(set(config.references) - set(ROLES)):
        raise MTDriveError(f"There is no reference {', '.join(unknown)}: choose from {', '.join(ROLES)}.")
    submission = read_submission(Path(config.trajectories)) if config.trajectories else None
    wanted = _wanted(config, submission)
    store = _store(config, wanted)
    tokens = wanted or store.tokens[: config.limit]
    out = Path(config.out)
    for token in tqdm(tokens, desc="pictures", unit="scene"):
        scene = store.load(token)
        image = read_image(config.openscene_data_root, config.split, scene.camera.image)
        plans = [*_references(scene, config), *_turns(scene, submission, config.metric)]
        figure = figure_scene(scene, image, plans, f"{token}  {scene.log_name}  {scene.map_name}", config.metric)
        with atomic_path(out / f"{token}.png") as path:
            figure.savefig(path, format="png")
    Console(soft_wrap=True, highlight=False).print(f"{len(tokens)} pictures in {out}")


def _wanted(config: DictConfig, submission: Submission | None) -> list[str]:
    """The scenes that are asked for by name; empty if none is."""
    if config.token is not None:
        return [str(token) for token in (config.token if isinstance(config.token, ListConfig) else [config.token])]
    return list(dict.fromkeys(submission.tokens.tolist()))[: config.limit] if submission else []


def _store(config: DictConfig, wanted: list[str]) -> SceneStore:
    """The scene caches of the split, with those of the wanted scenes."""
    cache_root = Path(config.navsim_exp_root) / "scene_cache"
    try:
        store = SceneStore(cache_root, config.split)
        if set(wanted) <= set(store.tokens):
            return store
    except MTDriveError:
        if not wanted:
            raise
    if config.nuplan_maps_root is None:
        raise MTDriveError("Scenes without a cache need the maps: nuplan_maps_root=... or NUPLAN_MAPS_ROOT.")
    report = build_caches(
        config.openscene_data_root, config.nuplan_maps_root, config.split, cache_root, tokens=wanted, workers=1
    )
    for token, reason in report.failed.items():
        raise MTDriveError(f"Cannot compile scene {token} of split {config.split}: {reason}.")
    return SceneStore(cache_root, config.split)


def _references(scene: Scene, config: DictConfig) -> list[Plan]:
    """The baselines that the scene has."""
    names = [name for name in config.references if name != "human" or len(scene.human_poses) >= 8]
    poses = np.array([BASELINES[name](scene) for name in names]).reshape(-1, 8, 3)
    assessments = assess(scene, poses, interval=INTERVAL, metric=config.metric)
    return [
        assessed_plan(ROLES[name].value, plan, assessment, ROLES[name])
        for name, plan, assessment in zip(names, poses, assessments, strict=True)
    ]


def _turns(scene: Scene, submission: Submission | None, metric: str) -> list[Plan]:
    """The given trajectories of the scene, in their order."""
    if submission is None:
        return []
    poses = submission.poses[submission.tokens == scene.token]
    assessments = assess(scene, poses, interval=submission.interval, metric=metric) if len(poses) else []
    return [
        assessed_plan(f"turn {i}", plan, assessment)
        for i, (plan, assessment) in enumerate(zip(poses, assessments, strict=True), start=1)
    ]
