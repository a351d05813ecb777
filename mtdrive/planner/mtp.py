"""Multi-token prediction: small heads that guess the tokens after the next one (Step 3.5 Flash, arXiv 2602.10604).

Each head is transformers' `MtpLayer`: norms of its two inputs, a projection of both, one decoder layer and a norm.
Head k (from 0) takes, at position i, the hidden state of the head before it (head 0: the model's last, after its norm)
and the embedding of token i + k + 1, and predicts token i + k + 2. Embedding and language-model head are the model's.

Heads are no part of the model: they never reach its gradients. On disk they are, as in released checkpoints: head k is
layer N + k of a model of N layers, which transformers' `MtpModel.from_pretrained` reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from transformers import PreTrainedModel
from transformers.modeling_layers import MtpLayer, MtpModel

from mtdrive.planner.pretrained import reading
from mtdrive.simulation.errors import MTDriveError

BLOCK = "mtp_block."  # what MtpLayer calls its decoder layer; released checkpoints leave the name out


class DraftHeads(nn.Module):
    """The heads of a model, with random weights until others are loaded.

    Args:
        model: a transformers model whose text configuration has `num_nextn_predict_layers` heads. Their query heads by
            kind of layer are written in its configuration if it does not name them, as that of released weights.

    Attributes:
        layers: the heads, whose attention has the index N + k of its layer, so that caches by layer do not collide.
        kinds: of their attention, `sliding_attention` or `full_attention`.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        text = model.config.get_text_config()
        decoder: Any = model.get_decoder()
        _name_query_heads(text)
        config = model.config.get_mtp_config()
        layer_class, norm_class = type(decoder.layers[-1]), type(decoder.norm)
        self.kinds: list[str] = list(config.layer_types)
        layers = [MtpLayer(config, layer_class, norm_class, depth) for depth in range(len(self.kinds))]
        self.layers = nn.ModuleList(layers)
        for depth, layer in enumerate(layers):
            attention: Any = layer.mtp_block.self_attn
            attention.layer_idx = text.num_hidden_layers + depth
            attention.config = text  # which attention function to call, as `set_attn_implementation` leaves it
        self.apply(model._init_weights)
        self._main = (model,)  # in a tuple, so that its parameters are not ours

    @property
    def model(self) -> PreTrainedModel:
        """Whose heads they are."""
        return self._main[0]

    def step(self, depth: int, hidden: Tensor, ids: Tensor, position_ids: Tensor, **attention: Any) -> Tensor:
        """Run one head.

        Args:
            depth: of the head, from 0.
            hidden: (B, L, D) of the head before it; for head 0 the model's last, after its norm.
            ids: (B, L) int64, the token `depth` + 1 places after each position.
            position_ids: (B, L) int64 of the positions; only their differences matter.
            attention: keyword arguments for the decoder layer, of which `attention_mask` and all that the layer does
                not know reach the attention function unchanged.

        Returns:
            (B, L, D) for `logits` and for the next head.
        """
        decoder: Any = self.model.get_decoder()
        kind = self.kinds[depth]
        embedded = embedding(ids, decoder.get_input_embeddings().weight.detach())
        rope = decoder.config.rope_parameters or {}
        by_kind = {"layer_type": kind} if isinstance(rope.get(kind), dict) else {}
        arguments: dict[str, Any] = {"attention_mask": None, "past_key_values": None, **attention}
        rotary = decoder.rotary_emb(embedded, position_ids, **by_kind)
        return self.layers[depth](embedded, hidden, position_embeddings=rotary, position_ids=position_ids, **arguments)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) from `step` -> (..., V), by the model's language-model head, which gets no gradient."""
        return linear(hidden, self.model.get_output_embeddings().weight.detach())

    def saved_weights(self) -> dict[str, Tensor]:
        """The heads' weights under the names that they have in a state dict of the model to be saved."""
        decoder, first = self.model.get_decoder(), self.model.config.get_text_config().num_hidden_layers
        (prefix,) = (name for name, module in self.model.named_modules() if module is decoder)
        return {
            f"{prefix}.layers.{first + depth}.{name.removeprefix(BLOCK)}": weight
            for depth, layer in enumerate(self.layers)
            for name, weight in layer.state_dict().items()
        }

    def load(self, name: str | Path) -> None:
        """Take the weights of a folder or Hugging Face name that holds the model with its heads.

        Raises:
            MTDriveError: they cannot be read, or one is missing or of another shape.
        """
        with reading("draft heads of planner", name):
            weights = _read(self.model, name).state_dict()
        self.load_state_dict({key: weight for key, weight in weights.items() if key.startswith("layers.")})


def has_draft_heads(model: PreTrainedModel) -> bool:
    """Whether the configuration of `model` says that it comes with heads."""
    return bool(getattr(model.config.get_text_config(), "num_nextn_predict_layers", 0))


def _read(model: PreTrainedModel, name: str | Path) -> MtpModel:
    """The heads of `model` in a folder or under a Hugging Face name."""
    config = model.config
    before = config.name_or_path, config.dtype
    config.name_or_path, config.dtype = str(name), model.dtype  # from where transformers reads, and as what
    try:
        return MtpModel.from_pretrained(model)
    except RuntimeError as error:
        raise MTDriveError(
            f"Planner {str(name)!r} lacks a weight of its {config.get_text_config().num_nextn_predict_layers} draft "
            "heads, or has one of another shape; copy it again, whole, or set num_nextn_predict_layers in its "
            "config.json to 0."
        ) from error
    finally:
        config.name_or_path, config.dtype = before


def _name_query_heads(text: Any) -> None:
    """Write the query heads of sliding heads, of which `step3p7` has more, where `get_mtp_config` looks for them."""
    sliding = getattr(text, "num_sliding_attention_heads", None)
    if sliding is not None and getattr(text, "mtp_per_layer_config", None) is None:
        text.mtp_per_layer_config = {
            depth: {"num_attention_heads": sliding}
            for depth, kind in enumerate(text.mtp_layer_types)
            if kind == "sliding_attention"
        }
