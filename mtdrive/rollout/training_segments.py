"""A training pass over the episodes of some scenes, in which each scene's prompt stands once.

Letters in shapes: as in `shared_prefix`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

from mtdrive.rollout.row_attention import Rows, SlidingWindow, additive, causal

# What SDPA runs on a CPU, and its gradients; called as such, it also returns the log-sum-exp of the scores.
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


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
        self.longest = max(prompt_lengths[s] + length for s, length in zip(scenes, episode_lengths, strict=True))
        self.windows: dict[int, _Window] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """See `Segments.attend`."""
        split = [self.prompts.span.stop, self.episodes.span.stop]
        (prompt_query, query), (prompt_key, key), (prompt_value, value) = (
            x.split(split, 1) for x in (query, key, value)
        )
        if window is not None and window < self.longest:
            if window not in self.windows:
                self.windows[window] = _Window(self, window)
            within = self.windows[window]
            prompts = within.prompts(prompt_query, prompt_key, prompt_value, scaling)
            return torch.cat([prompts, within.episodes(query, key, value, prompt_key, prompt_value, scaling)])
        prompts = causal(self.prompts, prompt_query, prompt_key, prompt_value, scaling)
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


class _Window:
    """Layers of a pass that attend within a window: of the prompt, an episode sees no more than the end."""

    def __init__(self, segments: TrainingSegments, window: int):
        self._prompts, self._episodes = segments.prompts, segments.episodes
        tails, held = (x[segments.scenes] for x in self._prompts.tails(window - 1))
        self._tails, nothing = tails, held.new_zeros(len(self._prompts.lengths), 0)
        self._within_prompts = SlidingWindow(self._prompts.width, nothing, window)
        self._within_episodes = SlidingWindow(self._episodes.width, held, window)

    def prompts(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Packed prompts, query (H, T, D), key and value (K, T, D) -> (T, H, D)."""
        query, key, value = (self._prompts.pad(x) for x in (query, key, value))
        return self._prompts.unpad(self._within_prompts.attend(query, key, value, scaling))

    def episodes(self, query: Tensor, key: Tensor, value: Tensor, prompt_key: Tensor, prompt_value: Tensor, scaling):
        """Packed episodes, query (H, T, D), key and value (K, T, D), and packed prompts (K, T, D) -> (T, H, D)."""
        key, value = self._context(prompt_key, key), self._context(prompt_value, value)
        return self._episodes.unpad(self._within_episodes.attend(self._episodes.pad(query), key, value, scaling))

    def _context(self, prompts: Tensor, packed: Tensor) -> Tensor:
        """The end of each episode's prompt and the episode (N, K, F + L, D)."""
        tails = prompts.index_select(1, self._tails.flatten()).unflatten(1, self._tails.shape).transpose(0, 1)
        return torch.cat([tails, self._episodes.pad(packed)], 2)
