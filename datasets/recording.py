"""What is being recorded, and the rows of one scene."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from mtdrive.datasets.flawed import NO_PLANS
from mtdrive.datasets.material import Material
from mtdrive.datasets.recipe import Recipe
from mtdrive.datasets.samples import samples_of
from mtdrive.datasets.schema import VERSION, Sample
from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.navsim_format.images import image_hash, read_image
from mtdrive.simulation.navsim_format.scene_filter import SceneSet
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.format import Fingerprint

ToMessages = Callable[[Scene, str, Sample], list[dict]]


@dataclass(frozen=True)
class Recording:
    """A dataset to record."""

    sensor_root: Path
    """An OPENSCENE_DATA_ROOT, which holds the camera images."""

    cache_root: Path
    """Folder of the scene caches."""

    scene_set: SceneSet
    """Scenes to record."""

    out: Path
    """Folder of the dataset."""

    recipe: Recipe
    """What each scene gives."""

    to_messages: ToMessages
    """Renders (scene, image hash, sample) as a conversation; a module-level function, as worker processes call it."""

    wording: str
    """Name of the prompt style of the conversations; all of a dataset have the same."""

    wording_fingerprint: str
    """Fingerprint of everything that is said in that style."""

    generator: str
    """Program and version that record."""

    max_missing_images: float
    """Share of the scenes that may be left out for want of an image."""

    families: Mapping[str, str] = field(default_factory=dict)
    """Token -> scenario family; scenes may be missing."""

    answers: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Token -> (K, 8, 3) plans of a planner in training, x, y [m], heading [rad]; scenes may be missing."""

    def identity(self, tokens: list[str], sources: list[Fingerprint]) -> dict:
        """Everything that distinguishes this recording of these scenes from another one, for JSON.

        sources: the files that each scene was compiled from.
        """
        return {
            "version": VERSION,
            "generator": self.generator,
            "scene_set": asdict(self.scene_set),
            "recipe": asdict(self.recipe),
            "wording": self.wording,
            "wording_fingerprint": self.wording_fingerprint,
            "metric_version": score_version(self.recipe.metric).revision,
            "scenes": len(tokens),
            "tokens": digest(tokens),
            "logs": digest([source.log for source in sources]),
            "maps": digest([source.map for source in sources]),
            "families": digest([self.families.get(token, "") for token in tokens]),
            "answers": digest([json.dumps(np.asarray(self.answers[t]).tolist()) for t in tokens if t in self.answers]),
        }

    def rows(self, scene: Scene) -> list[dict]:
        """The rows of one scene (columns as in SCHEMA); stores its image."""
        family = self.families.get(scene.token, "")
        recipe = self.recipe.for_scene(scene.token, family)
        samples = samples_of(Material(scene, recipe, self.answers.get(scene.token, NO_PLANS)))
        if not samples:
            return []
        image = store_image(self.sensor_root, scene.split, scene.camera.image, self.out / "images")
        return [
            {
                "id": f"{scene.token}-{number}",
                "family": family,
                "image": image,
                "metric_version": score_version(recipe.metric).revision,
                "generator": self.generator,
                **contents(scene, image, sample, recipe, self.to_messages),
            }
            for number, sample in enumerate(samples)
        ]


def contents(scene: Scene, image: str, sample: Sample, recipe: Recipe, to_messages: ToMessages) -> dict:
    """The columns that follow from a sample and its scene alone."""
    return {
        "token": scene.token,
        "kind": sample.kind,
        "turns": sample.turns,
        "messages": to_messages(scene, image, sample),
        "plans": sample.plans.tolist(),
        "scores": list(sample.scores),
        "sources": list(sample.sources),
        "issue": sample.issue,
        "verdict": sample.verdict,
        "metric": recipe.metric,
        "feedback": recipe.feedback,
        "seed": recipe.seed,
    }


def store_image(sensor_root: Path, split: str, relative: str, folder: Path) -> str:
    """Store one copy of an image under its content hash; returns the hash."""
    name = image_hash(read_image(sensor_root, split, relative))
    target = folder / f"{name}.jpg"
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(sensor_root / "sensor_blobs" / split / relative, temporary)
    return name


def digest(lines: list[str]) -> str:
    """Short hash of a list of strings."""
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
