"""Supervised fine-tuning of a planner on TRL's SFTTrainer.

What differs from plain `SFTTrainer`: a conversation is tokenised once and its image processed once (TRL would do both
again at every step, which costs a tiny model more than its forward pass), only the last answer of a conversation is a
target (the earlier ones are the flawed plans of a recorded interaction), every target token counts the same however a
step is spread over passes and devices, a run that was cut off goes on with the same samples, and evaluation also
generates answers.

Samples are rows of a Hugging Face dataset, as `mtdrive record` writes them:

    messages  the conversation in the format of `planner.prompt.messages`, and the answer to learn as its last message
    image     name of its one image; images come from a function, name -> (H, W, 3) uint8 RGB
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler
from transformers import EvalPrediction
from transformers.processing_utils import ProcessorMixin
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import pad

from mtdrive.planner.answer import parse_answer
from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import Planner
from mtdrive.planner.tokens import encode, expand_image
from mtdrive.training.checkpoints import LogFile, Resumable, train_from_latest
from mtdrive.training.guards import GuardedSteps, check_counts

ReadImage = Callable[[str], np.ndarray]


def tokenise(dataset: Dataset, processor: ProcessorMixin) -> Dataset:
    """Rows `messages`, `image` -> rows `input_ids` (image placeholder single), `labels` (-100 off target), `length`,
    `image`.
    """

    def row(sample: dict) -> dict:
        ids, mask = encode(processor, sample["messages"])
        labels = [token if on else -100 for token, on in zip(ids, mask, strict=True)]
        return {"input_ids": ids, "labels": labels, "length": len(ids)}

    return dataset.map(
        row, remove_columns=[name for name in dataset.column_names if name != "image"], desc="Tokenising"
    )


class PlannerCollator:
    """Batches of tokenised samples: text padded, images from `images`."""

    def __init__(self, processor: ProcessorMixin, images: ImageInputs):
        self._processor = processor
        self._images = images

    def __call__(self, samples: list[dict]) -> dict[str, torch.Tensor]:
        """Conversations with their target, right-padded.

        Returns:
            input_ids, attention_mask, labels, and mm_token_type_ids if the model takes them: (B, L) int64; the images'
            tensors, concatenated in the order of the batch.
        """
        return self._collate(samples, [sample["input_ids"] for sample in samples], "right")

    def prompts(self, samples: list[dict]) -> dict[str, torch.Tensor]:
        """The same conversations up to where the target begins, left-padded for generation."""
        starts = [next(i for i, label in enumerate(sample["labels"]) if label != -100) for sample in samples]
        batch = self._collate(
            samples, [sample["input_ids"][:start] for sample, start in zip(samples, starts, strict=True)], "left"
        )
        del batch["labels"]
        return batch

    def _collate(self, samples: list[dict], ids: list[list[int]], side: str) -> dict[str, torch.Tensor]:
        image_inputs = [self._images[sample["image"]] for sample in samples]
        rows = [
            expand_image(self._processor, row, inputs, sample["labels"][: len(row)])
            for row, inputs, sample in zip(ids, image_inputs, samples, strict=True)
        ]
        batch = {
            "input_ids": _pad([row for row, _ in rows], self._processor.tokenizer.pad_token_id, side),
            "attention_mask": _pad([[1] * len(row) for row, _ in rows], 0, side),
            "labels": _pad([labels for _, labels in rows], -100, side),
        }
        if "mm_token_type_ids" in self._processor.model_input_names:
            types = self._processor.create_mm_token_type_ids(batch["input_ids"].tolist())
            batch["mm_token_type_ids"] = torch.tensor(types)
        return batch | {key: torch.cat([inputs[key] for inputs in image_inputs]) for key in image_inputs[0]}


def _pad(rows: list[list[int]], value: int, side: str) -> torch.Tensor:
    return pad([torch.tensor(row) for row in rows], padding_value=value, padding_side=side)


class SampleOrder(Sampler):
    """The samples of a whole run, in an order that the seed alone decides.

    Pass after pass over the samples without a seam, so that every step has its full batch on every device, and the
    order is the same wherever a run goes on. Within a pass, a step's conversations are about equally long, for least
    padding.

    lengths: of the samples. batch: samples of a step, over all its passes and devices. count: samples of the run.
    """

    def __init__(self, lengths: Sequence[int], batch: int, count: int, seed: int):
        self._lengths, self._batch, self._count, self._seed = list(lengths), batch, count, seed

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return islice(self._passes(), self._count)

    def _passes(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            yield from get_length_grouped_indices(self._lengths, self._batch, generator=generator)


class PlannerSFTTrainer(GuardedSteps, Resumable, SFTTrainer):
    """SFTTrainer whose losses are means over target tokens, and whose evaluation also answers every sample greedily.

    It scores target positions alone: TRL's fused head projects every position on the vocabulary where there is no
    Triton; on a CPU that is a third of a tiny model's step. A line of the log has the mean loss of all `tokens` targets
    since the line before. Evaluation adds `answer_metrics`.
    """

    def __init__(self, planner: Planner, collator: PlannerCollator, **kwargs):
        super().__init__(
            planner.model,
            processing_class=planner.processor,
            data_collator=collator,
            compute_metrics=_mean_loss,
            **kwargs,
        )
        self._planner = planner
        self.model_accepts_loss_kwargs = True  # Qwen2.5-VL says False, and `Trainer` then counts no targets
        self._since_log = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # loss, targets

    def _get_train_sampler(self, train_dataset=None) -> SampleOrder:
        batch = self.get_total_train_batch_size(self.args)
        return SampleOrder(self.train_dataset["length"], batch, self.args.max_steps * batch, self.args.seed)

    def _get_num_items_in_batch(self, batch_samples, device):
        """Targets of a step over all its passes and devices."""
        count = super()._get_num_items_in_batch(batch_samples, device)
        check_counts(self.state.global_step + 1, count, "target tokens", "see the answers in the dataset")
        return count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This pass's share of the mean cross-entropy over the targets of all devices and passes of a step."""
        losses, counts, outputs = _target_losses(model, inputs)
        self._since_log += torch.stack([losses.detach().sum(), counts.sum()])
        loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes  # gradients are averaged over devices
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss and number of targets of each sample (B,), which are gathered for `_mean_loss`, each sample once."""
        with torch.no_grad():
            losses, counts, _ = _target_losses(model, self._prepare_inputs(inputs))
        return None, losses, counts

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        answered = answer_metrics(self._planner, self.data_collator, dataloader.dataset, self.args.eval_batch_size)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in answered.items()})
        return output

    def log(self, logs, start_time=None):
        if "loss" in logs:
            loss, tokens = self.accelerator.reduce(self._since_log).tolist()
            logs |= {"loss": loss / tokens, "tokens": int(tokens)}
            self._since_log.zero_()
        samples = self.state.global_step * self.get_total_train_batch_size(self.args)
        self.state.epoch = samples / len(self.train_dataset)
        super().log(logs, start_time)


def _target_losses(model, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, object]:
    """Summed cross-entropy and number of the targets of each sample (B,), and the model's outputs."""
    labels = inputs.pop("labels")
    columns = (labels != -100).any(0).nonzero().squeeze(1)
    outputs = model(**inputs, use_cache=False, logits_to_keep=columns - 1)
    labels = labels[:, columns]
    losses = cross_entropy(outputs.logits.float().flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view_as(labels).sum(1), (labels != -100).sum(1), outputs


def _mean_loss(samples: EvalPrediction) -> dict[str, float]:
    """Over all targets of an evaluation."""
    return {"loss": float(samples.predictions.sum(dtype=np.float64) / samples.label_ids.sum())}


def answer_metrics(planner: Planner, collator: PlannerCollator, samples: Dataset, batch_size: int) -> dict[str, float]:
    """How well greedy answers match the targets.

    Returns:
        parse_rate: share of answers that parse. ade: mean distance [m] between answered and target positions, over
        those that parse. Both are nan without any sample whose target is a plan; questions are left out.
    """
    tokenizer, errors = planner.processor.tokenizer, []
    planner.model.eval()
    for start in range(0, len(samples), batch_size):
        batch = [samples[index] for index in range(start, min(start + batch_size, len(samples)))]
        prompts = {key: value.to(planner.model.device) for key, value in collator.prompts(batch).items()}
        with torch.inference_mode():
            ids = planner.model.generate(**prompts, do_sample=False, max_new_tokens=planner.max_new_tokens)
        answers = tokenizer.batch_decode(ids[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
        for answer, sample in zip(answers, batch, strict=True):
            target = tokenizer.decode([label for label in sample["labels"] if label != -100], skip_special_tokens=True)
            answered, wanted = parse_answer(answer).poses, parse_answer(target).poses
            if wanted is not None:
                errors.append(np.nan if answered is None else np.hypot(*(answered - wanted)[:, :2].T).mean())
    if not errors:
        return {"parse_rate": np.nan, "ade": np.nan}
    parsed = np.isfinite(errors)
    return {"parse_rate": float(parsed.mean()), "ade": float(np.mean(errors, where=parsed)) if parsed.any() else np.nan}


def finetune(
    planner: Planner, train: Dataset, val: Dataset | None, read_image: ReadImage, arguments: SFTConfig
) -> PlannerSFTTrainer:
    """Train `planner` in place, from the newest complete checkpoint in `arguments.output_dir` if there is one.

    Args:
        train, val: samples as the module docstring describes.
        arguments: TRL's, with `max_steps`; what concerns the data path is set here.

    Returns:
        the trainer, whose `state.log_history` has the curves (also in `log.jsonl`); its images have been freed.
    """
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}
    arguments.remove_unused_columns = False
    arguments.max_length = None
    with ImageInputs(planner.processor, read_image, arguments.output_dir) as images:
        trainer = PlannerSFTTrainer(
            planner,
            PlannerCollator(planner.processor, images),
            args=arguments,
            train_dataset=tokenise(train, planner.processor),
            eval_dataset=None if val is None else tokenise(val, planner.processor),
            callbacks=[LogFile(arguments.output_dir)],
        )
        train_from_latest(trainer)
    return trainer
