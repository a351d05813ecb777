"""The workload that `python tools/bench_training.py` gives both sides: scenes, a model with random weights, plans."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from mtdrive.planner.models import Planner, load_planner
from mtdrive.planner.prompt import SceneView
from mtdrive.planner.settings import PlannerSettings
from mtdrive.rollout.sampling import SamplingParams, sampling_params
from mtdrive.settings import planner_settings
from mtdrive.simulation.feedback.assessment import Assessment, assess
from mtdrive.simulation.installation.timing import evenly, varied_plans
from mtdrive.simulation.navsim_format.images import image_hash, read_image
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore

SIZES = {  # what differs from the planner `tiny`
    "tiny": {},
    "8m": {"hidden_size": 256, "layers": 8, "heads": 4, "mlp_size": 768, "vision_size": 128, "vision_layers": 4},
    "600m": {
        **{"hidden_size": 1280, "layers": 22, "heads": 20, "mlp_size": 5120, "initializer_range": 0.02},
        **{"vision_size": 640, "vision_layers": 8, "vision_heads": 10, "vision_mlp_size": 2560},
    },
}
STEP_SIZES = {"step": {}, "step-full": {"full_attention_every": 1}}  # from `step_flash_tiny` without draft heads
GRIDS = {300: (25, 12), 600: (30, 20), 1200: (48, 25)}  # image tokens: across, down
TOKEN = 28  # [px] side of what an image token covers


@dataclass(frozen=True)
class Workload:
    """One RL step on scenes x group episodes x turns, decoded greedily."""

    exp_root: str
    """Holds scene_cache/<split>."""
    data_root: str
    """Holds sensor_blobs/<split>."""
    split: str
    """Split of the scenes."""
    model: str = "tiny"
    """Name of the model's size, in SIZES or STEP_SIZES."""
    image_tokens: int = 300
    """Tokens of an image, in GRIDS."""
    scenes: int = 4
    """Scenes of the step."""
    group: int = 8
    """Episodes of a scene."""
    turns: int = 3
    """Turns of an episode."""
    answer_tokens: int = 51
    """Tokens of an answer."""
    passes: int = 1
    """Forward and backward passes that share out the step's scenes."""
    recompute: bool = False
    """Whether activations are computed again in the backward pass."""
    threads: int = 1
    """Threads of torch."""
    device: str = "cpu"
    """Device of the model."""
    dtype: str = "float32"
    """Type of the weights."""

    @property
    def episodes(self) -> int:
        """Episodes of the step."""
        return self.scenes * self.group


@dataclass
class FixedPlans:
    """Assesses the same plans in every turn, as random weights write none; counts its calls.

    None is clean, so that no episode ends early, and no two of a group are worth the same, so that none is left out of
    the loss.
    """

    plans: dict[str, np.ndarray]
    calls: int = field(default=0)

    def __call__(self, scene: Scene, poses: np.ndarray) -> list[Assessment]:
        self.calls += 1
        assessments = assess(scene, self.plans[scene.token][: len(poses)])
        return [replace(a, clean=False, score=a.score + 1e-3 * row) for row, a in enumerate(assessments)]


@dataclass(frozen=True)
class Material:
    """What both sides are built from.

    images: (H, W, 3) uint8 RGB. params: of the answers, which never end by themselves.
    """

    planner: Planner
    params: SamplingParams
    scenes: dict[str, Scene]
    images: dict[str, np.ndarray]
    views: dict[str, SceneView]
    plans: FixedPlans


def sized_planner(model: str, width: int, height: int) -> PlannerSettings:
    """Settings of a new planner that sees images of width x height [px]. model: see `Workload.model`."""
    if model in STEP_SIZES:
        settings = planner_settings("step_flash_tiny")
        changes = {"draft_heads": 0, "image_width": width, "image_height": height, **STEP_SIZES[model]}
        return replace(settings, step_flash=replace(settings.step_flash, **changes))
    settings = planner_settings("tiny")
    return replace(settings, tiny=replace(settings.tiny, **SIZES[model], image_pixels=width * height))


def material(workload: Workload) -> Material:
    """Everything in memory before the clock starts: scenes, images in their final size, weights."""
    torch.set_num_threads(workload.threads)
    width, height = (TOKEN * tokens for tokens in GRIDS[workload.image_tokens])
    planner = load_planner(
        replace(
            sized_planner(workload.model, width, height),
            device=workload.device,
            dtype=workload.dtype,
            max_new_tokens=workload.answer_tokens,
        )
    )
    params = sampling_params(planner.model, planner.processor.tokenizer, greedy=True)
    params = replace(params, stop=(), suppressed=tuple(sorted({*params.suppressed, *params.stop})))

    store = SceneStore(Path(workload.exp_root) / "scene_cache", workload.split)
    scenes = {token: store.load(token) for token in evenly(store.tokens, workload.scenes)}
    images, views = {}, {}
    for token, scene in scenes.items():
        image = read_image(workload.data_root, workload.split, scene.camera.image)
        images[token] = cv2.resize(image, (width, height))
        views[token] = SceneView.from_scene(scene, image_hash(images[token]))
    plans = FixedPlans({token: varied_plans(scene, workload.group) for token, scene in scenes.items()})
    return Material(planner, params, scenes, images, views, plans)


def conversation(planner: Planner, view: SceneView, image: np.ndarray) -> dict[str, object]:
    """A scene as a row of the data set that TRL reads."""
    return {"prompt": planner.messages(view), "image": Image.fromarray(image)}


def as_dict(workload: Workload) -> dict:
    """The workload as it goes through JSON."""
    return asdict(workload)
