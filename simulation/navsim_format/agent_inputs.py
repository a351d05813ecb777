"""What an agent is given of a scene (navsim `AgentInput`): four frames up to t0, without map, annotations and future.

Private test splits hold nothing else: their logs have no `anns`, and four or five frames a scene (navsim v1.1
`private_test_e2e.yaml`, v2.2 `dataloader_private.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.logs import NUM_HISTORY, Frame
from mtdrive.simulation.navsim_format.names import scene_token
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.navsim_format.scene_filter import SceneFilter
from mtdrive.simulation.navsim_format.synthetic_scenes import CLASSES, stored_frame

History = Sequence[Frame]  # the 4 frames up to t0

_REQUIRED = {
    "token",
    "ego2global_translation",
    "ego2global_rotation",
    "ego_dynamic_state",
    "driving_command",
    "cams",
}


def recorded_histories(data_root: Path | str, scenes: SceneFilter) -> Iterator[tuple[str, History]]:
    """Scenes of a filter, log by log: token and frames up to t0.

    Logs with annotations give the scenes of `logs.scene_windows`, as when they are compiled. Of logs without, or where
    the filter asks for no future, every frame is one that three of its own scene precede.

    Raises:
        MTDriveError: there is no such data split, or a log does not read.
    """
    tokens = None if scenes.tokens is None else frozenset(scenes.tokens)
    for name in scenes.selected(logs.log_names(data_root, scenes.data_split)):
        frames = logs.read_log(logs.log_path(data_root, scenes.data_split, name), _REQUIRED)
        if scenes.num_future < logs.LEAST_FUTURE or not any("anns" in frame for frame in frames):
            yield from _private_histories(frames, tokens)
            continue
        windows = logs.scene_windows(
            frames,
            tokens,
            scenes.frame_interval,
            scenes.num_future,
            scenes.has_route,
            across_gaps=scenes.file is not None,
        )
        yield from ((token, window[:NUM_HISTORY]) for token, window in windows.items())


def synthetic_histories(folder: Path | str, tokens: Collection[str] | None = None) -> Iterator[tuple[str, History]]:
    """Synthetic second-stage scenes of a folder of pickles: token (navsim's `initial_token`) and frames up to t0.

    Raises:
        MTDriveError: there is no such folder, or a file in it is no synthetic scene.
    """
    source = Path(folder)
    if not source.is_dir():
        raise MTDriveError(f"There is no folder {source}; check synthetic_scenes.")
    for path in sorted(source.glob("*.pkl")):
        for token, frames in _synthetic(path):
            if tokens is None or token in tokens:
                yield token, frames


def _synthetic(path: Path) -> Iterator[tuple[str, History]]:
    content = load_pickle(path, kind="synthetic scene", classes=CLASSES)
    try:
        if isinstance(content, list):
            yield from _private_histories(content, None)
            return
        metadata = content["scene_metadata"]
        frames = [stored_frame(frame, metadata) for frame in content["frames"][:NUM_HISTORY]]
        token = scene_token(metadata["initial_token"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MTDriveError(f"{path} is no synthetic scene of navsim ({type(error).__name__}: {error}).") from None
    if metadata.get("num_history_frames") != NUM_HISTORY or len(frames) < NUM_HISTORY:
        raise MTDriveError(f"{path} does not hold {NUM_HISTORY} frames up to t0.")
    yield token, frames


def _private_histories(frames: Sequence[Frame], tokens: Collection[str] | None) -> Iterator[tuple[str, History]]:
    scenes: dict[str, list[Frame]] = {}
    for frame in frames:
        scenes.setdefault(str(frame.get("scene_token")), []).append(frame)
    for scene in scenes.values():
        if all(isinstance(frame.get("frame_idx"), int) for frame in scene):
            scene.sort(key=lambda frame: frame["frame_idx"])
        for end in range(NUM_HISTORY, len(scene) + 1):
            token = scene_token(scene[end - 1]["token"])
            if tokens is None or token in tokens:
                yield token, scene[end - NUM_HISTORY : end]
