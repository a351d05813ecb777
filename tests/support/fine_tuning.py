"""Samples of supervised fine-tuning whose right plan only the image tells, and TRL's arguments for it."""

import numpy as np
from trl import SFTConfig

from mtdrive.planner.prompt import SceneView
from mtdrive.simulation.scene import DrivingCommand

FEEDBACK = "Travel -2.00 by +4.00. PDMS +0.50."


def image(index: int) -> np.ndarray:
    """A bright square on grey, whose place tells the example."""
    pixels = np.full((90, 160, 3), 110, np.uint8)
    pixels[20:70, 18 * index : 18 * index + 30] = 240
    return pixels


def plan(index: int) -> np.ndarray:
    seconds = 0.5 * np.arange(1, 9)
    return np.column_stack([(1.0 + index) * seconds, 0.1 * (index - 4) * seconds, np.zeros(8)])


def sample(planner, index: int, turns: int) -> dict:
    """The right plan for image `index`, after `turns` - 1 plans of 9 m/s and their feedback."""
    exchanges = [(planner.format_answer(plan(8)), FEEDBACK)] * (turns - 1)
    return worded(planner, index, planner.format_answer(plan(index)), exchanges)


def worded(planner, index: int, text: str, exchanges=()) -> dict:
    """The answer `text` for image `index`."""
    seen = SceneView(f"scene{index}", "", np.zeros((4, 3)), np.zeros(2), np.zeros(2), DrivingCommand.STRAIGHT)
    return {"messages": [*planner.messages(seen, exchanges), answer(text)], "image": str(index), "token": seen.token}


def answer(text: str) -> dict:
    """The planner's message with that text."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def read(name: str) -> np.ndarray:
    return image(int(name))


def arguments(out, **changes) -> SFTConfig:
    settings = {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 5,
        "save_strategy": "no",
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "activation_checkpointing": False,
        "report_to": [],
    }
    return SFTConfig(output_dir=str(out), **settings | changes)
