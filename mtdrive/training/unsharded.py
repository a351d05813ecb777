"""The model in training made ready for rollouts: whole on every process, without the wrappers of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from transformers import PreTrainedModel
from trl.models import unwrap_model_for_generation

from mtdrive.simulation.errors import MTDriveError


@contextmanager
def unsharded(model: nn.Module, accelerator: Accelerator) -> Iterator[PreTrainedModel]:
    """The model in eval mode with all its parameters gathered, so that processes need not call it equally often.

    model: as accelerate has prepared it (plain, DDP, FSDP2, DeepSpeed).

    Raises:
        MTDriveError: FSDP version 1, which frees parameters again after every forward pass.
    """
    if isinstance(model, FullyShardedDataParallel):
        raise MTDriveError("Rollouts need FSDP version 2: give accelerate fsdp_version: 2 (--fsdp_version 2).")
    with unwrap_model_for_generation(model, accelerator) as unwrapped, _unsharded(unwrapped, accelerator):
        unwrapped.eval()
        yield unwrapped
        unwrapped.train()


@contextmanager
def _unsharded(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            # The root keeps its parameters until the backward pass, which needs them first.
            again = unit is not model and accelerator.state.fsdp_plugin.reshard_after_forward
            unit.set_reshard_after_forward(again, recurse=False)
