"""`mtdrive synth`: write a synthetic world in NAVSIM's on-disk format."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mtdrive.settings.data import SynthSettings
from mtdrive.simulation.synthetic.scenes import SPLITS, WorldConfig
from mtdrive.simulation.synthetic.world import write_world


def run(config: SynthSettings) -> None:
    """Write the world and say what is in it."""
    scenes = {"train": config.scenes_train, "val": config.scenes_val, "test": config.scenes_test}
    families = {name: (family.weight, family.hidden) for name, family in config.families.items() if family.weight > 0}
    world = WorldConfig(
        config.seed,
        scenes,
        families,
        config.close_calls,
        config.images,
        config.history_images,
        config.image_size,
        config.adjacent_frames,
    )
    records = write_world(world, Path(config.out), config.workers)
    for split in SPLITS:
        chosen = [scene for scene in records if scene.split == split]
        hidden = sum(scene.hidden_danger for scene in chosen)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(s.family for s in chosen).items()))
        print(f"{split}: {len(chosen)} scenes, {hidden} with a hidden danger ({counts})")
    print(f"OPENSCENE_DATA_ROOT={config.out} NUPLAN_MAPS_ROOT={config.out}/maps")
