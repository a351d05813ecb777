"""Keys and values of the episodes of some scenes: each prompt once, and each episode's own tokens.

A layer with full attention keeps all of them. A layer that attends within a window keeps the end of each prompt, and of
each episode what the window reaches from the beginning of the turn on.

Letters in shapes: as in `shared_prefix`; F prompt tokens that a layer keeps (padded), Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

from mtdrive.rollout.row_attention import Rows, SlidingWindow, additive, causal

FEW = 8  # new tokens per row up to which prompts are read once for a group, not copied for each episode


@dataclass
class LayerCache:
    """What one layer keeps."""

    window: int | None
    """Tokens that a token sees, itself among them; None if all before it."""
    prompt_key: Tensor
    """(S, K, F, D), left-aligned without a window, right-aligned with one."""
    prompt_value: Tensor
    """(S, K, F, D)"""
    key: Tensor
    """(N, K, capacity, D) of the active episodes."""
    value: Tensor
    """(N, K, capacity, D)"""


class PrefixCache:
    """See the module docstring.

    Args:
        lengths: (S,) tokens of each prompt, without the last.
        ends: (S,) int64 rotary position of each prompt's last token, with which its episodes begin.
        group: episodes per prompt.

    Attributes:
        layers: by index of the layer in the model.
        episode_index: (N,) int64 index of each active episode among all: scene * group + its place in the group.
        offsets: (N,) int64 rotary position of each active episode's first token.
        lengths: (N,) int64 tokens of each active episode in the cache.
        longest: upper bound of `lengths`.
        dropped: (N,) int64 tokens by window: how many of an episode its layers have let go.
    """

    def __init__(self, lengths: Sequence[int], ends: Tensor, group: int):
        self.prompts, self.group = Rows(lengths, device=ends.device), group
        self.layers: dict[int, LayerCache] = {}
        self.episode_index = torch.arange(len(lengths) * group, device=ends.device)
        self.offsets = ends.repeat_interleave(group)
        self.lengths = torch.zeros_like(self.episode_index)
        self.longest = 0
        self.dropped: dict[int, Tensor] = {}

    def add(self, layer: int, key: Tensor, value: Tensor, window: int | None) -> None:
        """Keep packed prompts' keys and values (K, T, D) of a layer that has none yet."""
        kept = [self.prompts.pad(x).contiguous() if window is None else self._tails(x, window) for x in (key, value)]
        shape = (len(self.episode_index), kept[0].shape[1], 0, kept[0].shape[3])
        self.layers[layer] = LayerCache(window, *kept, *(x.new_empty(shape) for x in kept))
        if window is not None:
            self.dropped.setdefault(window, torch.zeros_like(self.lengths))

    def keep(self, rows: Tensor, new_tokens: int) -> None:
        """Keep the episodes `rows` (N',) of the active ones, and make room for `new_tokens` more of each."""
        state = (self.episode_index, self.offsets, self.lengths)
        self.episode_index, self.offsets, self.lengths = (x[rows] for x in state)
        self.longest = int(self.lengths.max())
        moved = {}
        for window, before in self.dropped.items():
            self.dropped[window] = (self.lengths - (window - 1)).clamp(min=0)
            steps = torch.arange(min(self.longest, window - 1), device=rows.device)
            moved[window] = (self.dropped[window] - before[rows])[:, None] + steps  # (N', held)
        for cache in self.layers.values():
            for name in ("key", "value"):
                held = getattr(cache, name)
                if cache.window is None:
                    held = held.index_select(0, rows)
                    room = self.longest + new_tokens
                else:
                    slots = moved[cache.window].clamp(max=max(held.shape[2] - 1, 0))
                    held = held[rows[:, None], :, slots].transpose(1, 2)
                    room = slots.shape[1] + new_tokens
                setattr(cache, name, pad(held, (0, 0, 0, max(0, room - held.shape[2]))))

    def _tails(self, packed: Tensor, window: int) -> Tensor:
        """(K, T, D) -> (S, K, F, D): the end of each prompt that a window reaches."""
        index, _ = self.prompts.tails(window - 1)
        return packed.index_select(1, index.flatten()).unflatten(1, index.shape).transpose(0, 1).contiguous()


class PromptSegments:
    """A pass over whole prompts, without their last token, which fills `cache`."""

    def __init__(self, cache: PrefixCache):
        self._cache, self.rows = cache, cache.prompts
        self._windows: dict[int, SlidingWindow] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See `Segments.attend`."""
        rows = self.rows
        self._cache.add(layer, key, value, window)
        if window is None or window >= rows.width:
            return causal(rows, query, key, value, scaling)
        if window not in self._windows:
            self._windows[window] = SlidingWindow(rows.width, rows.valid[:, :0], window)
        return rows.unpad(self._windows[window].attend(rows.pad(query), rows.pad(key), rows.pad(value), scaling))


@dataclass
class _Layout:
    """Where new tokens stand in the layers of one window, and what they see there."""

    slots: Tensor
    """(N, M) int64 places of the new tokens in the episodes' part of the cache."""
    held: slice
    """Places of that part, W in all, that any of them sees."""
    bias: Tensor
    """(N, 1, M, F + W), added to scores; without the first F where no token sees a prompt any more."""
    sees_prompts: bool
    """Whether any token does."""


class EpisodeSegments:
    """A pass over new tokens of the active episodes, whose keys and values go into `cache`, behind what it holds.

    Args:
        counts: (N,) new tokens per row.

    Attributes:
        positions: (1, T) int64 rotary positions of the new tokens, packed.
    """

    def __init__(self, cache: PrefixCache, counts: Sequence[int]):
        self._cache = cache
        self.rows = Rows(counts, device=cache.lengths.device)
        self.steps = cache.lengths[:, None] + torch.arange(self.rows.width, device=cache.lengths.device)  # (N, M)
        self.positions = (cache.offsets[:, None] + self.steps)[self.rows.valid][None]
        self._all_active = len(cache.episode_index) == len(cache.prompts.lengths) * cache.group
        self._layouts: dict[tuple[int | None, torch.dtype], _Layout] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See `Segments.attend`."""
        kind = (window, query.dtype)
        if kind not in self._layouts:
            self._layouts[kind] = self._layout(*kind)
        cache, layout = self._cache.layers[layer], self._layouts[kind]
        row = torch.arange(len(self._cache.episode_index), device=query.device)[:, None]
        cache.key[row, :, layout.slots] = self.rows.pad(key).transpose(1, 2)
        cache.value[row, :, layout.slots] = self.rows.pad(value).transpose(1, 2)
        attend = self._few if self.rows.width <= FEW else self._many
        return self.rows.unpad(attend(cache, layout, self.rows.pad(query), scaling))

    def _layout(self, window: int | None, dtype: torch.dtype) -> _Layout:
        cache, device = self._cache, self.steps.device
        scenes = cache.episode_index // cache.group
        if window is None:
            slots, reached = self.steps, slice(0, cache.longest + self.rows.width)
            own = torch.arange(reached.stop, device=device) <= slots[..., None]
            prompt = cache.prompts.valid[scenes, None].expand(-1, self.rows.width, -1)
        else:
            slots = self.steps - cache.dropped[window][:, None]
            used = slots[self.rows.valid]
            reached = slice(max(0, int(used.min()) - window + 1), int(used.max()) + 1)
            distance = slots[..., None] - torch.arange(reached.start, reached.stop, device=device)
            own = (distance >= 0) & (distance < window)
            _, valid = cache.prompts.tails(window - 1)
            places = torch.arange(-valid.shape[1], 0, device=device)  # seen from an episode's first token
            prompt = valid[scenes, None] & (self.steps[..., None] - places < window)
        sees_prompts = window is None or bool(prompt.any())
        visible = torch.cat([prompt, own], -1) if sees_prompts else own
        return _Layout(slots, reached, additive(visible, dtype)[:, None], sees_prompts)

    def _many(self, cache: LayerCache, layout: _Layout, query: Tensor, scaling: float) -> Tensor:
        """Queries (N, H, M, D) -> (N, H, M, D), over a copy of each episode's whole context."""
        scenes, groups = self._cache.episode_index // self._cache.group, query.shape[1] // cache.key.shape[1]
        key, value = cache.key[:, :, layout.held], cache.value[:, :, layout.held]
        if layout.sees_prompts:
            key = torch.cat([cache.prompt_key.index_select(0, scenes), key], 2)
            value = torch.cat([cache.prompt_value.index_select(0, scenes), value], 2)
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return scaled_dot_product_attention(query, key, value, attn_mask=layout.bias, scale=scaling)

    def _few(self, cache: LayerCache, layout: _Layout, query: Tensor, scaling: float) -> Tensor:
        """Queries (N, H, M, D) -> (N, H, M, D), reading each prompt once for its whole group."""
        shape, new = query.shape, query.shape[2]
        query = (query * scaling).reshape(len(query), cache.key.shape[1], -1, query.shape[-1])  # (N, K, H / K * M, D)
        own = cache.key[:, :, layout.held]
        scores = torch.matmul(query, own.transpose(-1, -2))
        if layout.sees_prompts:
            scores = torch.cat([self._over_prompts(query, cache.prompt_key.transpose(-1, -2)), scores], -1)
        scores.unflatten(2, (-1, new)).add_(layout.bias[:, :, None])
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
        split = weights.shape[-1] - own.shape[2]
        out = torch.matmul(weights[..., split:], cache.value[:, :, layout.held])
        if layout.sees_prompts:
            out += self._over_prompts(weights[..., :split], cache.prompt_value)
        return out.reshape(shape)

    def _over_prompts(self, left: Tensor, right: Tensor) -> Tensor:
        """(N, K, Q, A) @ (S, K, A, B) -> (N, K, Q, B), reading each scene's matrix once for its whole group."""
        scenes, heads, inner, outer = right.shape
        index, group, queries = self._cache.episode_index, self._cache.group, left.shape[2]
        if not self._all_active:
            left = left.new_zeros(scenes * group, *left.shape[1:]).index_copy_(0, index, left)
        left = left.reshape(scenes, group, heads, queries, inner).transpose(1, 2)
        out = torch.matmul(left.reshape(scenes, heads, -1, inner), right)
        out = out.reshape(scenes, heads, group, queries, outer).transpose(1, 2)
        out = out.reshape(scenes * group, heads, queries, outer)
        return out if self._all_active else out.index_select(0, index)
