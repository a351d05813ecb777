"""Recording interactions: what they hold, that they are true, and that nothing is lost or doubled."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections import Counter
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from mtdrive.cli import main
from mtdrive.commands import record
from mtdrive.datasets import builder
from mtdrive.datasets.counts import file_digest
from mtdrive.datasets.flawed import FLAWS, NO_PLANS
from mtdrive.datasets.material import Material
from mtdrive.datasets.plans import between, plan_along, profile_distances
from mtdrive.datasets.reader import load_conversations, load_image, load_samples
from mtdrive.datasets.recipe import Recipe
from mtdrive.datasets.samples.comparison import safety
from mtdrive.datasets.samples.refinement import Chain, exchange, extend, refinements
from mtdrive.datasets.schema import SCHEMA, Target
from mtdrive.evaluation.families import read_families
from mtdrive.evaluation.tables import read_scores
from mtdrive.planner.answer import parse_answer
from mtdrive.planner.models import load_planner
from mtdrive.planner.prompt import PROMPTS
from mtdrive.planner.wording import wording_fingerprint
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.episode_file import EpisodesHeader, write_episodes
from mtdrive.settings import load_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.navsim_format.images import image_hash, read_image
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.scene_cache import format as scene_file
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import score
from mtdrive.simulation.splits import check_held_out
from support.stores import save_index

KINDS = {"planning", "refinement", "collision", "off_road", "comparison"}


def recipe(name: str, **changes) -> Recipe:
    """A recipe of configs/recipe with other values."""
    config = asdict(load_settings("record", ["out=unused", f"recipe={name}"]))
    values = config["recipe"] | {key: config[key] for key in ("metric", "feedback", "seed")}
    return Recipe(**values | changes)


def material(scene, answers=NO_PLANS, **changes) -> Material:
    return Material(scene, recipe("synthetic", **changes), answers)


@pytest.fixture(scope="module")
def overrides(world):
    return [*world.overrides(), "recipe=synthetic", f"families={world.data_root}/manifest.json", "workers=1"]


@pytest.fixture(scope="module")
def recorded(overrides, tmp_path_factory):
    out = tmp_path_factory.mktemp("recorded") / "train"
    record.run(load_settings("record", [*overrides, f"out={out}"]))
    return out


@pytest.fixture(scope="module")
def store(world):
    return SceneStore(world.exp_root / "scene_cache", "train")


def test_profiles_follow_constant_acceleration_and_never_reverse():
    distances = profile_distances(8.0, np.array([1.0, -4.0]), np.array([1.0, -4.0]))
    times = np.arange(1, 9) * 0.5
    np.testing.assert_allclose(distances[0], 8.0 * times + 0.5 * times**2, atol=1e-6)
    assert distances[1, -1] == pytest.approx(8.0, abs=0.05)  # v^2 / 2a, then it stands
    assert (np.diff(distances[1]) >= 0.0).all()


def test_plans_keep_to_their_path():
    quarter = np.linspace(0.0, np.pi / 2, 200)
    path = np.column_stack([20.0 * np.sin(quarter), 20.0 * (1.0 - np.cos(quarter)), quarter])
    plan = plan_along(path, np.linspace(2.0, 30.0, 8)[None])[0]
    np.testing.assert_allclose(np.hypot(plan[:, 0], plan[:, 1] - 20.0), 20.0, atol=1e-2)
    np.testing.assert_allclose(plan[:, 2], np.linspace(2.0, 30.0, 8) / 20.0, atol=1e-2)


@pytest.mark.parametrize("name", ["demo", "synthetic"])
def test_every_target_scores_higher_than_the_plans_before_it(name, store):
    found = Counter()
    for token in store.tokens:
        scene = store.load(token)
        for sample in refinements(Material(scene, recipe(name), NO_PLANS)):
            scores = score(scene, sample.plans).score
            np.testing.assert_allclose(scores, sample.scores, atol=1e-12)
            assert (scores[:-1] < scores[-1]).all()
            found[sample.turns] += 1
    assert min(found[2], found[3]) > 0
    assert found.total() >= 3 * len(store.tokens)
    assert (found[4] > 0) == (name == "synthetic")


def test_corrections_exceed_their_floor_and_go_from_source_to_source(store):
    made = material(store.load(store.tokens[0]), corrections={"told": 1.0, "nearby": 1.0})
    plans = made.recipe.round_plans(made.broken.breaking("drivable_area_compliance")[:1])
    answers = assess(made.scene, plans)

    def corrected(floor: float, plans=plans) -> Target | None:
        return made.correct(plans, answers, np.array([floor]))[0]

    told = corrected(answers[0].score)
    assert told.source == "told"
    after = corrected(told.score)
    assert after is None or (after.source != "told" and after.score > told.score)
    assert corrected(1.0) is None
    chain = Chain((replace(exchange(plans[0], "lateral", answers[0]), score=1.0),), told)
    assert extend(made, [chain], plans, ["half"]) == [None]
    assert extend(made, [None], plans, ["half"])[0].target.score == told.score


def test_plans_that_break_a_metric_do_and_weights_choose_which(store):
    scene, sources = store.load(store.tokens[0]), Counter()
    only = material(scene, flaws={"broken": 1.0}, metrics={"comfort": 1.0, "drivable_area_compliance": 3.0})
    plans, names = FLAWS["broken"](only, only.rng(), 40)
    columns = score(scene, plans).columns
    for row, name in enumerate(names):
        assert columns[name.removeprefix("breaks_")][row] < 1.0
        sources[name] += 1
    assert sources["breaks_drivable_area_compliance"] > 2 * sources["breaks_comfort"] > 0
    assert sources.total() == 40
    alone = only.broken.breaking("comfort")
    assert (score(scene, alone).columns["drivable_area_compliance"] == 1.0).all()


def test_answers_to_questions_agree_with_the_scorer(store, recorded):
    verdicts = Counter()
    for row in load_samples(recorded):
        if row["kind"] not in ("collision", "off_road", "comparison"):
            continue
        scores = score(store.load(row["token"]), np.array(row["plans"]))
        answer = row["messages"][-1]["content"][0]["text"]
        verdicts[row["kind"], row["verdict"]] += 1
        broken = [scores.columns[name] < 1.0 for name in safety(scores.metric)]
        if row["kind"] == "comparison":
            first, second = (next((i for i, failed in enumerate(broken) if failed[plan]), 9) for plan in (0, 1))
            assert first != second
            assert row["verdict"] == ("first" if first > second else "second")
            assert answer.startswith("A is safer. B: " if first > second else "B is safer. A: ")
            continue
        failed = bool(broken[("collision", "off_road").index(row["kind"])][0])
        assert row["verdict"] == ("yes" if failed else "no")
        if failed:
            event = "collision" if row["kind"] == "collision" else "off_road"
            time = scores.events[f"{event}_time"][0]
            assert answer.startswith(f"Yes. {event.replace('_', ' ').capitalize()} at {time:+06.2f} ")
        else:
            assert answer == "No."
    assert set(verdicts) == {
        *product(("collision", "off_road"), ("yes", "no")),
        *product(("comparison",), ("first", "second")),
    }


def test_hard_negatives_are_a_step_from_failing(store):
    found = 0
    for token in store.tokens:
        made = material(store.load(token), decimals=None)
        for column in ("no_at_fault_collisions", "drivable_area_compliance"):
            for broken in made.broken.breaking(column)[:3]:
                passing = made.just_passing(broken, (column,))
                if passing is None:
                    continue
                whole, part = made.expert.poses - broken, passing - broken
                share = part.flat[np.abs(whole).argmax()] / whole.flat[np.abs(whole).argmax()]
                nearer = between(broken, made.expert.poses, share - 0.05)
                passed, failed = score(made.scene, np.stack([passing, nearer])).columns[column]
                assert failed < passed == 1.0
                found += 1
    assert found > len(store.tokens)


def test_answers_of_a_planner_are_flawed_plans(world, store, tmp_path):
    token = store.tokens[0]
    stands = np.zeros((8, 3))
    nothing = np.zeros(0)
    turns = (
        Turn(nothing, nothing, nothing, "a plan", TurnStatus.OK, 0.0, "", poses=stands, score=0.0),
        Turn(nothing, nothing, nothing, "no plan", TurnStatus.PARSE_ERROR, 0.0, ""),
    )
    header = EpisodesHeader(
        "tiny", "released", all_windows("train").scene_set, "pdms_v1", 1, "privileged", False, 2, 0.0, 0, 1
    )
    episode = Episode(token, "0" * 32, turns, EpisodeStatus.TRUNCATED)
    write_episodes(tmp_path / "episodes.jsonl", header, [episode])
    answers = record.read_answers(tmp_path / "episodes.jsonl")
    made = material(store.load(token), answers[token], flaws={"planner": 1.0})
    sample = refinements(made)[0]
    assert sample.sources[0] == "planner"
    np.testing.assert_array_equal(sample.plans[0], stands)
    with pytest.raises(MTDriveError, match=r"nothing\.jsonl"):
        record.read_answers(tmp_path / "nothing.jsonl")


def test_families_change_the_numbers_of_samples(store):
    plain = recipe("demo", families={"rare": 2.0, "common": 0.25})
    assert plain.for_scene("a", "rare").two_turns == 4
    drawn = [plain.for_scene(str(token), "common").two_turns for token in range(400)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.1)
    assert plain.for_scene("a", "other") is plain


def test_samples_read_back_as_conversations_with_their_images(world, store, recorded):
    samples = load_samples(recorded)
    manifest = json.loads((recorded / "manifest.json").read_text())
    assert len(set(samples["id"])) == len(samples) == manifest["samples"]
    assert manifest["wording_fingerprint"] == wording_fingerprint(PROMPTS[manifest["wording"]])
    assert len(list((recorded / "images").iterdir())) == len(store.tokens)
    assert set(samples["kind"]) == KINDS
    for sample in samples:
        roles = [message["role"] for message in sample["messages"]]
        assert roles == ["user", "assistant"] * sample["turns"]
        parts = [part["type"] for message in sample["messages"] for part in message["content"]]
        assert parts.count("image") == 1
        if sample["kind"] in ("planning", "refinement"):
            told = [parse_answer(message["content"][0]["text"]).poses for message in sample["messages"][1::2]]
            np.testing.assert_array_equal(told, sample["plans"])  # the text says what was scored
        camera = store.load(sample["token"]).camera
        image = read_image(world.data_root, "train", camera.image)
        assert image_hash(image) == sample["image"]
        np.testing.assert_array_equal(load_image(recorded, sample["image"]), image)


def test_trl_reads_the_conversations(recorded):
    conversations = load_conversations(recorded)
    assert conversations[0]["images"][0].size == (640, 360)
    processor = load_planner(load_settings("sft", ["dataset=unused", "out=unused"]).planner).processor
    batch = DataCollatorForVisionLanguageModeling(processor)([conversations[row] for row in range(4)])
    assert batch["input_ids"].shape[0] == 4
    assert (batch["input_ids"] == processor.image_token_id).sum() * 4 == batch["pixel_values"].shape[0]


def test_the_validator_finds_rows_that_disagree(overrides, recorded, tmp_path, capsys):
    check = ["record", *overrides, "check=1000"]
    assert main([*check, f"out={recorded}"]) == 0
    assert "0 problems" in capsys.readouterr().out
    broken = tmp_path / "broken"
    shutil.copytree(recorded, broken)
    shard = next((broken / "samples").iterdir())
    rows = pq.read_table(shard).to_pylist()
    by_kind = {row["kind"]: row for row in rows}
    by_kind["refinement"]["scores"][0] += 0.01
    by_kind["planning"]["messages"][-1]["content"][0]["text"] += " "
    by_kind["off_road"]["verdict"] = "no" if by_kind["off_road"]["verdict"] == "yes" else "yes"
    by_kind["collision"]["generator"] = "somebody"
    rows.append(by_kind["comparison"])
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), shard)
    (broken / "images" / f"{rows[0]['image']}.jpg").unlink()
    assert main([*check, f"out={broken}"]) == 1
    said = capsys.readouterr().out
    for kind, what in {
        "refinement": "scores is",
        "planning": "messages is",
        "off_road": "verdict is",
        "collision": "generator is",
        "comparison": "stands there twice",
    }.items():
        assert f"{by_kind[kind]['id']}: {what}" in said
    assert "is not the file that was recorded" in said
    assert f"{rows[0]['id']}: its image" in said


def test_feedback_tells_changes_second_by_second_if_asked_to(overrides, tmp_path):
    keys = ["record", *overrides, "feedback_steps=true", f"out={tmp_path}/steps", "recipe=demo"]
    assert main(keys) == 0
    shard = next((tmp_path / "steps" / "samples").iterdir())
    rows = [row for row in pq.read_table(shard).to_pylist() if row["kind"] == "refinement"]
    told = [message["content"][0]["text"] for row in rows for message in row["messages"][2:-1:2]]
    told = [text for text in told if "Travel" in text or "Shift" in text]
    assert told
    assert all(f" by +0{second}.00." in text for text in told for second in (1, 2, 3, 4))
    assert main([*keys, "check=1000"]) == 0


def test_a_split_that_shares_a_log_with_a_held_out_one_is_refused(tmp_path):
    for split, logs in {"mine": "ab", "val": "cd", "navtest": "bc", "other": "ab"}.items():
        (tmp_path / split).mkdir()
        save_index(tmp_path, split, {log: [f"{split}-{log}"] for log in logs})
    for split in ("mine", "val"):
        with pytest.raises(MTDriveError, match="navtest"):
            check_held_out(tmp_path, all_windows(split).scene_set)
    (tmp_path / "navtest" / "index.json").unlink()
    for split in ("mine", "val"):
        check_held_out(tmp_path, all_windows(split).scene_set)


@pytest.mark.parametrize("verb", ["rl", "record"])
@pytest.mark.parametrize("split", ["./test", "train/../test", "TEST", "navtest_x", "held", "copied", "renamed"])
def test_the_test_split_is_refused_under_any_name(world, tmp_path, capsys, verb, split):
    """By a path, in other letters, through a link, or as a copy of its logs."""
    for folder in ("navsim_logs", "scene_cache"):
        root = (world.data_root if folder == "navsim_logs" else world.exp_root) / folder
        shutil.copytree(root, tmp_path / folder)
        (tmp_path / folder / "held").symlink_to("test")
    shutil.copytree(tmp_path / "navsim_logs/test", tmp_path / "navsim_logs/copied")
    (tmp_path / "navsim_logs/renamed").mkdir()
    for index, log in enumerate(sorted((tmp_path / "navsim_logs/test").iterdir())):
        shutil.copy(log, tmp_path / f"navsim_logs/renamed/{index}.pkl")
    if split in ("copied", "renamed"):
        shutil.rmtree(tmp_path / "scene_cache/test")  # the logs on disk are enough
        build_caches(tmp_path, world.maps_root, split, tmp_path / "scene_cache", workers=1)
    keys = [f"openscene_data_root={tmp_path}", f"navsim_exp_root={tmp_path}", f"split={split}", f"out={tmp_path}/out"]
    assert main([verb, *keys, *(["planner.model=unused"] if verb == "rl" else [])]) == 2
    told = capsys.readouterr().err
    assert "evaluation alone" in told or "must be a name" in told or "with test; leave it out" in told
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_held_out_scenes_is_not_trained_on(world, recorded, tmp_path, capsys):
    """By the split that its manifest names, or by its scenes under another name."""
    shutil.copytree(recorded, tmp_path / "dataset")
    shutil.copytree(world.exp_root / "scene_cache/train", tmp_path / "exp/scene_cache/test_x")
    manifest = tmp_path / "dataset/manifest.json"
    said = json.loads(manifest.read_text())
    for change, words in (
        ({"name": "navtest"}, "evaluation alone"),
        ({"data_split": "test"}, "train is of split test is for evaluation alone"),
        ({"data_split": "../test"}, "is no split name"),
        ({"name": "other", "data_split": "other"}, "with test_x"),
    ):
        manifest.write_text(json.dumps(said | {"scene_set": said["scene_set"] | change}))
        keys = [f"dataset={tmp_path}/dataset", f"navsim_exp_root={tmp_path}/exp", "openscene_data_root=null"]
        assert main(["sft", *keys, f"out={tmp_path}/out"]) == 2
        assert words in capsys.readouterr().err


def test_a_recording_of_logs_that_changed_does_not_go_on(world, overrides, recorded, tmp_path, capsys):
    shutil.copytree(recorded, tmp_path / "dataset")
    shutil.copytree(world.exp_root, tmp_path / "exp")
    for cache in (tmp_path / "exp/scene_cache/train").glob("*/*.scene"):
        scene_file.save_scene(cache, scene_file.load_scene(cache), scene_file.Fingerprint(log="changed", map="m"))
    next((tmp_path / "dataset/samples").iterdir()).unlink()
    assert main(["record", *overrides, f"navsim_exp_root={tmp_path}/exp", f"out={tmp_path}/dataset"]) == 2
    assert "another recording, of other logs, maps" in capsys.readouterr().err


def test_rows_are_those_that_the_manifest_names(recorded, tmp_path):
    """Another shard of the same size and time, with its own digest in the manifest."""
    copy = tmp_path / "copy"
    shutil.copytree(recorded, copy)
    shard, manifest = next((copy / "samples").iterdir()), json.loads((copy / "manifest.json").read_text())
    table = pq.read_table(shard)

    def write(family: str) -> None:
        column = pa.array([family] * len(table), pa.string())
        pq.write_table(table.set_column(table.column_names.index("family"), "family", column), shard)
        os.utime(shard, (1e9, 1e9))
        manifest["shards"] = {shard.name: file_digest(shard)}
        (copy / "manifest.json").write_text(json.dumps(manifest))

    write("aaaa")
    size = shard.stat().st_size
    assert set(load_samples(copy)["family"]) == {"aaaa"}
    write("bbbb")
    assert shard.stat().st_size == size
    assert set(load_samples(copy)["family"]) == {"bbbb"}


@pytest.mark.parametrize("content", ["", "[]", "7", "{}", '{"shards": []}', '{"split": 1, "shards": {}}', "[" * 10**5])
def test_a_damaged_manifest_is_named(overrides, recorded, tmp_path, capsys, content):
    shutil.copytree(recorded, tmp_path / "dataset")
    (tmp_path / "dataset/manifest.json").write_text(content)
    with pytest.raises(MTDriveError, match=r"manifest\.json is damaged .*record again"):
        load_samples(tmp_path / "dataset")
    (tmp_path / "dataset/recording.json").write_text(content)
    assert main(["record", *overrides, f"out={tmp_path}/dataset"]) == 2
    assert "recording.json" in capsys.readouterr().err


FAMILIES = ["NA", "None", "null", "", "nan", "N/A", "007", "1e5"]


def test_families_are_texts_whatever_they_say(world, store, tmp_path):
    tokens = store.tokens
    lines = [f"{token},{family}" for token, family in zip(tokens, FAMILIES, strict=True)]
    path = tmp_path / "families.csv"
    path.write_text("\n".join(["token,family", *lines, "0012345678901234,x", "1e10000000000000,y"]))
    families = read_families(str(path))
    assert [families[token] for token in tokens] == FAMILIES
    assert [families["0012345678901234"], families["1e10000000000000"]] == ["x", "y"]
    keys = [f"families={path}", "split=train", "baselines=[human]", "resamples=10", f"out={tmp_path}/out"]
    assert main(["evaluate", *world.overrides(), *keys]) == 0
    assert read_scores(tmp_path / "out/scores.csv").family.tolist() == FAMILIES
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert {row["family"] for row in summary["families"]} == {*FAMILIES} - {""}


def test_a_killed_recording_goes_on_without_loss_or_doubles(overrides, recorded, tmp_path):
    """One scene a shard."""
    out = tmp_path / "killed"
    config = load_settings("record", [*overrides, f"out={out}"])
    arguments = record.recording_of(config), config.open_store(), 1, 1
    process = multiprocessing.get_context("spawn").Process(target=builder.record, args=arguments)
    process.start()
    while not list(out.glob("samples/*.parquet")) and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("samples/*.parquet")}
    assert kept
    assert not (out / "manifest.json").exists()

    builder.record(*arguments)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    rows = sorted(map(str, load_samples(out).to_list()))
    assert rows == sorted(map(str, load_samples(recorded).to_list()))


def test_bad_input_is_refused_in_a_sentence(overrides, recorded, tmp_path, capsys):
    new = f"out={tmp_path / 'a'}"
    for arguments, expected in (
        ([new, "split=navtest"], "evaluation"),
        ([f"out={recorded}", "seed=1"], "another recording"),
        ([new, "recipe.flaws={guessed:1}"], "guessed"),
        ([new, "recipe.metrics={driving_direction_compliance:1}"], "driving_direction_compliance"),
        ([new, "recipe.one_turn=-1"], "from 0 to 1000"),
        ([new, "feedback=rumour"], "rumour"),
    ):
        assert main(["record", *overrides, *arguments]) == 2
        assert expected in capsys.readouterr().err
    with pytest.raises(MTDriveError, match=r"manifest\.json"):
        load_samples(tmp_path)


def test_a_damaged_shard_is_named(recorded, tmp_path):
    broken = tmp_path / "broken"
    (broken / "samples").mkdir(parents=True)
    (broken / "manifest.json").write_text((recorded / "manifest.json").read_text())
    for shard in (recorded / "samples").iterdir():
        (broken / "samples" / shard.name).write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(MTDriveError, match="record again"):
        load_samples(broken)


def test_shards_have_the_declared_schema(recorded):
    for shard in (recorded / "samples").glob("*.parquet"):
        assert pq.read_schema(shard).names == builder.SCHEMA.names
