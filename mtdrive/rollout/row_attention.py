"""Attention within rows of packed tokens: causal, or causal within a sliding window.

Letters in shapes: T packed tokens, N rows, L row length (padded), H query heads, K key-value heads, D head dimension,
F positions in front of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

BLOCK = 64  # queries at least, of those that a sliding window computes together


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask (True: may see) as what is added to attention scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


class Rows:
    """Consecutive runs of packed tokens, seen as the rows of a padded array.

    lengths: tokens of each row. start: packed position of the first row's first token.
    """

    def __init__(self, lengths: Sequence[int], start: int = 0, device: torch.device | str = "cpu"):
        self.lengths = torch.tensor(lengths, device=device)
        self.width = max(lengths)
        steps = torch.arange(self.width, device=device)
        first = start + torch.cumsum(self.lengths, 0) - self.lengths
        self.valid = steps < self.lengths[:, None]
        self.index = torch.where(self.valid, first[:, None] + steps, 0).flatten()
        self.tokens = self.valid.flatten().nonzero().flatten()
        self.dense = bool(self.valid.all())
        self.span = slice(start, start + sum(lengths))

    def pad(self, packed: Tensor) -> Tensor:
        """(H, T, D) -> (rows, H, width, D)."""
        heads, _, size = packed.shape
        packed = packed[:, self.span] if self.dense else packed.index_select(1, self.index)
        return packed.reshape(heads, -1, self.width, size).transpose(0, 1)

    def unpad(self, padded: Tensor) -> Tensor:
        """(rows, H, width, D) -> (tokens of these rows, H, D)."""
        tokens = padded.transpose(1, 2).flatten(0, 1)
        return tokens if self.dense else tokens.index_select(0, self.tokens)

    def firsts(self, counts: Tensor) -> Tensor:
        """Packed positions of the first `counts` (rows,) tokens of each row, at most all of them."""
        steps = torch.arange(self.width, device=self.lengths.device)
        return self.index.unflatten(0, self.valid.shape)[(steps < counts[:, None]) & self.valid]

    def tails(self, count: int) -> tuple[Tensor, Tensor]:
        """The last tokens of each row, at most `count` and at most the width.

        Returns:
            (rows, F) int64 packed positions, right-aligned, and (rows, F) bool, False where a row has fewer tokens.
        """
        steps = torch.arange(-min(count, self.width), 0, device=self.lengths.device) + self.lengths[:, None]
        first = self.span.start + torch.cumsum(self.lengths, 0) - self.lengths
        return first[:, None] + steps.clamp(min=0), steps >= 0


def causal(rows: Rows, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention within each row; padding stands behind every real token and is therefore never seen."""
    groups = len(query) // len(key)
    key, value = repeat_kv(rows.pad(key), groups), repeat_kv(rows.pad(value), groups)
    return rows.unpad(scaled_dot_product_attention(rows.pad(query), key, value, is_causal=True, scale=scaling))


class SlidingWindow:
    """Causal attention within a window: a query sees its own token and the `window` - 1 before it.

    Computed in blocks of queries, each with the keys that their windows reach, so that it costs what the window does.

    Args:
        length: L of the rows. Padding behind a row's last token is never seen by a token of it.
        front: (N, F) bool, False on positions in front of a row that hold no token; F is below the window.
        window: tokens that a query sees, itself among them.
    """

    def __init__(self, length: int, front: Tensor, window: int):
        self._length, ahead, device = length, front.shape[1], front.device
        self._blocks = -(-length // max(window, BLOCK))
        self._size = length if self._blocks == 1 else max(window, BLOCK)
        self._reach = ahead if self._blocks == 1 else window - 1  # keys in front of a block
        self._before, self._behind = self._reach - ahead, self._blocks * self._size - length
        query, key = torch.arange(self._size, device=device), torch.arange(self._reach + self._size, device=device)
        distance = query[:, None] + self._reach - key
        held = pad(pad(front, (self._before, 0)), (0, self._blocks * self._size), value=True)
        held = held.unfold(1, len(key), self._size).flatten(0, 1)  # (N * blocks, keys)
        self._visible = (distance >= 0) & (distance < window) & held[:, None]
        self._bias: Tensor | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query: (N, H, L, D). key, value: (N, K, F + L, D). Returns (N, H, L, D)."""
        if self._bias is None or self._bias.dtype != query.dtype:
            self._bias = additive(self._visible, query.dtype)[:, None]
        groups = query.shape[1] // key.shape[1]
        key, value = (self._reached(x, groups) for x in (key, value))
        query = pad(query, (0, 0, 0, self._behind)).unflatten(2, (self._blocks, self._size))
        query = query.transpose(1, 2).flatten(0, 1)  # (N * blocks, H, size, D)
        out = scaled_dot_product_attention(query, key, value, attn_mask=self._bias, scale=scaling)
        return out.unflatten(0, (-1, self._blocks)).transpose(1, 2).flatten(2, 3)[:, :, : self._length]

    def _reached(self, x: Tensor, groups: int) -> Tensor:
        """(N, K, F + L, D) -> (N * blocks, H, keys, D)."""
        x = pad(x, (0, 0, self._before, self._behind)).unfold(2, self._reach + self._size, self._size)
        return repeat_kv(x.transpose(1, 2).flatten(0, 1).transpose(2, 3), groups)
