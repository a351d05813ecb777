"""Reinforcement learning of a tiny planner on hand-made scenes."""

import numpy as np
import torch
from trl import GRPOConfig

from mtdrive.planner.answer import Parsed
from mtdrive.rollout.multi_turn import Task
from mtdrive.simulation.feedback.assessment import Assessment, assess
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor
from mtdrive.training.advantages import estimator
from mtdrive.training.checkpoints import LogFile
from mtdrive.training.mtgrpo_trainer import MTGRPOSettings, MTGRPOTrainer, scene_order
from support.pictures import image
from support.scenes import straight_scene

SCENES = ["scene0", "scene1", "scene2"]
SETTINGS = MTGRPOSettings(turns=2, estimator=estimator("mtgrpo"))
FEEDBACK = assess(straight_scene(), np.zeros((1, 8, 3)))[0].feedback  # of a plan that stands still


def load(planner) -> dict[str, Task]:
    return {
        token: Task.from_scene(planner, straight_scene(speed=6.0 + 2 * i, token=token), image(i, (60, 120 + 40 * i)))
        for i, token in enumerate(SCENES)
    }


def any_text(text: str) -> Parsed:
    """Random weights write no plan; takes the number of letters as one."""
    return Parsed(np.full((8, 3), float(sum(map(str.isalpha, text)))), None)


def assess_letters(scene, poses) -> list[Assessment]:
    """The fewer letters the better; none is clean."""
    scores = np.exp(-poses[:, 0, 0] / 8)
    return [
        Assessment(
            score, {"score": score, "ego_progress": score}, "ok", score == 1.0, FEEDBACK, np.zeros((41, 11)), 1.0
        )
        for score in map(float, scores)
    ]


def make_trainer(planner, out, steps, *, settings=SETTINGS, callbacks=(), assess=assess_letters, tasks=None, **changes):
    arguments = {
        "max_steps": steps,
        "per_device_train_batch_size": 2 * changes.get("num_generations", 4),
        "num_generations": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "disable_tqdm": True,
        "beta": 0.0,
        **changes,
    }
    config = GRPOConfig(output_dir=str(out), **arguments)
    scenes = config.generation_batch_size // config.num_generations
    return MTGRPOTrainer(
        planner,
        config,
        settings,
        scene_order(SCENES, steps * scenes, 0),
        (load(planner) if tasks is None else tasks).__getitem__,
        InProcessAssessor(assess),
        callbacks=[LogFile(out), *callbacks],
    )


def steps_of(trainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "turns" in entry]


def weights(planner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in planner.model.state_dict().items()}
