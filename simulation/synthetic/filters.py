"""Scene filters as navsim ships them: Hydra configs of the group `train_test_split`, and of `scene_filter` under it.

navsim's own scripts find them with `hydra.searchpath=[file://FOLDER]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

Group = tuple[str, str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class FilterFile:
    """A named selection of scenes."""

    name: str
    """Name of the filter and of both its files."""

    data_split: str
    """Folder of `navsim_logs` and `sensor_blobs` that it selects from."""

    log_names: Sequence[str]
    """Names of the logs."""

    tokens: Sequence[str]
    """Tokens of the recorded scenes."""

    num_future: int = 10
    """Frames after t0."""

    synthetic_tokens: Sequence[str] | None = None
    """Tokens of the second-stage scenes; None in a filter of one stage."""

    mapping: Sequence[Group] = ()
    """navsim's `reactive_all_mapping`: a scene, the scene 0.5 s before it, and both again for each second stage."""


def write_filter(folder: Path, content: FilterFile) -> None:
    """Write `train_test_split/<name>.yaml` and `train_test_split/scene_filter/<name>.yaml` under a folder."""
    split = ["defaults:", f"- scene_filter: {content.name}", f"data_split: {content.data_split}"]
    lines = [
        "_target_: navsim.common.dataclasses.SceneFilter", "_convert_: all", "num_history_frames: 4",
        f"num_future_frames: {content.num_future}", "frame_interval: 1", "has_route: true", "max_scenes: null",
        *_texts("log_names", content.log_names), *_texts("tokens", content.tokens),
    ]  # fmt: skip
    if content.synthetic_tokens is not None:
        lines.append("include_synthetic_scenes: true")
        lines += _texts("reactive_synthetic_initial_tokens", content.synthetic_tokens)
        split += ["reactive_all_mapping:", *(f"- {json.dumps(group)}" for group in content.mapping)]
    group = folder / "train_test_split"
    (group / "scene_filter").mkdir(parents=True, exist_ok=True)
    (group / f"{content.name}.yaml").write_text("\n".join(split) + "\n")
    (group / "scene_filter" / f"{content.name}.yaml").write_text("\n".join(lines) + "\n")


def _texts(key: str, values: Iterable[str]) -> list[str]:
    """A list of quoted texts; YAML takes a bare 7186e23637965344 for a number."""
    items = [f"- '{value}'" for value in values]
    return [f"{key}:", *items] if items else [f"{key}: []"]
