"""Attention in which the episodes of a scene share the scene's prompt.

A forward pass takes all tokens of all episodes packed into one row, without padding, so that everything but attention
costs exactly its tokens. Attention itself is registered with transformers under the name `ATTENTION` and reads from
its `segments` keyword which token belongs to which prompt or episode; a prompt's keys and values exist once, whatever
the group size. Without `segments` it is ordinary SDPA, so that a model can keep it switched on for every other use.

The shared part is a prompt without its last token: that token is predicted from by all episodes of the group, and
belongs to each of them.

Letters in shapes: T packed tokens, S scenes, N episodes, M new tokens per row (padded), P prompt length (padded),
L episode length so far (padded), H query heads, K key-value heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mtdrive.simulation.errors import MTDriveError

ATTENTION = "shared_prefix"
# What SDPA runs on a CPU, and its gradients; called as such, it also returns the log-sum-exp of the scores.
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _attention(module, query, key, value, attention_mask, *, scaling=None, segments=None, **kwargs):
    """Attention function of transformers: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D)."""
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if kwargs.get("sliding_window"):
        raise MTDriveError(f"{ATTENTION} attention has no sliding window; use shared_prefix=false for this model.")
    return segments.attend(module.layer_idx, query[0], key[0], value[0], scaling).unsqueeze(0), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def core(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model itself; adapters, if there are any, are layers inside it."""
    if not isinstance(model, PeftModel):
        return model
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel), f"Adapters of {type(base).__name__}, which is no transformers model."
    return base


def unsupported_reason(model: PreTrainedModel | PeftModel) -> str | None:
    """Why the text part of `model` cannot run `ATTENTION`, as "has layers of ...", or None where it can."""
    model = core(model)
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if other := sorted(set(kinds or ()) - {"full_attention"}):
        return f"has layers of {', '.join(other)}"
    if not kinds and getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"attends within a sliding window of {config.sliding_window} tokens"
    if getattr(config, "use_bidirectional_attention", None):
        return "lets prompt tokens see what follows them"
    if getattr(config, "attn_logit_softcapping", None):
        return "caps its attention scores"
    if not model.get_decoder()._can_set_attn_implementation():
        return "computes attention without transformers' attention interface"
    return None


def name_of(model: PreTrainedModel | PeftModel) -> str:
    """What a log calls the model."""
    return core(model).name_or_path or type(core(model)).__name__


def enable(model: PreTrainedModel | PeftModel) -> None:
    """Switch the text model of `model` to `ATTENTION` (the vision tower keeps its own)."""
    model = core(model)
    model.set_attn_implementation({"text_config": ATTENTION} if hasattr(model.config, "text_config") else ATTENTION)


class Segments(Protocol):
    """Says which packed token belongs to which prompt or episode, and so what it attends to."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer: query (H, T, D), key and value (K, T, D) -> (T, H, D)."""


def packed_inputs(ids: Sequence[int] | np.ndarray | Tensor, positions: Tensor, segments: Segments) -> dict[str, Any]:
    """Model inputs of a packed pass. ids: (T,). positions: (A, T), rotary axes A (3 for Qwen-VL, else 1)."""
    return {
        "input_ids": torch.as_tensor(ids, device=positions.device)[None],
        "position_ids": positions[:, None] if len(positions) > 1 else positions,
        # `segments` decides who sees whom; a mask with four axes keeps transformers from building its own.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=positions.device),
        "use_cache": False,
        "segments": segments,
    }


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


def _causal(rows: Rows, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention within each row; padding stands behind every real token and is therefore never seen."""
    groups = len(query) // len(key)
    key, value = repeat_kv(rows.pad(key), groups), repeat_kv(rows.pad(value), groups)
    return rows.unpad(scaled_dot_product_attention(rows.pad(query), key, value, is_causal=True, scale=scaling))


class _TwoParts(torch.autograd.Function):
    """Attention of episodes over their prompt and over themselves, computed apart and merged by log-sum-exp (CPU).

    query, key, value: packed episodes (H, T, D). prompt_key, prompt_value: (S, H, P, D). A scene's episodes are one run
    of queries, so that its prompt is read once for all of them. Each part's gradients follow from the merged result.
    """

    @staticmethod
    def forward(ctx, query, key, value, prompt_key, prompt_value, segments, scaling):
        shared, own = segments.scene_rows, segments.episodes
        parts = [
            (rows.unpad(out), rows.unpad(total[..., None]))
            for rows, (out, total) in (
                (shared, FLASH(shared.pad(query), prompt_key, prompt_value, attn_mask=segments.bias, scale=scaling)),
                (own, FLASH(own.pad(query), own.pad(key), own.pad(value), 0.0, True, scale=scaling)),
            )
        ]
        total = torch.logaddexp(parts[0][1], parts[1][1])  # (T, H, 1) float32
        out = sum(part * (of_part - total).exp() for part, of_part in parts).to(query.dtype)
        ctx.save_for_backward(query, key, value, prompt_key, prompt_value, out, total)
        ctx.segments, ctx.scaling = segments, scaling
        return out

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, prompt_key, prompt_value, out, total = ctx.saved_tensors
        segments, shared, own = ctx.segments, ctx.segments.scene_rows, ctx.segments.episodes

        def part(rows, key, value, causal, mask):
            padded = [rows.pad(x.transpose(0, 1)) for x in (gradient, out, total)]
            padded[0] = padded[0] * rows.valid[:, None, :, None]  # what fills a row up has no gradient
            arguments = (padded[0], rows.pad(query), key, value, padded[1], padded[2][..., 0], 0.0, causal)
            return FLASH_BACKWARD(*arguments, attn_mask=mask, scale=ctx.scaling)

        of_shared, *of_prompts = part(shared, prompt_key, prompt_value, False, segments.bias)
        of_own, *of_episodes = part(own, own.pad(key), own.pad(value), True, None)
        of_query = shared.unpad(of_shared) + own.unpad(of_own)
        of_episodes = (own.unpad(x).transpose(0, 1) for x in of_episodes)
        return of_query.transpose(0, 1), *of_episodes, *of_prompts, None, None


class TrainingSegments:
    """One pass over whole episodes: first all prompts, then all episodes, with gradients through both.

    prompt_lengths: (S,), without the last prompt token. episode_lengths: (N,), with it.
    scenes: (N,) the prompt of each episode, in increasing order, every prompt at least once.
    """

    def __init__(
        self,
        prompt_lengths: Sequence[int],
        episode_lengths: Sequence[int],
        scenes: Sequence[int],
        device: torch.device | str = "cpu",
    ):
        self.prompts = Rows(prompt_lengths, device=device)
        self.episodes = Rows(episode_lengths, device=device)
        self.scenes = torch.tensor(scenes, device=device)
        of_scene = [0] * len(prompt_lengths)
        for scene, length in zip(scenes, episode_lengths, strict=True):
            of_scene[scene] += length
        self.scene_rows = Rows(of_scene, device=device)
        self.bias: Tensor | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See `Segments.attend`."""
        split = [self.prompts.span.stop, self.episodes.span.stop]
        (prompt_query, query), (prompt_key, key), (prompt_value, value) = (
            x.split(split, 1) for x in (query, key, value)
        )
        prompts = _causal(self.prompts, prompt_query, prompt_key, prompt_value, scaling)
        context = (key, value, self.prompts.pad(prompt_key), self.prompts.pad(prompt_value))
        apart = query.device.type == "cpu" and query.dtype == value.dtype  # autocast mixes types
        return torch.cat([prompts, (self.apart if apart else self.joined)(query, *context, scaling)])

    def apart(self, query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor, scaling):
        """Episodes' queries (H, T, D), keys and values (K, T, D), prompts' (S, K, P, D) -> (T, H, D)."""
        if self.bias is None and not self.prompts.dense:
            visible = self.prompts.valid[:, None, None].expand(-1, -1, self.scene_rows.width, -1)
            self.bias = additive(visible, query.dtype)
        groups = len(query) // len(key)
        key, value = repeat_kv(key[None], groups)[0], repeat_kv(value[None], groups)[0]
        prompt_key, prompt_value = repeat_kv(prompt_key, groups), repeat_kv(prompt_value, groups)
        return _TwoParts.apply(query, key, value, prompt_key, prompt_value, self, scaling)

    def joined(self, query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor, scaling):
        """As `apart`, over a copy of each episode's whole context, on any device."""
        if self.bias is None:
            width = self.episodes.width
            causal = torch.ones(width, width, dtype=torch.bool, device=query.device).tril()
            prompt = self.prompts.valid[self.scenes, None].expand(-1, width, -1)
            visible = torch.cat([prompt, causal.expand(len(prompt), -1, -1)], -1)[:, None]  # (N, 1, L, P + L)
            self.bias = additive(visible, query.dtype)

        def context(prompts: Tensor, packed: Tensor) -> Tensor:
            whole = torch.cat([prompts.index_select(0, self.scenes), self.episodes.pad(packed)], 2)
            return repeat_kv(whole, len(query) // len(packed))

        key, value = context(prompt_key, key), context(prompt_value, value)
        out = scaled_dot_product_attention(self.episodes.pad(query), key, value, attn_mask=self.bias, scale=scaling)
        return self.episodes.unpad(out)


@dataclass
class LayerCache:
    """Keys and values of one layer: prompts (S, K, P, D) and episodes (N, K, capacity, D)."""

    prompt_key: Tensor
    prompt_value: Tensor
    key: Tensor
    value: Tensor


class PromptSegments:
    """The engine's first pass: prompts, without their last token, into the cache.

    Args:
        lengths: (S,) tokens of each prompt.
        group: episodes per prompt.

    Attributes:
        layers: filled by the pass, one per layer of the model, in order.
    """

    def __init__(self, lengths: Sequence[int], group: int, device: torch.device | str = "cpu"):
        self.rows, self.group = Rows(lengths, device=device), group
        self.layers: list[LayerCache] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See `Segments.attend`."""
        keys, values = self.rows.pad(key).contiguous(), self.rows.pad(value).contiguous()
        empty = keys.new_empty(len(keys) * self.group, keys.shape[1], 0, keys.shape[3])
        # Under autocast the rotary embedding leaves keys in float32 and values are in bfloat16.
        self.layers.append(LayerCache(keys, values, empty, empty.to(values.dtype)))
        return _causal(self.rows, query, key, value, scaling)


class EpisodeSegments:
    """New tokens of the active episodes, after what the cache holds of them.

    Args:
        layers: the cache; the pass writes the new keys and values behind the old ones.
        prompts: the prompts' rows.
        episode_index: (N,) int64 index of each active episode among all: scene * group + its place in the group.
        group: episodes per scene.
        lengths: (N,) int64 tokens already cached, of which `longest` is the largest.
        counts: new tokens per row.
    """

    def __init__(
        self,
        layers: list[LayerCache],
        prompts: Rows,
        episode_index: Tensor,
        group: int,
        lengths: Tensor,
        longest: int,
        counts: Sequence[int],
    ):
        self.layers, self.episode_index, self.group = layers, episode_index, group
        self.rows = Rows(counts, device=lengths.device)
        self.slots = lengths[:, None] + torch.arange(self.rows.width, device=lengths.device)  # (N, M)
        self.width = longest + self.rows.width
        own = torch.arange(self.width, device=lengths.device) <= self.slots[..., None]
        prompt = prompts.valid[episode_index // group, None].expand(-1, self.rows.width, -1)
        self.mask = torch.cat([prompt, own], -1)[:, None]  # (N, 1, M, P + L)
        self.bias: Tensor | None = None
        self.full = len(episode_index) == len(prompts.lengths) * group

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See `Segments.attend`."""
        cache = self.layers[layer]
        row = torch.arange(len(self.episode_index), device=query.device)[:, None]
        cache.key[row, :, self.slots] = self.rows.pad(key).transpose(1, 2)
        cache.value[row, :, self.slots] = self.rows.pad(value).transpose(1, 2)

        bias = self.bias
        if bias is None or bias.dtype != query.dtype:
            self.bias = bias = additive(self.mask, query.dtype)
        attend = self._one if self.rows.width == 1 else self._many
        return self.rows.unpad(attend(cache, self.rows.pad(query), bias, scaling))

    def _many(self, cache: LayerCache, query: Tensor, bias: Tensor, scaling: float) -> Tensor:
        """Queries (N, H, M, D) -> (N, H, M, D), over a copy of each episode's whole context."""
        scenes, groups = self.episode_index // self.group, query.shape[1] // cache.key.shape[1]
        key = torch.cat([cache.prompt_key.index_select(0, scenes), cache.key[:, :, : self.width]], 2)
        value = torch.cat([cache.prompt_value.index_select(0, scenes), cache.value[:, :, : self.width]], 2)
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling)

    def _one(self, cache: LayerCache, query: Tensor, bias: Tensor, scaling: float) -> Tensor:
        """Queries (N, H, 1, D) -> (N, H, 1, D), reading each prompt once for its whole group."""
        heads, size, split = cache.key.shape[1], query.shape[-1], cache.prompt_key.shape[2]
        query = (query * scaling).reshape(len(query), heads, -1, size)  # (N, K, H / K, D)
        own = torch.matmul(query, cache.key[:, :, : self.width].transpose(-1, -2))
        shared = self._over_prompts(query, cache.prompt_key.transpose(-1, -2))
        scores = torch.cat([shared, own], -1).add_(bias)
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
        out = torch.matmul(weights[..., split:], cache.value[:, :, : self.width])
        out += self._over_prompts(weights[..., :split], cache.prompt_value)
        return out.reshape(len(query), -1, 1, size)

    def _over_prompts(self, left: Tensor, right: Tensor) -> Tensor:
        """(N, K, Q, A) @ (S, K, A, B) -> (N, K, Q, B), reading each scene's matrix once for its whole group."""
        scenes, heads, inner, outer = right.shape
        queries = left.shape[2]
        if not self.full:
            left = left.new_zeros(scenes * self.group, *left.shape[1:]).index_copy_(0, self.episode_index, left)
        left = left.reshape(scenes, self.group, heads, queries, inner).transpose(1, 2)
        out = torch.matmul(left.reshape(scenes, heads, -1, inner), right)
        out = out.reshape(scenes, heads, self.group, queries, outer).transpose(1, 2)
        out = out.reshape(scenes * self.group, heads, queries, outer)
        return out if self.full else out.index_select(0, self.episode_index)


def keep(layers: list[LayerCache], rows: Tensor, capacity: int) -> None:
    """Keep the episodes `rows` of the cache, and make room for `capacity` tokens each."""
    for cache in layers:
        cache.key, cache.value = (
            pad(x.index_select(0, rows), (0, 0, 0, max(0, capacity - x.shape[2]))) for x in (cache.key, cache.value)
        )
