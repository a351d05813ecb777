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
    """`tiny` for a new tiny planner, a Hugging Face name, or a folder."""

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
    """Sizes of a new tiny planner."""

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
        sizes = vars(self).copy()
        spread = sizes.pop("initializer_range")
        if not isinstance(spread, float) or not 0.0 < spread < 1.0:
            raise MTDriveError(f"planner.tiny.initializer_range={spread} must be a number between 0 and 1.")
        for name, value in sizes.items():
            if type(value) is not int or not 0 < value <= LARGEST:
                raise MTDriveError(f"planner.tiny.{name}={value} must be a whole number from 1 to {LARGEST}.")
        for size, heads, dimensions in (("hidden_size", "heads", 2), ("vision_size", "vision_heads", 4)):
            if getattr(self, size) % (dimensions * getattr(self, heads)):
                raise MTDriveError(
                    f"planner.tiny.{size}={getattr(self, size)} must be a multiple of {dimensions} times "
                    f"planner.tiny.{heads}={getattr(self, heads)}."
                )
