"""The prompt and the answers of ReCogDrive's vision-language model, in which the released MTDrive checkpoints plan.

MTDrive's authors have published weights (Hugging Face `chenchaoxNV/mtdrive-models`) and a paper (arXiv 2601.22930), and
no code. What is known, and from where:

- The prompt is ReCogDrive's and the answer `[PT, (x, y, heading) x8]`: NavSafe-infty's adapter for these weights
  (`navsafe/policy/sensor/mtdrive.py`), which also hands velocity and acceleration to the model.
- The texts, rounding near zero included, are those that ReCogDrive trains on: `run_generate_dataset.py` of
  xiaomi-research/recogdrive, with `prompt_type` `base` or `vel_and_acc` and one front camera. A model knows its prompt
  to the letter, so they stand here as they stand there.
- The image comes first. `<image>` and the empty line after it are the beginning of ReCogDrive's user message.

What is assumed, since no public source says it:

- MTDrive was trained with `vel_and_acc`.
- The history is written `-t-3: (...) -t-2: (...)`, as in the data set. ReCogDrive's agents write three spaces before
  each of these at inference, and its other data set script joins them with the control character 2.
- A scene without a command says `UNKNOWN`. ReCogDrive names three commands in its data sets, and takes this word where
  the one-hot vector is empty or, in its agents, has its fourth entry set.
- Feedback on later turns is worded as for any other planner here; MTDrive's own words are not public.
"""

from __future__ import annotations

import re

from mtdrive.planner.answer import AnswerError, Parsed, parse_poses
from mtdrive.simulation.scene import DrivingCommand

SYSTEM = """
You are a vehicle trajectory prediction model for autonomous driving. Your task is to predict the ego vehicle's \
4-second trajectory based on the following inputs: multi-view images from 8 cameras, ego vehicle states (position), \
and discrete navigation commands. The input provides a 2-second history, and your output should ensure a safe \
trajectory for the next 4 seconds. Your predictions must adhere to the following metrics:
1. **No at-fault Collisions (NC)**: Avoid collisions with other objects/vehicles.
2. **Drivable Area Compliance (DAC)**: Stay within the drivable area.
3. **Time to Collision (TTC)**: Maintain a safe distance from other vehicles.
4. **Ego Progress (EP)**: Ensure the ego vehicle moves forward without being stuck.
5. **Comfort (C)**: Avoid sharp turns and sudden decelerations.
6. **Driving Direction Compliance (DDC)**: Align with the intended driving direction.
For evaluation, use the **PDM Score**, which combines these metrics: **PDM Score** = NC * DAC * (5*TTC + 5*EP + 2*C + \
0*DDC) / 12.
Your predictions will be evaluated through a non-reactive 4-second simulation with an LQR controller and background \
actors following their recorded trajectories. The better your predictions, the higher your score.
"""
BASE = """

As an autonomous driving system, predict the vehicle's trajectory based on:
1. Visual perception from front camera view
2. Historical motion context (last 4 timesteps):\
-t-3: {poses[0]} -t-2: {poses[1]} -t-1: {poses[2]} -t-0: {poses[3]}
3. Active navigation command: [{command}]"""
VELOCITY_AND_ACCELERATION = """
4. Current velocity: ({velocity})
5. Current acceleration: ({acceleration})"""
SITUATIONS = {"recogdrive_base": BASE, "recogdrive_vel_and_acc": BASE + VELOCITY_AND_ACCELERATION}  # by style
OUTPUT = """
Output requirements:
- Predict 8 future trajectory points
- Each point format: (x:float, y:float, heading:float)
- Use [PT, ...] to encapsulate the trajectory
- Maintain numerical precision to 2 decimal places"""
COMMANDS = {
    DrivingCommand.LEFT: "TURN LEFT",
    DrivingCommand.STRAIGHT: "GO STRAIGHT",
    DrivingCommand.RIGHT: "TURN RIGHT",
    DrivingCommand.UNKNOWN: "UNKNOWN",
}
NEAR_ZERO = 0.01  # `format_number` of ReCogDrive writes 0.0 for anything that rounds to 0.01 or less

_PLAN = re.compile(r"\[PT(?:, )?([^\[\]]*)\]")


def parse_answer(text: str) -> Parsed:
    """The first plan of eight poses in a text, whatever stands around it, as ReCogDrive's agent reads an answer.

    A number is read whether it is written `+0.40`, `0.4` or, as near zero, `0.0`. The answer is one that
    `answer.format_answer` writes, `Here is the planning trajectory [PT, (+5.31, +0.06, 0.0), ... x8].`
    """
    plans = [parse_poses(body) for body in _PLAN.findall(text)]
    if not plans:
        return Parsed(None, AnswerError.NOT_CLOSED if "[PT" in text else AnswerError.MISSING_PREFIX)
    return next((plan for plan in plans if plan.error is None), plans[0])
