"""Training of a planner's draft heads (`planner.mtp`) beside the planner, which learns nothing from it.

After the forward and backward pass of the planner, its heads go over the same tokens, from the hidden states of that
pass and without a gradient to them, to the embedding or to the language-model head. Their loss is the mean
cross-entropy over all depths' targets in a step, over all its passes and processes. Depth k at position i has the
target i + k + 2 where the planner is to write it and all tokens from i + 1 up to it, because no other token is drafted:
the first of an answer comes from the planner itself, and depth k has k + 1 targets less than an answer has tokens.

The heads have an AdamW of their own, with the run's learning rate, betas, weight decay and bound on the norm of the
gradient. A line of the log has, over all steps since the line before, for depths from 1:

    draft/loss_k       mean cross-entropy [nat]
    draft/agreement_k  share of targets, in [0, 1], that the head holds for likeliest
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainerCallback
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from mtdrive.planner.mtp import DraftHeads
from mtdrive.planner.pretrained import check_loaded, check_saved
from mtdrive.rollout.encoding import Prompt
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.log_probs import LOGITS_AT_ONCE

logger = logging.getLogger(__name__)

OPTIMIZER = "draft_optimizer.pt"  # in a checkpoint
MASKS: Mapping[str, Callable] = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
}


class DraftTargets:
    """What the heads are to guess in one pass over tokens (B, L): rows, or one row of packed prompts and episodes.

    Args:
        ids: (B, L) int64 tokens of the pass.
        before: (n,) int64 positions in the flattened pass whose next token the planner is to write.
        prompts: those that stand, without their last token, at the beginning of a packed row. What comes after the last
            token depends on the episode: near a prompt's end, the last token stands for all that follow.
    """

    def __init__(self, ids: Tensor, before: Tensor, prompts: Sequence[Prompt] = ()):
        self._next = ids.roll(-1, 1)
        self._last = torch.full_like(ids, ids.shape[1] - 1)
        self._position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        start = 0
        for prompt in prompts:
            end = start + len(prompt.ids) - 1
            self._next[0, end - 1], self._last[0, start:end], start = int(prompt.ids[-1]), end - 1, end
        self._written = torch.zeros_like(ids, dtype=torch.bool)
        self._written.view(-1)[before] = True

    def inputs(self, depth: int) -> Tensor:
        """(B, L) int64, the token `depth` + 1 places after each position, or the last one known."""
        return self._next.gather(1, torch.minimum(self._position + depth, self._last))

    def targets(self, depth: int) -> tuple[Tensor, Tensor]:
        """Positions (n,) of the flattened pass at which a depth has a target, and the targets (n,), both int64."""
        written, width = self._written, self._written.shape[1]
        drafted = written[:, : max(0, width - depth - 1)].clone()
        for ahead in range(1, depth + 2):
            drafted &= written[:, ahead : ahead + drafted.shape[1]]
        rows, columns = drafted.nonzero(as_tuple=True)
        return rows * width + columns, self._next[rows, columns + depth + 1]


def depth_losses(
    heads: DraftHeads, draft: DraftTargets, hidden: Tensor, inputs: Mapping[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    """What each head makes of one pass.

    Args:
        heads: of the model that made the pass.
        draft: what they are to guess.
        hidden: (B, L, D) last hidden states of the model.
        inputs: of the model: `attention_mask`, `position_ids` if it was given them, `segments` if it was packed.

    Returns:
        for each depth, the losses (n,) [nat] of its targets, with gradients to the heads, and (n,) bool, whether the
        target is the likeliest token.
    """
    mask, positions = inputs["attention_mask"], inputs.get("position_ids")
    if positions is None:
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
    config, results = heads.model.config.get_text_config(), []
    for depth, kind in enumerate(heads.kinds):
        if "segments" in inputs:
            attention = {"attention_mask": mask, "segments": inputs["segments"]}
        else:
            seen = MASKS[kind](config=config, inputs_embeds=hidden, attention_mask=mask, past_key_values=None)
            attention = {"attention_mask": seen}
        hidden = heads.step(depth, hidden, draft.inputs(depth), positions, **attention)
        results.append(_losses(heads, hidden, *draft.targets(depth)))
    return results


def _losses(heads: DraftHeads, hidden: Tensor, places: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (n,) and agreement (n,) of hidden states (B, L, D) at places (n,) of the flattened pass."""

    def score(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = heads.logits(hidden).float()
        return cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets

    rows = max(1, LOGITS_AT_ONCE // heads.model.get_output_embeddings().weight.shape[0])
    chosen = hidden.flatten(0, 1).index_select(0, places)
    pairs = zip(chosen.split(rows), targets.split(rows), strict=True)
    # As in `log_probs.add_scoring`: logits of many positions are not kept, but computed again in the backward pass.
    parts = [score(*pair) if len(targets) <= rows else checkpoint(score, *pair, use_reentrant=False) for pair in pairs]
    losses, agreed = zip(*parts, strict=True)
    return torch.cat(losses), torch.cat(agreed)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class DraftLearner:
    """The heads of a planner in training, and what they have seen since the last step and the last line of the log.

    Args:
        heads: trained in place.
        optimizer: of their parameters; its learning rate is set at every step.
        max_norm: of the gradient; 0 for any.

    Attributes:
        hidden: (B, L, D) last hidden states of the model's last pass in training, or None.
    """

    def __init__(self, heads: DraftHeads, optimizer: torch.optim.Optimizer, max_norm: float):
        self.heads, self.optimizer, self._max_norm = heads, optimizer, max_norm
        self._parameters = list(heads.parameters())
        self._step = torch.zeros(len(heads.kinds), 3, dtype=torch.float64, device=self._parameters[0].device)
        self._since_log = self._step.clone()  # of each depth: sum of losses, targets that were likeliest, targets
        self.hidden: Tensor | None = None
        heads.model.base_model.register_forward_hook(self._see)

    def _see(self, base: torch.nn.Module, args: tuple, output: Any) -> None:
        if base.training and torch.is_grad_enabled():
            self.hidden = output.last_hidden_state.detach()

    def learn(self, draft: DraftTargets, inputs: Mapping[str, Any], autocast: AbstractContextManager) -> None:
        """Add the gradients of one pass, that of the model's last in training. inputs: see `depth_losses`."""
        assert self.hidden is not None, "the model has made no pass in training"
        hidden, self.hidden = self.hidden, None
        with autocast:
            results = depth_losses(self.heads, draft, hidden, inputs)
        torch.stack([losses.sum() for losses, _ in results]).sum().backward()
        self._step += torch.stack(
            [
                torch.stack([losses.detach().sum().double(), agreed.sum(), losses.new_tensor(len(losses))])
                for losses, agreed in results
            ]
        )

    def update(self, learning_rate: float, reduce: Callable[[Tensor], Tensor]) -> None:
        """Take the step of all passes since the last. reduce: sum of a tensor over all processes.

        Raises:
            MTDriveError: the gradient is not finite.
        """
        totals = reduce(self._step)
        self._since_log, self._step = self._since_log + totals, torch.zeros_like(totals)
        if targets := float(totals[:, 2].sum()):
            sizes = [parameter.numel() for parameter in self._parameters]
            gradient = reduce(torch.cat([_gradient(parameter).flatten() for parameter in self._parameters])) / targets
            for parameter, part in zip(self._parameters, gradient.split(sizes), strict=True):
                parameter.grad = part.view_as(parameter)
            norm = float(clip_grad_norm_(self._parameters, self._max_norm or math.inf))
            if not math.isfinite(norm):
                raise MTDriveError(
                    f"The draft heads have a gradient norm of {norm:.4g}; lower learning_rate and train again in "
                    "another out=."
                )
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad()

    def metrics(self) -> dict[str, float]:
        """What the module docstring lists, of all steps since the last call; nothing where there was no target."""
        totals, self._since_log = self._since_log.tolist(), torch.zeros_like(self._since_log)
        return {
            f"draft/{name}_{depth}": value / targets
            for depth, (loss, agreed, targets) in enumerate(totals, 1)
            if targets
            for name, value in (("loss", loss), ("agreement", agreed))
        }


class DraftHeadTraining(Trainer):
    """A Trainer that also trains the planner's draft heads, if it has any, and saves them with the planner.

    They stay as they are, which a warning says, under LoRA, whose adapters are saved without them, and under FSDP and
    DeepSpeed, where no process has the whole model after a pass.

    Args:
        draft_heads: of the planner, or None.
        train_draft_heads: whether they learn.
    """

    def __init__(self, *args, draft_heads: DraftHeads | None, train_draft_heads: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self._draft_heads = draft_heads
        self._learner: DraftLearner | None = None
        self._pass: tuple[Mapping[str, Any], Tensor, Sequence[Prompt]] | None = None
        if draft_heads is None or not train_draft_heads:
            return
        if reason := self._cannot_learn():
            logger.warning("The draft heads stay as they are: %s.", reason)
            return
        optimizer = torch.optim.AdamW(
            draft_heads.parameters(),
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
            weight_decay=self.args.weight_decay,
        )
        self._learner = DraftLearner(draft_heads, optimizer, self.args.max_grad_norm)
        self.add_callback(_AfterSteps(self._learner, self.accelerator.reduce))

    def _cannot_learn(self) -> str | None:
        if isinstance(self.accelerator.unwrap_model(self.model), PeftModel):
            return "a LoRA adapter is saved without them"
        if self.accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP):
            return "they are trained on whole models, not under FSDP or DeepSpeed"
        return None

    def draft_from(self, inputs: Mapping[str, Any], before: Tensor, prompts: Sequence[Prompt] = ()) -> None:
        """Tell what the coming pass of the model goes over. See `depth_losses` and `DraftTargets`."""
        if self._learner is not None:
            self._pass = inputs, before, prompts

    def training_step(self, model, inputs, num_items_in_batch=None):
        """As `Trainer`'s; then the heads learn from the pass that it has made."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self._learner is not None:
            assert self._pass is not None, "compute_loss must say what the pass goes over (draft_from)"
            of_pass, before, prompts = self._pass
            draft = DraftTargets(of_pass["input_ids"], before, prompts)
            self._learner.learn(draft, of_pass, self.compute_loss_context_manager())
        self._pass = None
        return loss

    def log(self, logs, start_time=None):
        """As `Trainer`'s; lines with the loss of training also have the heads'."""
        learnt = self._learner.metrics() if self._learner is not None and "loss" in logs else {}
        super().log(logs | learnt, start_time)

    def _save(self, output_dir=None, state_dict=None):
        """Save the heads in the same files as the model."""
        model = self.accelerator.unwrap_model(self.model)
        if self._draft_heads is not None and not isinstance(model, PeftModel):
            heads = self._draft_heads.saved_weights()
            check_saved(heads, output_dir or self.args.output_dir)
            state_dict = {**(model.state_dict() if state_dict is None else state_dict), **heads}
        super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self._learner is not None and self.args.should_save:
            torch.save(self._learner.optimizer.state_dict(), Path(output_dir) / OPTIMIZER)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._learner is not None:
            self._learner.heads.load(resume_from_checkpoint)
            check_loaded(self._learner.heads.state_dict(), resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._learner is not None and checkpoint is not None:
            state = torch.load(Path(checkpoint) / OPTIMIZER, map_location=self.args.device, weights_only=True)
            self._learner.optimizer.load_state_dict(state)


class _AfterSteps(TrainerCallback):
    def __init__(self, learner: DraftLearner, reduce: Callable[[Tensor], Tensor]):
        self._learner, self._reduce = learner, reduce

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self._learner.update(optimizer.param_groups[0]["lr"], self._reduce)
