"""The training pass of `training_segments` by FlexAttention, for GPUs: no copy of any key, one kernel a layer.

A scene is a tree: its prompt is the trunk and its episodes are branches. Walking through the trees in depth-first order
gives each token the place where it is entered and the place where all that grows from it has been left; a token sees
those that were entered before it and are not left yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from mtdrive.rollout.training_segments import TrainingSegments


class FlexSegments:
    """See the module docstring; arguments as of `TrainingSegments`."""

    def __init__(
        self,
        prompt_lengths: Sequence[int],
        episode_lengths: Sequence[int],
        scenes: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        tokens = sum(prompt_lengths) + sum(episode_lengths)
        # Of each packed token: its place in the walk, where what grows from it ends, its place in its conversation.
        walk = torch.zeros(3, tokens, dtype=torch.int64)
        place, packed, end = 0, sum(prompt_lengths), 0
        starts = torch.cumsum(torch.tensor([0, *prompt_lengths]), 0).tolist()
        for scene, length in enumerate(prompt_lengths):
            branches = [n for s, n in zip(scenes, episode_lengths, strict=True) if s == scene]
            end = place + length + sum(branches)
            steps = torch.arange(length)
            walk[:, starts[scene] : starts[scene + 1]] = torch.stack([place + steps, torch.full((length,), end), steps])
            place += length
            for branch in branches:
                steps = torch.arange(branch)
                rows = [place + steps, torch.full((branch,), place + branch), length + steps]
                walk[:, packed : packed + branch] = torch.stack(rows)
                place, packed = place + branch, packed + branch
        self._entered, self._left, self._depth = walk.to(device)
        self._masks: dict[int | None, BlockMask] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See `Segments.attend`."""
        if window not in self._masks:
            self._masks[window] = self._mask(window)
        # Under autocast the rotary embedding leaves queries and keys in float32 and values are in bfloat16.
        query, key, value = (x[None].to(value.dtype) for x in (query, key, value))
        run = _compiled(query.device.type)
        out = run(query, key, value, block_mask=self._masks[window], scale=scaling, enable_gqa=True)
        return out[0].transpose(0, 1)

    def _mask(self, window: int | None) -> BlockMask:
        entered, left, depth = self._entered, self._left, self._depth

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            ancestor = (entered[key] <= entered[query]) & (entered[query] < left[key])
            return ancestor if window is None else ancestor & (depth[query] - depth[key] < window)

        tokens, on_gpu = len(entered), entered.device.type == "cuda"
        return create_block_mask(sees, None, None, tokens, tokens, device=entered.device, _compile=on_gpu)


def segments_for(device: torch.device) -> type[TrainingSegments] | type[FlexSegments]:
    """What a training pass on a device uses."""
    return TrainingSegments if device.type == "cpu" else FlexSegments


_KERNELS: dict[str, Callable] = {"cpu": flex_attention}  # without gradients there


def _compiled(device: str) -> Callable:
    if device not in _KERNELS:
        _KERNELS[device] = torch.compile(flex_attention, dynamic=True)
    return _KERNELS[device]
