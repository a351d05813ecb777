"""What there is to show: an evaluation's episodes, a dataset's conversations, or plain trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtdrive.evaluation.tables import read_scores
from mtdrive.planner.answer import parse_answer
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import Source
from mtdrive.simulation.navsim_format.names import sample_id, scene_token
from mtdrive.simulation.runtime.json_files import read_json, read_json_lines
from mtdrive.simulation.submission.files import read_submission

OK = "ok"


@dataclass(frozen=True)
class TurnRecord:
    """One turn as recorded. poses: (T, 3), None if the answer holds no plan. score: None if it was not recorded."""

    poses: np.ndarray | None
    answer: str = ""
    status: str = OK
    score: float | None = None
    feedback: str = ""


@dataclass(frozen=True)
class EpisodeRecord:
    """Turns in one scene. name: unique in its recording. image: a file, None for the one that the scene names."""

    name: str
    token: str
    turns: tuple[TurnRecord, ...]
    family: str = ""
    status: str = ""
    image: Path | None = None


@dataclass(frozen=True)
class Recording:
    """Episodes, and how they were scored. source: of the feedback. interval: between the poses of plans [s]."""

    title: str
    split: str
    metric: str
    source: Source
    episodes: tuple[EpisodeRecord, ...]
    interval: float = 0.5

    def of(self, tokens: Sequence[str], limit: int | None) -> Recording:
        """The first `limit` episodes of the scenes `tokens`; of all scenes if none is named.

        Raises:
            MTDriveError: it does not have one of them.
        """
        if missing := sorted(set(tokens) - {episode.token for episode in self.episodes}):
            raise MTDriveError(f"{self.title} has no scene {', '.join(missing)}.")
        kept = [episode for episode in self.episodes if not tokens or episode.token in tokens]
        return replace(self, episodes=tuple(kept[:limit]))


def read_recording(path: Path) -> Recording:
    """A dataset of `mtdrive record` (a folder), or the episodes.jsonl of `mtdrive evaluate`.

    Raises:
        MTDriveError: it is neither, or damaged.
    """
    if (path / "manifest.json").is_file():
        return read_dataset(path)
    if path.is_file():
        return read_evaluation(path)
    raise MTDriveError(f"{path} is neither an episodes.jsonl of mtdrive evaluate nor a dataset of mtdrive record.")


def read_evaluation(path: Path) -> Recording:
    """Episodes with what summary.json and scores.csv beside them tell of the split, the metric and the families."""
    try:
        provenance = read_json(path.parent / "summary.json")["provenance"]
        scores = read_scores(path.parent / "scores.csv")
        families = scores.groupby("token").family.first()
        episodes = tuple(
            EpisodeRecord(
                scene_token(line["token"]),
                line["token"],
                tuple(_evaluated(turn) for turn in line["turns"]),
                families[line["token"]],
                line["status"],
            )
            for line in read_json_lines(path)
        )
        return Recording(
            title=f"Evaluation {path.parent.name}, split {provenance['split']}",
            split=provenance["split"],
            metric=provenance["metric"],
            source=provenance["feedback"],
            episodes=episodes,
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise MTDriveError(
            f"{path} does not read as an episodes.jsonl with its summary.json and scores.csv beside it "
            f"({type(error).__name__}: {error}); run mtdrive evaluate again."
        ) from error


def _evaluated(turn: dict[str, Any]) -> TurnRecord:
    return TurnRecord(
        parse_answer(turn["answer"]).poses, turn["answer"], turn["status"], turn["score"], turn["feedback"]
    )


def read_dataset(root: Path) -> Recording:
    """The samples of a dataset, in its order; the plans that a question is about stand as turns, too."""
    from mtdrive.datasets.reader import (
        image_file,
        load_samples,
        read_manifest,
    )  # need Hugging Face datasets; scoring does not

    samples, split = load_samples(root), read_manifest(root)["split"]
    if not len(samples) or "plans" not in samples.column_names:
        raise MTDriveError(f"{root} holds no sample of this version of mtdrive record; record it again.")
    return Recording(
        title=f"Dataset {root.name}, split {split}",
        split=split,
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
    answers, told = ([text for role, text in texts if role == who] for who in ("assistant", "user"))
    if sample["verdict"]:
        silent = [""] * (len(sample["plans"]) - 1)
        answers, told = silent + answers, silent + told
    else:
        told = [*told[1:], ""]  # the first is the prompt
    return tuple(
        TurnRecord(np.array(plan), answer, score=score, feedback=feedback)
        for plan, score, answer, feedback in zip(sample["plans"], sample["scores"], answers, told, strict=True)
    )


def read_trajectories(path: Path, split: str, metric: str) -> Recording:
    """A file of trajectories as `mtdrive score` takes it; a scene's rows are its turns."""
    submission = read_submission(path)
    turns: dict[str, list[TurnRecord]] = {}
    for token, poses in zip(submission.tokens.tolist(), submission.poses, strict=True):
        turns.setdefault(token, []).append(TurnRecord(poses))
    return Recording(
        title=f"{path.name}, split {split}",
        split=split,
        metric=metric,
        source="privileged",
        episodes=tuple(EpisodeRecord(scene_token(token), token, tuple(rows)) for token, rows in turns.items()),
        interval=submission.interval,
    )


def scenes_alone(tokens: Iterable[str], split: str, metric: str) -> Recording:
    """Scenes without any turn."""
    return Recording(f"Split {split}", split, metric, "privileged", tuple(EpisodeRecord(t, t, ()) for t in tokens))
