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

from collections.abc import Callable, Sequence

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, ProcessorMixin
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer

from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import Planner
from mtdrive.planner.tokens import encode, expand_image, join_images, model_images
from mtdrive.training.checkpoints import LogFile, Resumable, train_from_latest
from mtdrive.training.draft_heads import DraftHeadTraining
from mtdrive.training.expert_balance import BalancedExperts, ExpertBalance
from mtdrive.training.guards import GuardedSteps, check_counts

ReadImage = Callable[[str], np.ndarray]  # name of an image -> (H, W, 3) uint8 RGB


def tokenise(dataset: Dataset, processor: ProcessorMixin) -> Dataset:
    """Samples as token ids.

    Args:
        dataset: rows `messages` and `image`.

    Returns:
        rows `input_ids` (with one placeholder for the image, not yet one for each of its patches), `labels` (the ids of
        the target, -100 elsewhere), `length` and `image`.
    """

    def row(sample: dict) -> dict:
        ids, mask = encode(processor, sample["messages"])
        labels = [token if on else -100 for token, on in zip(ids, mask, strict=True)]
        return {"input_ids": ids, "labels": labels, "length": len(ids)}

    return dataset.map(
        row, remove_columns=[name for name in dataset.column_names if name != "image"], desc="Tokenising"
    )


class PlannerCollator:
    """Makes batches of tokenised samples: text is padded, images come from `images`."""

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
        return batch | join_images([model_images(self._processor, inputs) for inputs in image_inputs])


def _pad(rows: list[list[int]], value: int, side: str) -> torch.Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=side)


def sample_order(lengths: Sequence[int], batch: int, count: int, seed: int) -> list[int]:
    """The samples of a whole run, in an order that the seed alone decides.

    Pass after pass over the samples without a seam, so that every step has its full batch on every device, and the
    order is the same wherever a run is resumed. Within a pass, a step's conversations are about equally long, for least
    padding.

    Args:
        lengths: tokens of each sample.
        batch: samples of a step, over all its passes and devices.
        count: samples of the run.

    Returns:
        `count` indices into `lengths`.
    """
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < count:
        order += get_length_grouped_indices(lengths, batch, generator=generator)
    return order[:count]


class PlannerSFTTrainer(BalancedExperts, DraftHeadTraining, GuardedSteps, Resumable, SFTTrainer):
    """SFTTrainer whose losses are means over target tokens, and whose evaluation also answers every sample greedily.

    It projects only target positions on the vocabulary: TRL's fused head projects every position where there is no
    Triton; on a CPU that is a third of a tiny model's step. A line of the log has the mean loss of all `tokens` targets
    since the line before. Evaluation adds `answer_metrics`.
    """

    loss_is_scaled_for_ga = True  # type: ignore[assignment]  # TRL's base class has None

    def __init__(self, planner: Planner, collator: PlannerCollator, train_dataset: Dataset, **kwargs):
        super().__init__(
            planner.model,
            train_dataset=train_dataset,
            processing_class=planner.processor,
            data_collator=collator,
            compute_metrics=_mean_loss,
            draft_heads=planner.draft_heads,
            **kwargs,
        )
        self._planner = planner
        self._since_log = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # loss, targets
        self._num_samples, batch = len(train_dataset), self.get_total_train_batch_size(self.args)
        order = sample_order(train_dataset["length"], batch, self.args.max_steps * batch, self.args.seed)
        self.train_dataset, self.args.train_sampling_strategy = train_dataset.select(order), "sequential"

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The passes of a step, and the number of its targets over all passes and devices.

        Raises:
            MTDriveError: the step has no target.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # counts nothing for Qwen2.5-VL
        if not batches:
            return batches, None
        targets = self.accelerator.reduce(torch.stack([(batch["labels"] != -100).sum() for batch in batches]).sum())
        check_counts(self.state.global_step + 1, targets, "target tokens", "see the answers in the dataset")
        return batches, targets

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This pass's share of the mean cross-entropy over the targets of all devices and passes of a step."""
        before = pad(inputs["labels"][:, 1:] != -100, (0, 1)).flatten().nonzero()[:, 0]
        losses, counts, outputs = _target_losses(model, inputs)
        self.draft_from(inputs, before)
        self._since_log += torch.stack([losses.detach().sum(), counts.sum()])
        loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes  # gradients are averaged over devices
        loss = self.with_group_loss(loss)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss and number of targets of each sample (B,), which are gathered for `_mean_loss`, each sample once."""
        with torch.no_grad():
            losses, counts, _ = _target_losses(model, inputs)
        return None, losses, counts

    def evaluation_loop(self, dataloader, *args, metric_key_prefix="eval", **kwargs):
        """As `Trainer`'s, with `answer_metrics` of the same samples."""
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        answered = answer_metrics(self._planner, self.data_collator, dataloader.dataset, self.args.eval_batch_size)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in answered.items()})
        return output

    def log(self, logs, start_time=None):
        """Log the mean loss over all targets since the last time, their number, and passes over the dataset."""
        if "loss" in logs:
            loss, tokens = self.accelerator.reduce(self._since_log).tolist()
            logs |= {"loss": loss / tokens, "tokens": int(tokens)}
            self._since_log.zero_()
        samples = self.state.global_step * self.get_total_train_batch_size(self.args)
        self.state.epoch = samples / self._num_samples
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
    return {"loss": float(np.sum(samples.predictions, dtype=np.float64) / np.sum(samples.label_ids))}


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
            ids = planner.model.generate(  # type: ignore[operator]  # PreTrainedModel does not declare it
                **prompts, do_sample=False, max_new_tokens=planner.max_new_tokens
            )
        answers = tokenizer.batch_decode(ids[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
        for answer, sample in zip(answers, batch, strict=True):
            target = tokenizer.decode([label for label in sample["labels"] if label != -100], skip_special_tokens=True)
            answered, wanted = planner.parse_answer(answer).poses, planner.parse_answer(target).poses
            if wanted is not None:
                errors.append(np.nan if answered is None else np.hypot(*(answered - wanted)[:, :2].T).mean())
    if not errors:
        return {"parse_rate": np.nan, "ade": np.nan}
    parsed = np.isfinite(errors)
    return {"parse_rate": float(parsed.mean()), "ade": float(np.mean(errors, where=parsed)) if parsed.any() else np.nan}


def finetune(
    planner: Planner,
    train: Dataset,
    val: Dataset | None,
    read_image: ReadImage,
    arguments: SFTConfig,
    experts: ExpertBalance | None = None,
) -> PlannerSFTTrainer:
    """Train `planner` in place, from the newest complete checkpoint in `arguments.output_dir` if there is one.

    Args:
        train, val: samples as the module docstring describes.
        arguments: TRL's, with `max_steps`; what concerns the data path is set here.
        experts: how experts are balanced, if the planner has any; None as `ExpertBalance` does by default.

    Returns:
        the trainer, whose `state.log_history` has the curves (also in `log.jsonl`); its images have been freed.
    """
    assert arguments.output_dir is not None
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
            experts=experts,
        )
        train_from_latest(trainer)
    return trainer
