"""Scene caches of hand-made scenes."""

import json
from pathlib import Path

from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.format import Fingerprint, save_scene


def save_store(root: Path, split: str, *scenes: Scene) -> None:
    """Write what `SceneStore(root, split)` reads: the scenes, all of one log."""
    for scene in scenes:
        save_scene(root / split / "hand-made" / f"{scene.token}.scene", scene, Fingerprint("", ""))
    index = {"hand-made": {"log": "", "tokens": [scene.token for scene in scenes]}}
    (root / split / "index.json").write_text(json.dumps(index))
