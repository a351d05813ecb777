"""What a rollout is compared with: one ordinary forward pass of the model."""

import numpy as np
import torch

from mtdrive.rollout.encoding import takes_token_types
from mtdrive.rollout.sampling import SamplingParams


def plain_log_probs(planner, params: SamplingParams, prompt, ids: np.ndarray) -> torch.Tensor:
    """Of each of `ids` after the prompt, by one ordinary forward pass of the model."""
    whole = torch.from_numpy(np.concatenate([prompt.ids, ids]))[None]
    types = torch.zeros_like(whole)
    types[0, : len(prompt.ids)] = torch.from_numpy(prompt.token_types)
    inputs = {"mm_token_type_ids": types} if takes_token_types(planner.model) else {}
    with torch.no_grad():
        logits = planner.model(input_ids=whole, attention_mask=torch.ones_like(whole), **inputs, **prompt.images).logits
    return params.log_probs(logits[0, len(prompt.ids) - 1 : -1]).gather(-1, torch.from_numpy(ids)[:, None])[:, 0]
