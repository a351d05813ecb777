"""`mtdrive synth`: write a synthetic world in NAVSIM's on-disk format."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from omegaconf import DictConfig

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.synthetic.world import SPLITS, WorldConfig, write_world


def run(config: DictConfig) -> None:
    """Write the world and say what is in it."""
    scenes = {split: config[f"scenes_{split}"] for split in SPLITS}
    if min(scenes.values()) < 0 or sum(scenes.values()) == 0:
        raise MTDriveError(f"A world needs at least one scene and no negative number of them, not {scenes}.")
    for name, family in config.families.items():
        if family.weight < 0 or not 0 <= family.hidden <= 1:
            raise MTDriveError(f"families.{name}={family}: weight must not be negative, hidden must lie in 0..1.")
    if len(config.image_size) != 2 or min(config.image_size) < 32:
        raise MTDriveError(f"image_size={config.image_size} must be a width and a height of at least 32 pixels.")
    families = {name: (family.weight, family.hidden) for name, family in config.families.items() if family.weight > 0}
    if not families:
        raise MTDriveError("families holds no scenario family with a positive weight.")
    world = WorldConfig(
        config.seed,
        scenes,
        families,
        config.close_calls,
        config.images,
        config.history_images,
        tuple(config.image_size),
    )
    records = write_world(world, Path(config.out), config.workers)
    for split in SPLITS:
        chosen = [scene for scene in records if scene.split == split]
        hidden = sum(scene.hidden_danger for scene in chosen)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(s.family for s in chosen).items()))
        print(f"{split}: {len(chosen)} scenes, {hidden} with a hidden danger ({counts})")
    print(f"OPENSCENE_DATA_ROOT={config.out} NUPLAN_MAPS_ROOT={config.out}/maps")
