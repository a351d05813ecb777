"""Which scenes: navsim's filters, files of tokens, and stores that know what they hold."""

import shutil
from pathlib import Path

import pytest

from mtdrive import cli
from mtdrive.settings.compose import load_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import FILTERS, all_windows, read_filter, read_tokens
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.splits import check_held_out, check_training
from support.reference import DATA_ROOT as DATA
from support.stores import save_index

FILTER = """
_target_: navsim.common.dataclasses.SceneFilter
_convert_: 'all'
num_history_frames: 4
num_future_frames: {future}
frame_interval: 1
has_route: true
max_scenes: null
log_names: {logs}
tokens:
{tokens}
"""


def write_filter(devkit: Path, name: str, tokens: list[str], split: str = "test", logs: str = "null", future: int = 10):
    """As navsim keeps its filters."""
    folder = devkit / FILTERS
    (folder / "scene_filter").mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(f"defaults:\n  - scene_filter: {name}\n\ndata_split: {split}\n")
    listed = "\n".join(f"  - {token}" for token in tokens)  # without quotes: as text all the same
    content = FILTER.format(tokens=listed, logs=logs, future=future)
    (folder / f"scene_filter/{name}.yaml").write_text(content)


@pytest.fixture
def tokens() -> list[str]:
    """A scene of the reference world, and one that Hydra would read as infinity."""
    return ["5118e69f55dd7a54", "7186e23637965344"]


def test_a_filter_reads_as_navsim_means_it(tmp_path, tokens):
    write_filter(tmp_path, "navhard", tokens, logs="['2021.05.11_veh-1']", future=8)
    found = read_filter("navhard", tmp_path)
    assert (found.data_split, found.tokens, found.num_future) == ("test", tuple(tokens), 8)
    assert found.log_names == ("2021.05.11_veh-1",)
    assert read_filter(str(tmp_path / FILTERS / "navhard.yaml"), None).scene_set == found.scene_set
    alone = read_filter(str(tmp_path / FILTERS / "scene_filter/navhard.yaml"), None, "test")
    assert alone.scene_set == found.scene_set


def test_a_fingerprint_is_of_what_decides(tmp_path, tokens):
    write_filter(tmp_path, "a", tokens)
    first = read_filter("a", tmp_path).scene_set
    write_filter(tmp_path, "a", tokens[::-1])
    assert read_filter("a", tmp_path).scene_set == first
    for change in ({"tokens": tokens[:1]}, {"tokens": tokens, "future": 8}, {"tokens": tokens, "split": "mini"}):
        write_filter(tmp_path, "a", **change)
        assert read_filter("a", tmp_path).scene_set != first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("num_history_frames: 3", "asks for 3 frames up to t0"),
        ("num_future_frames: 7", "and 7 after it"),
        ("max_scenes: 5", "list tokens instead"),
        ("frame_interval: one", "must be a whole number above 0"),
        ("has_route: perhaps", "must be true or false"),
        ("log_names: 7", "must be a list of names"),
        ("tokens: [../a]", "is no scene token"),
        ("scenes: all", "SceneFilter does not know"),
        ("a: [", "as YAML"),
    ],
)
def test_what_is_no_filter_is_refused(tmp_path, tokens, change, words):
    write_filter(tmp_path, "a", tokens)
    file = tmp_path / FILTERS / "scene_filter/a.yaml"
    key = change.split(":")[0]
    lines = [line for line in file.read_text().splitlines() if not line.startswith((key, "  - ", "tokens"))]
    file.write_text("\n".join([*lines, change]))
    with pytest.raises(MTDriveError, match=words):
        read_filter("a", tmp_path)


def test_names_are_looked_up_in_navsim(tmp_path, tokens):
    write_filter(tmp_path, "navtest", tokens)
    with pytest.raises(MTDriveError, match="set NAVSIM_DEVKIT_ROOT"):
        read_filter("navtest", None)
    with pytest.raises(MTDriveError, match="it has navtest"):
        read_filter("navtrain", tmp_path)
    with pytest.raises(MTDriveError, match="a filter of split test, not of split=mini"):
        read_filter("navtest", tmp_path, "mini")


def test_tokens_come_from_a_file_of_lines_or_a_table(tmp_path, tokens):
    (tmp_path / "hard.txt").write_text("\n".join([*tokens, ""]))
    (tmp_path / "hard.csv").write_text("score,token\n" + "".join(f"1.0,{token}\n" for token in tokens))
    for name in ("hard.txt", "hard.csv"):
        found = read_tokens(tmp_path / name, "test")
        assert (found.name, found.tokens) == ("hard", tuple(tokens))
    (tmp_path / "wrong.csv").write_text("score\n1.0\n")
    with pytest.raises(MTDriveError, match="no column token"):
        read_tokens(tmp_path / "wrong.csv", "test")
    with pytest.raises(MTDriveError, match=r"written tokens=\["):
        read_tokens(tmp_path / tokens[0], "test")


def keys(tmp_path: Path, *more: str) -> list[str]:
    """Of a verb on the reference world."""
    roots = (f"openscene_data_root={DATA}", f"nuplan_maps_root={DATA}/maps", f"navsim_exp_root={tmp_path}/exp")
    return [*roots, f"navsim_devkit_root={tmp_path}", *more]


def test_a_store_is_of_its_filter_and_says_so(tmp_path, tokens, capsys):
    """In a list of as many tokens as navtest has, of which the logs here have one."""
    made_up = [f"{number:016d}" for number in range(12145)]
    write_filter(tmp_path, "navtest", [tokens[0], *made_up])
    assert cli.main(["cache", *keys(tmp_path, "train_test_split=navtest", "workers=1")]) == 0
    assert "12,145 of the 12,146 scenes of navtest" in " ".join(capsys.readouterr().out.split())
    chosen = read_filter("navtest", tmp_path)
    store = SceneStore.of(tmp_path / "exp/scene_cache", chosen)
    assert store.tokens == [tokens[0]]
    assert store.load(tokens[0]).split == "test"

    arguments = keys(tmp_path, "train_test_split=navtest", "baselines=[human]", "resamples=10")
    assert cli.main(["evaluate", *arguments]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"navtest (filter {chosen.scene_set.filter} of split test), 1 of 12,146 scenes" in shown
    assert (tmp_path / "exp/evaluation/navtest/summary.json").exists()

    with pytest.raises(MTDriveError, match=r"of navtest \(filter .*, not of navtest, all windows"):
        SceneStore.of(tmp_path / "exp/scene_cache", all_windows("navtest"))
    write_filter(tmp_path, "navtest", tokens)  # another filter by the same name
    for verb in ("cache", "evaluate"):
        assert cli.main([verb, *keys(tmp_path, "train_test_split=navtest")]) == 2
        assert "rename the filter's file" in capsys.readouterr().err


def test_a_part_of_a_split_does_not_read_like_the_whole(tmp_path, tokens):
    build_caches(DATA, DATA / "maps", "test", tmp_path, tokens=tokens[:1], workers=1)
    assert "out of its windows" in SceneStore(tmp_path, "test").title(1)


def test_scenes_of_an_evaluation_filter_are_not_trained_on(tmp_path):
    """Neither by token nor by log, whatever the split is called; nor the filter itself."""
    save_index(tmp_path / "cache", "mine", {"log-a": ["a" * 16], "log-b": ["b" * 16]})
    folder = tmp_path / FILTERS
    check_held_out(tmp_path / "cache", all_windows("mine").scene_set, filters=[folder])
    for name, tokens, logs, split in (
        ("navtest", ["b" * 16], "null", "test"),
        ("navtest", ["c" * 16], "[log-a]", "test"),
        ("hard_cases", ["a" * 16], "null", "test"),  # by the split that it is of
    ):
        write_filter(tmp_path, name, tokens, split, logs)
        with pytest.raises(MTDriveError, match=f"mine, all windows shares .* with navsim's {name}"):
            check_held_out(tmp_path / "cache", all_windows("mine").scene_set, filters=[folder])
        shutil.rmtree(folder)
    write_filter(tmp_path, "navtest", ["c" * 16], "trainval")
    with pytest.raises(MTDriveError, match="evaluation alone"):
        check_training(read_filter("navtest", tmp_path).scene_set)


def test_filters_and_files_of_tokens_exclude_each_other(tmp_path, tokens):
    write_filter(tmp_path, "navtest", tokens)
    both = load_settings("evaluate", keys(tmp_path, "train_test_split=navtest", "tokens=hard.txt"))
    with pytest.raises(MTDriveError, match="not both"):
        _ = both.scene_filter
    assert cli.main(["cache", *keys(tmp_path)]) == 2
