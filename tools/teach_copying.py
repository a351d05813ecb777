"""Teach a new tiny planner to copy positions from feedback into its answer, before it has seen any scene.

    python tools/teach_copying.py --out outputs/copying
    mtdrive sft planner=outputs/copying dataset=... out=...

A pretrained model copies numbers out of its context; random weights have to learn it, and a recording teaches it badly:
the metres of a corrected plan can be guessed from the plan before it. Here the conversations are made up so that they
cannot: two plans that have nothing to do with each other, and feedback between them that gives some positions of the
second. Targets are those positions and, with a tenth of the weight, the rest of the answer.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments

from mtdrive.planner.answer import PREFIX, SUFFIX
from mtdrive.planner.models import load_planner
from mtdrive.settings import planner_settings
from mtdrive.simulation.feedback.text import number

TIMES = np.arange(1, 9) * 0.5  # [s]
PER_POSE, PER_POSITION = 6, 4  # tokens of a pose, and of its x and y
REST = 0.1  # weight of the tokens that feedback does not give


def plan(rng: np.random.Generator) -> np.ndarray:
    """A made-up plan (8, 3) at a random speed, braking or accelerating, to one side."""
    speed, acceleration, aside = rng.uniform(0, 14), rng.uniform(-3, 2), rng.normal(0, 2)
    x = np.maximum.accumulate(np.maximum(speed * TIMES + 0.5 * acceleration * TIMES**2, 0)) + rng.normal(0, 0.05, 8)
    y = aside * (TIMES / 4) ** 2 + rng.normal(0, 0.1, 8)
    heading = np.arctan2(aside * TIMES / 8, np.maximum(speed, 1))
    return np.clip(np.stack([x, y, heading], 1), -99, 99).round(2)


def answer(poses: np.ndarray) -> str:
    """The answer that proposes a plan (8, 3)."""
    return PREFIX + ", ".join("(" + ", ".join(map(number, pose)) + ")" for pose in poses) + SUFFIX


def feedback(poses: np.ndarray, given: np.ndarray, rng: np.random.Generator) -> str:
    """Feedback in its real sentences that gives the positions of the poses at `given`; the rest is made up."""

    def change(index: int) -> str:
        kind, amount = ["Travel", "Shift"][rng.integers(2)], number(rng.uniform(-20, 20))
        return f"{kind} {amount} to {number(poses[index, 0])}, {number(poses[index, 1])} by {number(TIMES[index])}."

    text = f"{' '.join(map(change, given))} PDMS {number(rng.uniform(0, 1))}."
    if rng.random() < 0.5:
        text = f"Progress {number(rng.uniform(0, 50))} of {number(rng.uniform(0, 50))}. {text}"
    if rng.random() < 0.3:
        where = f"{number(rng.uniform(0, 40))}, {number(rng.normal(0, 3))}"
        text = f"Collision at {number(rng.uniform(0, 4))} with vehicle at {where}. {text}"
    return text


class Conversations(IterableDataset):
    """Endless made-up conversations: token ids before the answer, those of the answer, and the answer's weights."""

    def __init__(self, tokenizer, seed: int):
        self._tokenizer, self._seed = tokenizer, seed

    def __iter__(self) -> Iterator[dict]:
        rng = np.random.default_rng(self._seed)
        while True:
            first, second = plan(rng), plan(rng)
            given = rng.choice(8, int(rng.integers(1, 5)), replace=False)
            if rng.random() < 0.5:
                given[-1] = 7  # the end is given most often
            given = np.unique(given)
            rng.shuffle(given)
            text = feedback(second, given, rng)
            before = f"<|im_start|>assistant\n{answer(first)}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
            target = self._ids(f"{answer(second)}<|im_end|>")
            weights = np.full(len(target), REST)
            for index in given:
                weights[1 + PER_POSE * index :][:PER_POSITION] = 1.0
            yield {"before": self._ids(f"{before}<|im_start|>assistant\n"), "target": target, "weights": weights}

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Left-padded; all answers are equally long."""
        longest, pad = max(len(row["before"]) for row in rows), self._tokenizer.pad_token_id
        missing = [longest - len(row["before"]) for row in rows]
        ids = [[pad] * gap + row["before"] + row["target"] for gap, row in zip(missing, rows, strict=True)]
        mask = [[0] * gap + [1] * (len(row) - gap) for gap, row in zip(missing, ids, strict=True)]
        weights = np.stack([row["weights"] for row in rows])
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "weights": torch.tensor(weights, dtype=torch.float32),
        }


class CopyingTrainer(Trainer):
    """Weighted cross-entropy of the answers, a mean over the weights of all devices and passes of a step."""

    loss_is_scaled_for_ga = True

    def _get_num_items_in_batch(self, batch_samples, device):
        """Sum of a step's weights."""
        return self.accelerator.reduce(sum(batch["weights"].sum() for batch in batch_samples).to(device))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of one pass; num_items_in_batch: the step's sum of weights."""
        weights = inputs.pop("weights")
        length = weights.shape[1]
        outputs = model(**inputs, use_cache=False, logits_to_keep=length + 1)
        targets = inputs["input_ids"][:, -length:]
        each = cross_entropy(outputs.logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="none")
        loss = (each.view_as(weights) * weights).sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the planner")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    planner = load_planner(planner_settings("tiny"))
    conversations = Conversations(planner.processor.tokenizer, arguments.seed)
    settings = TrainingArguments(
        output_dir=str(arguments.out),
        max_steps=arguments.steps,
        per_device_train_batch_size=16,
        learning_rate=arguments.learning_rate,
        adam_beta2=0.98,
        warmup_steps=min(100, arguments.steps),
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": arguments.steps // 5, "decay_type": "linear", "min_lr_ratio": 0.0},
        logging_steps=100,
        save_steps=500,
        save_total_limit=1,
        remove_unused_columns=False,
        use_cpu=planner.model.device.type == "cpu",
        report_to=[],
    )
    trainer = CopyingTrainer(planner.model, settings, conversations.collate, train_dataset=conversations)
    trainer.train()
    planner.save(arguments.out)


if __name__ == "__main__":
    main()
