"""What can be said of a planner in `configs/planner`. Needs no torch, so that a wrong value is refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from mtdrive.simulation.errors import MTDriveError

LARGEST = 1 << 20  # of any size


@dataclass(frozen=True)
class PlannerSettings:
    """Which planner, and how it is loaded. None leaves a value to the card in its folder."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, Field(min_length=1)]
    """`tiny` or `step_flash_tiny` for a new planner with random weights, a Hugging Face name, or a folder."""

    subfolder: Annotated[str, Field(min_length=1)] | None
    """Folder in `model` that holds the weights; where `model` is itself a folder of weights, it is not looked for."""

    prompt: str | None
    """Name of the prompt style (`prompt.PROMPTS`)."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None
    """Most tokens of one answer."""

    device: str
    """Torch device, or `auto`."""

    dtype: Literal["float32", "bfloat16", "float16"] | None
    """Name of the torch type of the weights."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of the random weights of a new planner."""

    lora: Mapping[str, Any] | None
    """Keys of peft's LoraConfig; None trains all weights, or the adapter that the folder holds."""

    tiny: TinyArchitecture | None
    """Sizes of a new `tiny` planner."""

    step_flash: StepFlashArchitecture | None
    """Sizes of a new `step_flash_tiny` planner."""

    allow_misfit: bool
    """Whether to go on although the planner has learned something else than is asked for (`fits`)."""

    @property
    def name(self) -> str:
        """What reports and messages call the planner."""
        return f"{self.model}/{self.subfolder}" if self.subfolder else self.model


@dataclass(frozen=True)
class TinyArchitecture:
    """Sizes of the tiny planner."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    hidden_size: int
    """Width of the language model, whose input and output embeddings are tied."""

    layers: int
    """Layers of the language model."""

    heads: int
    """Attention heads of each of its layers."""

    mlp_size: int
    """Hidden width of its feed-forward blocks."""

    vision_size: int
    """Width of the vision tower."""

    vision_layers: int
    """Layers of the vision tower."""

    vision_heads: int
    """Attention heads of each of its layers."""

    vision_mlp_size: int
    """Hidden width of its feed-forward blocks."""

    patch_size: int
    """Side of an image patch [px]; an image token covers 2 x 2 patches."""

    image_pixels: int
    """Most pixels of the resized image."""

    initializer_range: float
    """Standard deviation of the random weights."""

    def __post_init__(self) -> None:
        """Raises MTDriveError for values that no model can have."""
        _check_sizes("planner.tiny", vars(self), {"hidden_size": ("heads", 2), "vision_size": ("vision_heads", 4)})


@dataclass(frozen=True)
class StepFlashArchitecture:
    """Sizes of a planner with the architecture of Step 3.5 Flash."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    hidden_size: int
    """Width of the language model, whose input and output embeddings are tied."""

    layers: int
    """Layers of the language model."""

    full_attention_every: int
    """Layers from one with full attention, the first, to the next; those between attend within the window. 1: none."""

    sliding_window: int
    """Tokens that a sliding layer attends to, the token itself among them."""

    heads: int
    """Query heads of a layer with full attention."""

    sliding_heads: int
    """Query heads of a sliding layer."""

    key_value_heads: int
    """Key-value heads of every layer."""

    head_size: int
    """Width of a head."""

    mlp_size: int
    """Hidden width of the feed-forward block of a dense layer."""

    dense_layers: int
    """First layers, which have no experts."""

    experts: int
    """Routed experts of each other layer."""

    experts_per_token: int
    """Routed experts that a token goes to, beside the shared one."""

    expert_size: int
    """Hidden width of an expert, routed or shared."""

    clamped_layers: int
    """Last layers, in which SwiGLU is clamped."""

    draft_heads: int
    """Heads that predict the tokens after the next one, to draft with; 0: none."""

    vision_size: int
    """Width of the vision tower."""

    vision_layers: int
    """Layers of the vision tower."""

    vision_heads: int
    """Attention heads of each of its layers."""

    vision_mlp_size: int
    """Hidden width of its feed-forward blocks."""

    patch_size: int
    """Side of an image patch [px]; an image token covers 4 x 4 patches."""

    image_width: int
    """Width of the resized image [px]."""

    image_height: int
    """Height of the resized image [px]."""

    initializer_range: float
    """Standard deviation of the random weights."""

    def __post_init__(self) -> None:
        """Raises MTDriveError for values that no model can have."""
        multiples: dict[str, tuple[str | None, int]] = {"head_size": (None, 4), "vision_size": ("vision_heads", 4)}
        multiples |= dict.fromkeys(("heads", "sliding_heads"), ("key_value_heads", 1))
        multiples |= dict.fromkeys(("image_width", "image_height"), ("patch_size", 1))
        sizes = dict(vars(self))
        drafts = sizes.pop("draft_heads")
        _check_sizes("planner.step_flash", sizes, multiples)
        if type(drafts) is not int or not 0 <= drafts <= LARGEST:
            raise MTDriveError(f"planner.step_flash.draft_heads={drafts} must be a whole number from 0 to {LARGEST}.")
        for part, whole in (("experts_per_token", "experts"), ("dense_layers", "layers"), ("clamped_layers", "layers")):
            if getattr(self, part) > getattr(self, whole):
                raise MTDriveError(
                    f"planner.step_flash.{part}={getattr(self, part)} must not be more than "
                    f"planner.step_flash.{whole}={getattr(self, whole)}."
                )
        if drafts > self.layers - self.clamped_layers:  # transformers clamps head k as it does layer k
            raise MTDriveError(
                f"planner.step_flash.draft_heads={drafts} must not be more than the layers that are not clamped, "
                f"planner.step_flash.layers={self.layers} less planner.step_flash.clamped_layers={self.clamped_layers}."
            )


def _check_sizes(key: str, values: Mapping[str, Any], multiples: Mapping[str, tuple[str | None, int]]) -> None:
    """Refuse sizes that no model can have.

    Args:
        key: that the values are given under, for messages.
        values: positive whole numbers, and `initializer_range` between 0 and 1.
        multiples: of which other size, times which number, a size must be a multiple; None: of the number alone.
    """
    sizes = dict(values)
    spread = sizes.pop("initializer_range")
    if not isinstance(spread, float) or not 0.0 < spread < 1.0:
        raise MTDriveError(f"{key}.initializer_range={spread} must be a number between 0 and 1.")
    for name, value in sizes.items():
        if type(value) is not int or not 0 < value <= LARGEST:
            raise MTDriveError(f"{key}.{name}={value} must be a whole number from 1 to {LARGEST}.")
    for name, (of, times) in multiples.items():
        if sizes[name] % (times * (sizes[of] if of else 1)):
            other = f"{key}.{of}={sizes[of]}" if of else ""
            wanted = f"{times} times {other}" if of and times > 1 else other or str(times)
            raise MTDriveError(f"{key}.{name}={sizes[name]} must be a multiple of {wanted}.")
