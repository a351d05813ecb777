"""Episodes on disk: what is written is read back, and what does not fit is refused by file and line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.episode_file import EpisodesHeader, read_episodes, write_episodes
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import all_windows

HEADER = EpisodesHeader(
    "tiny", "released", all_windows("test").scene_set, "pdms_v1", 1, "privileged", False, 3, 0.7, 0, 1
)
POSES = np.arange(24.0).reshape(8, 3) / 7

numbers = st.floats(allow_nan=False, allow_infinity=False)
scores = st.floats(0, 1)
tokens = st.integers(0, 150_000)


@st.composite
def turns(draw) -> Turn:
    status = draw(st.sampled_from(TurnStatus))
    planned = status is TurnStatus.OK or draw(st.booleans())
    ids = draw(st.lists(tokens, max_size=5))
    return Turn(
        delta_ids=np.array(draw(st.lists(tokens, max_size=5)), np.int64),
        completion_ids=np.array(ids, np.int64),
        log_probs=np.array([draw(st.floats(-100, 0, width=32)) for _ in ids], np.float32),
        text=draw(st.text()),
        status=status,
        reward=draw(st.one_of(numbers, st.just(np.nan))),
        feedback_text=draw(st.text()),
        error=draw(st.none() | st.text()),
        poses=np.array(draw(st.lists(numbers, min_size=24, max_size=24))).reshape(8, 3) if planned else None,
        score=draw(scores) if status is TurnStatus.OK else np.nan,
        scores=draw(st.dictionaries(st.text(), st.one_of(scores, st.just(np.nan)), max_size=3)),
        extended_comfort=draw(st.sampled_from([0.0, 1.0, np.nan])),
        clean=draw(st.booleans()),
        weights_version=draw(st.none() | st.integers(0)),
    )


def agree(first: object, second: object) -> None:
    """Equal field by field, to the last bit and by type, where NaN equals NaN."""
    for field in fields(Turn):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
        np.testing.assert_equal(other, one, field.name)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(turns(), min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_what_is_written_is_read_back(tmp_path_factory, all_turns, data):
    path = tmp_path_factory.mktemp("episodes") / "episodes.jsonl"
    status, family = data.draw(st.sampled_from(EpisodeStatus)), data.draw(st.text())
    episodes = [
        Episode(f"scene{number}", f"{number:032x}", tuple(some), status, family)
        for number, some in enumerate(all_turns)
    ]
    header = replace(HEADER, scenes=len(episodes), seed=data.draw(st.integers()), temperature=data.draw(scores))
    write_episodes(path, header, episodes, with_tokens=True)
    found_header, found = read_episodes(path)
    assert found_header == header
    for episode, other in zip(episodes, found, strict=True):
        assert replace(other, turns=()) == replace(episode, turns=())
        for turn, read in zip(episode.turns, other.turns, strict=True):
            agree(turn, read)


def written(path, **changes) -> list[dict]:
    """The documents of a file of one episode of one turn, without its tokens."""
    turn = Turn(np.arange(4), np.arange(3), np.zeros(3, np.float32), "A plan.", TurnStatus.OK, 0.5, "Travel.")
    turn = replace(turn, poses=POSES, score=0.5, scores={"comfort": 1.0})
    write_episodes(path, HEADER, [Episode("scene", "0" * 32, (turn,), EpisodeStatus.TRUNCATED)], **changes)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tokens_are_written_only_when_asked_for(tmp_path):
    path = tmp_path / "episodes.jsonl"
    assert "completion_ids" not in written(path)[1]["turns"][0]
    (episode,) = read_episodes(path)[1]
    assert (
        len(episode.turns[0].delta_ids) == len(episode.turns[0].completion_ids) == len(episode.turns[0].log_probs) == 0
    )
    written(path, with_tokens=True)
    (episode,) = read_episodes(path)[1]
    np.testing.assert_array_equal(episode.turns[0].completion_ids, [0, 1, 2])


HOSTILE_TURNS = {
    "seven poses": ({"poses": [[0, 0, 0]] * 7}, "poses are not 8 times"),
    "two values in a pose": ({"poses": [[0, 0]] * 8}, "poses are not 8 times"),
    "text in a pose": ({"poses": [["0", 0, 0]] * 8}, "a pose is not a finite number"),
    "an infinite pose": ({"poses": [[1e999, 0, 0]] * 8}, "a pose is not a finite number"),
    "a pose of a thousand digits": ({"poses": [[10**1000, 0, 0]] * 8}, "line 2"),
    "a truth in a pose": ({"poses": [[True, 0, 0]] * 8}, "a pose is not a finite number"),
    "ok without poses": ({"poses": None}, "no poses or no score"),
    "a score that is text": ({"score": "1"}, "score is not a finite number"),
    "another status": ({"status": "fine"}, "'fine' is not a valid TurnStatus"),
    "a score by name that is text": ({"scores": {"comfort": []}}, "comfort is not a finite number"),
    "ids that are none": ({"completion_ids": [-1], "log_probs": [0.0]}, "completion_ids are not token ids"),
    "ids without log-probabilities": ({"completion_ids": [1]}, "log_probs is not as long"),
    "a version that is text": ({"weights_version": "3"}, "weights_version is of type str"),
}


@pytest.mark.parametrize(("change", "words"), HOSTILE_TURNS.values(), ids=HOSTILE_TURNS)
def test_a_turn_that_does_not_fit_is_refused(tmp_path, change, words):
    path = tmp_path / "episodes.jsonl"
    header, episode = written(path)
    episode["turns"][0] |= change
    path.write_text(f"{json.dumps(header)}\n{json.dumps(episode)}\n")
    with pytest.raises(MTDriveError, match=r"episodes\.jsonl, line 2: .*; run mtdrive evaluate again\.$") as refusal:
        read_episodes(path)
    assert words in str(refusal.value)


HOSTILE_LINES = {
    "a token that leaves the folder": (1, {"token": "../../etc/passwd"}, "line 2: token is no name"),
    "an image hash that is a path": (1, {"image_hash": "/etc/passwd"}, "line 2: image_hash is no name"),
    "no turns": (1, {"turns": []}, "0 turns where 1 to 3"),
    "too many turns": (1, {"turns": [{}] * 4}, "4 turns where 1 to 3"),
    "a split that leaves the folder": (
        0,
        {"scene_set": {"name": "..", "data_split": "test", "filter": None}},
        "no name",
    ),
    "scenes of nothing": (0, {"scene_set": {"name": "test"}}, "line 1: scene_set does not hold name, data_split"),
    "another source": (0, {"feedback_source": "oracle"}, "line 1: feedback_source is neither"),
    "turns that are no number": (0, {"turns": True}, "line 1: turns is of type bool"),
    "a file that was cut off": (0, {"scenes": 2}, "1 scenes where its header says 2"),
    "another format": (0, {"format": "notes"}, "is no file of episodes"),
    "a newer format": (0, {"version": 3}, "has version 3 .* reads version 2; update mtdrive"),
    "an older format": (0, {"version": 1}, "has version 1 .* reads version 2; run mtdrive evaluate again"),
}


@pytest.mark.parametrize(("line", "change", "words"), HOSTILE_LINES.values(), ids=HOSTILE_LINES)
def test_a_line_that_does_not_fit_is_refused(tmp_path, line, change, words):
    path = tmp_path / "episodes.jsonl"
    documents = written(path)
    documents[line] |= change
    path.write_text("\n".join(map(json.dumps, documents)))
    with pytest.raises(MTDriveError, match=rf"episodes\.jsonl.*{words}"):
        read_episodes(path)


def test_a_file_of_an_older_version_says_so(tmp_path):
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"token": "a", "status": "completed", "turns": [{"answer": "", "status": "ok"}]}\n')
    with pytest.raises(MTDriveError, match=r"episodes\.jsonl was written by an older mtdrive.* run mtdrive evaluate"):
        read_episodes(path)


def test_reading_and_drawing_need_no_deep_learning():
    code = (
        "import sys, mtdrive.commands.visualize, mtdrive.visualization.advantages, mtdrive.rollout.episode_file\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
