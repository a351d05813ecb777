"""What there is to show: an evaluation's episodes, a dataset's conversations, or plain trajectories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtdrive.rollout.episode import Turn
from mtdrive.rollout.episode_file import read_episodes
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import Source
from mtdrive.simulation.navsim_format.names import sample_id, scene_token
from mtdrive.simulation.navsim_format.scene_filter import SceneSet
from mtdrive.simulation.submission.files import read_submission

OK = "ok"


@dataclass(frozen=True)
class TurnRecord:
    """One turn as recorded."""

    poses: np.ndarray | None
    """(T, 3) the plan: x [m], y [m], heading [rad] in the ego frame at t0; None if the answer holds no plan."""
    answer: str = ""
    """The planner's text; empty if only its plan is known."""
    status: str = OK
    """"ok", or why the answer gave no score."""
    score: float | None = None
    """Score of the plan in [0, 1]; None if it was not recorded."""
    feedback: str = ""
    """Feedback on the plan as the planner read it."""
    name: str = ""
    """What it is called, where it is not a turn but, say, another planner's plan; empty for "turn 1", "turn 2", ..."""


@dataclass(frozen=True)
class EpisodeRecord:
    """The turns of one episode in one scene."""

    name: str
    """Name that is unique in its recording and can be a file's."""
    token: str
    """Token of the scene."""
    turns: tuple[TurnRecord, ...]
    """The turns, first to last."""
    family: str = ""
    """Family of the scene; empty if it is not known."""
    status: str = ""
    """How the episode ended, or the kind of a dataset's sample."""
    image: Path | None = None
    """File of the front image; None for the one that the scene names."""


@dataclass(frozen=True)
class Recording:
    """Episodes to show, and how they were scored."""

    title: str
    """What they come from, as a heading."""
    scene_set: SceneSet
    """Which scenes they are some of."""
    metric: str
    """Score version, such as "pdms_v1"."""
    source: Source
    """Source of the feedback."""
    episodes: tuple[EpisodeRecord, ...]
    """The episodes, in the order of the file."""
    interval: float = 0.5
    """Time between two poses of a plan [s]."""

    def of(self, tokens: Sequence[str], limit: int | None) -> Recording:
        """The first `limit` episodes of the scenes `tokens`; of all scenes if none is named.

        Raises:
            MTDriveError: one of the scenes is not in the recording.
        """
        if missing := sorted(set(tokens) - {episode.token for episode in self.episodes}):
            raise MTDriveError(f"{self.title} has no scene {', '.join(missing)}.")
        kept = [episode for episode in self.episodes if not tokens or episode.token in tokens]
        return replace(self, episodes=tuple(kept[:limit]))


def read_recording(path: Path) -> Recording:
    """A dataset of `mtdrive record` (a folder), or a file of episodes of `mtdrive evaluate`.

    Raises:
        MTDriveError: it is neither, or damaged.
    """
    if (path / "manifest.json").is_file():
        return read_dataset(path)
    if path.is_file():
        return read_evaluation(path)
    raise MTDriveError(f"{path} is neither an episodes.jsonl of mtdrive evaluate nor a dataset of mtdrive record.")


def read_evaluation(path: Path) -> Recording:
    """The episodes of a file that `mtdrive evaluate` wrote. Raises MTDriveError as `read_episodes`."""
    header, episodes = read_episodes(path)
    return Recording(
        title=f"Evaluation {path.parent.name}, {header.scene_set.name}",
        scene_set=header.scene_set,
        metric=header.metric,
        source=header.feedback_source,
        episodes=tuple(
            EpisodeRecord(
                episode.scene_token,
                episode.scene_token,
                tuple(_evaluated(turn) for turn in episode.turns),
                episode.family,
                episode.status,
            )
            for episode in episodes
        ),
    )


def last_plan(record: EpisodeRecord, name: str) -> TurnRecord:
    """The turn whose plan an episode ends with, the last that has a score, under a name; without any, the last turn."""
    scored = [turn for turn in record.turns if turn.status == OK]
    return replace((scored or record.turns)[-1], name=name)


def _evaluated(turn: Turn) -> TurnRecord:
    score = None if math.isnan(turn.score) else turn.score
    return TurnRecord(turn.poses, turn.text, turn.status, score, turn.feedback_text)


def read_dataset(root: Path) -> Recording:
    """The samples of a dataset, in its order; the plans that a question is about stand as turns, too."""
    # Datasets need Hugging Face's library; evaluations and trajectories do not.
    from mtdrive.datasets.reader import image_file, load_samples, read_manifest, scene_set_of

    samples, scenes = load_samples(root), scene_set_of(read_manifest(root), root)
    if not len(samples) or "plans" not in samples.column_names:
        raise MTDriveError(f"{root} holds no sample of this version of mtdrive record; record it again.")
    return Recording(
        title=f"Dataset {root.name}, {scenes.name}",
        scene_set=scenes,
        metric=samples[0]["metric"],
        source=samples[0]["feedback"],
        episodes=tuple(
            EpisodeRecord(
                sample_id(sample["id"]),
                sample["token"],
                _recorded(sample),
                sample["family"],
                sample["kind"],
                image_file(root, sample["image"]),
            )
            for sample in samples
        ),
    )


def _recorded(sample: dict[str, Any]) -> tuple[TurnRecord, ...]:
    """A turn for each plan: with the model's answer and the user's next message as its feedback; of a question, the
    last plan has the question as feedback and its answer."""
    texts = [
        (message["role"], "\n".join(part["text"] for part in message["content"] if part["type"] == "text"))
        for message in sample["messages"]
    ]
    answers, messages = ([text for role, text in texts if role == who] for who in ("assistant", "user"))
    if sample["verdict"]:
        silent = [""] * (len(sample["plans"]) - 1)
        answers, messages = silent + answers, silent + messages
    else:
        messages = [*messages[1:], ""]  # the first is the prompt
    return tuple(
        TurnRecord(np.array(plan), answer, score=score, feedback=feedback)
        for plan, score, answer, feedback in zip(sample["plans"], sample["scores"], answers, messages, strict=True)
    )


def read_trajectories(path: Path, scenes: SceneSet, metric: str) -> Recording:
    """A file of trajectories as `mtdrive score` takes it; a scene's rows are its turns."""
    submission = read_submission(path)
    turns: dict[str, list[TurnRecord]] = {}
    for token, poses in zip(submission.tokens.tolist(), submission.poses, strict=True):
        turns.setdefault(token, []).append(TurnRecord(poses))
    return Recording(
        title=f"{path.name}, {scenes.name}",
        scene_set=scenes,
        metric=metric,
        source="privileged",
        episodes=tuple(EpisodeRecord(scene_token(token), token, tuple(rows)) for token, rows in turns.items()),
        interval=submission.interval,
    )


def scenes_alone(tokens: Iterable[str], scenes: SceneSet, metric: str) -> Recording:
    """Scenes without any turn."""
    return Recording(scenes.name, scenes, metric, "privileged", tuple(EpisodeRecord(t, t, ()) for t in tokens))
