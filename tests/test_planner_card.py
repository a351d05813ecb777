"""A planner's folder says what it is, and what does not fit what it has learned is refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtdrive.planner import conversation
from mtdrive.planner.card import CARD, LARGEST, PlannerCard, Stage, read_card, saving, write_card
from mtdrive.planner.fits import check_dataset, check_feedback_steps, check_words, feedback_steps_for
from mtdrive.planner.models import Planner, load_planner
from mtdrive.planner.prompt import PROMPTS
from mtdrive.planner.wording import answer_fingerprint, wording_fingerprint
from mtdrive.settings import planner_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback import text as feedback
from mtdrive.simulation.metrics.registry import VERSIONS
from support.planners import tiny_config

COMPACT = PROMPTS["compact"]
SFT = Stage(
    verb="sft",
    seed=3,
    steps=1500,
    mtdrive="0.1.0",
    split="train",
    metric="pdms_v1",
    metric_revision=1,
    feedback="privileged",
    feedback_steps=False,
    turns=None,
    data="0123456789abcdef",
)
RL = replace(SFT, verb="rl", steps=80, turns=3, data="fedcba9876543210")
CARD_OF_TODAY = PlannerCard(
    mtdrive="0.1.0",
    base="tiny, seed 0",
    prompt=COMPACT.name,
    wording=wording_fingerprint(COMPACT),
    answer=answer_fingerprint(COMPACT),
    max_new_tokens=56,
    dtype="float32",
    stages=(SFT, RL),
)
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


def trained(folder: Path, **changes) -> Planner:
    return load_planner(planner_settings(str(folder), **changes))


def logits(planner: Planner) -> torch.Tensor:
    ids = torch.tensor([planner.processor.tokenizer.encode("velocity +08.00, +00.00 command left")])
    with torch.no_grad():
        return planner.model(input_ids=ids).logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A planner that went through one stage."""
    folder = tmp_path_factory.mktemp("planner")
    load_planner(tiny_config(max_new_tokens=60)).after(SFT).save(folder)
    return folder


@pytest.fixture
def card_file(tmp_path) -> Path:
    write_card(tmp_path, CARD_OF_TODAY)
    return tmp_path / CARD


def test_a_card_reads_back_and_has_the_same_bytes_again(card_file, tmp_path):
    assert read_card(tmp_path) == CARD_OF_TODAY
    write_card(tmp_path / "again", read_card(tmp_path))
    assert (tmp_path / "again" / CARD).read_bytes() == card_file.read_bytes()


ALIASES = "a: &a [1]\nb: &b [*a, *a]\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: text.replace("version: 1", "version: one"),
        lambda text: text.replace("version: 1", "version: -1"),
        lambda text: text + "colour: red\n",
        lambda text: text.replace("  turns: 3\n", ""),
        lambda text: text.replace("steps: 80", "steps: 80.0"),
        lambda text: text.replace("steps: 80", "steps: -80"),
        lambda text: text.replace("steps: 80", "steps: true"),
        lambda text: text.replace("steps: 80", f"steps: {'8' * 5000}"),
        lambda text: text.replace("verb: rl", "verb: dpo"),
        lambda text: text.replace("split: train", "split: 2026-13-45"),
        lambda text: text.replace("split: train", 'split: "a\\nb"'),
        lambda text: text.replace("split: train", f"split: {'a' * 1000}"),
        lambda text: text.replace("max_new_tokens: 56", "max_new_tokens: 0"),
        lambda text: text[: text.index("stages:")] + "stages: 3\n",
        lambda text: text[: text.index("stages:")] + "stages: [3]\n",
        lambda text: ALIASES + text,
        lambda text: "[" * 5000,
        lambda text: text + "#" * LARGEST,
        lambda text: text + "\x00",
        lambda text: "!!python/object/apply:os.system ['true']",
    ],
)
def test_a_damaged_card_is_one_sentence(card_file, spoil):
    spoilt = spoil(card_file.read_text())
    assert spoilt != card_file.read_text()
    card_file.write_text(spoilt)
    with pytest.raises(MTDriveError, match="is damaged") as refused:
        read_card(card_file.parent)
    said = str(refused.value)
    assert said.startswith(str(card_file))
    assert "copy the planner again" in said
    assert "\n" not in said
    assert len(said) < 400 + 2 * len(str(card_file))


def test_a_card_of_a_newer_version_says_so(card_file):
    card_file.write_text(card_file.read_text().replace("version: 1", "version: 2"))
    with pytest.raises(MTDriveError, match="version 2, not 1"):
        read_card(card_file.parent)


def test_a_folder_has_a_card_only_when_it_is_whole(card_file):
    with pytest.raises(FileNotFoundError), saving(card_file.parent, CARD_OF_TODAY):
        (card_file.parent / "no folder" / "model.safetensors").touch()
    assert not card_file.exists()
    with saving(card_file.parent, CARD_OF_TODAY):
        pass
    assert read_card(card_file.parent) == CARD_OF_TODAY


def test_a_trained_planner_needs_no_more_than_its_folder(saved):
    planner = trained(saved)
    assert planner.card == replace(CARD_OF_TODAY, max_new_tokens=60, stages=(SFT,))
    assert (planner.style, planner.max_new_tokens, planner.model.dtype) == (COMPACT, 60, torch.float32)
    again = planner.after(RL)
    assert again.card.stages == (SFT, RL)
    assert planner.card.stages == (SFT,)
    assert trained(saved, max_new_tokens=9).max_new_tokens == 9


def test_an_adapter_loads_from_its_folder_alone(saved, tmp_path):
    adapted = trained(saved, lora=LORA)
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora" in name:
                weight.fill_(0.1)
    adapted.after(RL).save(tmp_path)
    loaded = trained(tmp_path)
    assert loaded.card == adapted.after(RL).card
    assert torch.equal(logits(loaded), logits(adapted))
    assert not torch.equal(logits(loaded), logits(trained(saved)))


def test_weights_without_a_card_are_refused_with_the_cure_and_load_as_what_they_are_said_to_be(saved, tmp_path):
    planner = trained(saved)
    planner.model.save_pretrained(tmp_path)
    planner.processor.save_pretrained(tmp_path)
    with pytest.raises(MTDriveError, match=rf"no planner.yaml; .* planner=qwen2_5_vl_7b planner.model={tmp_path}\."):
        trained(tmp_path)
    loaded = load_planner(tiny_config(model=str(tmp_path)))
    assert (loaded.card.base, loaded.card.stages) == (tmp_path.name, ())


def test_a_planner_of_other_words_is_refused_unless_said_otherwise(saved, tmp_path):
    planner = trained(saved)
    replace(planner, card=replace(planner.card, wording="0" * 16)).save(tmp_path)
    with pytest.raises(MTDriveError, match="other words"):
        trained(tmp_path)
    with pytest.raises(MTDriveError, match="other words"):
        load_planner(tiny_config(model=str(tmp_path)))
    with pytest.raises(MTDriveError, match="prompt=compact, not prompt=full"):
        load_planner(tiny_config(model=str(saved), prompt="full"))
    loaded = trained(tmp_path, allow_misfit=True)
    assert loaded.card.wording == "0" * 16
    assert loaded.after(RL).card.wording == wording_fingerprint(COMPACT)


def test_what_was_learned_otherwise_is_named():
    check_words(CARD_OF_TODAY, COMPACT, "p")
    with pytest.raises(MTDriveError, match="Planner p learned prompt=compact, not prompt=full"):
        check_words(CARD_OF_TODAY, PROMPTS["full"], "p")
    with pytest.raises(MTDriveError, match="Planner p learned another format of answers"):
        check_words(CARD_OF_TODAY, replace(COMPACT, integer_digits=3), "p")
    with pytest.raises(MTDriveError, match="Planner p learned other words"):
        check_words(CARD_OF_TODAY, replace(COMPACT, system="Drive."), "p")


def test_a_dataset_in_other_words_is_refused():
    manifest = {"wording": "compact", "wording_fingerprint": wording_fingerprint(COMPACT)}
    check_dataset(manifest, COMPACT, "d")
    with pytest.raises(MTDriveError, match=r"Dataset d was recorded with prompt=compact, .* full"):
        check_dataset(manifest, PROMPTS["full"], "d")
    for other in (manifest | {"wording_fingerprint": "0" * 16}, {"wording": "compact"}):
        with pytest.raises(MTDriveError, match="Dataset d was recorded in other words"):
            check_dataset(other, COMPACT, "d")


def test_feedback_second_by_second_is_for_those_who_learned_it():
    with_steps = replace(CARD_OF_TODAY, stages=(replace(SFT, feedback_steps=True), RL))
    check_feedback_steps(CARD_OF_TODAY, False, "p")
    check_feedback_steps(with_steps, True, "p")
    check_feedback_steps(replace(CARD_OF_TODAY, stages=()), True, "p")
    with pytest.raises(MTDriveError, match="Planner p was trained with feedback_steps=false"):
        check_feedback_steps(CARD_OF_TODAY, True, "p")
    settings = planner_settings("tiny")
    assert not feedback_steps_for(with_steps, None, settings)
    assert feedback_steps_for(replace(with_steps, stages=with_steps.stages[:1]), None, settings)
    assert not feedback_steps_for(replace(CARD_OF_TODAY, stages=()), None, settings)
    assert feedback_steps_for(CARD_OF_TODAY, True, replace(settings, allow_misfit=True))
    with pytest.raises(MTDriveError, match="feedback_steps=false"):
        feedback_steps_for(CARD_OF_TODAY, True, settings)


@pytest.mark.parametrize("name", ["system", "user", "question_system", "question"])
@pytest.mark.parametrize("style", PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_that_changes_changes_the_fingerprint(style, name):
    changed = replace(style, **{name: getattr(style, name) + "!"})
    assert wording_fingerprint(changed) != wording_fingerprint(style)
    assert answer_fingerprint(changed) == answer_fingerprint(style)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        *((feedback, name) for name in ("CLEAN", "SCORE", "INVALID")),
        *((conversation, name) for name in ("NO", "YES", "WHERE", "SAFER")),
    ],
)
def test_a_sentence_that_changes_changes_the_fingerprint(module, sentence, monkeypatch):
    before = wording_fingerprint(COMPACT)
    monkeypatch.setattr(module, sentence, getattr(module, sentence) + "!")
    assert wording_fingerprint(COMPACT) != before


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sentence_of_a_metric_and_its_terms_are_in_the_fingerprint(version, monkeypatch):
    def fingerprint(*metrics) -> str:
        monkeypatch.setitem(VERSIONS, version, replace(VERSIONS[version], metrics=metrics))
        return wording_fingerprint(COMPACT)

    metrics = VERSIONS[version].metrics
    for other in set(VERSIONS) - {version}:
        monkeypatch.delitem(VERSIONS, other)
    before = fingerprint(*metrics)
    assert fingerprint(*reversed(metrics)) == before
    for index, metric in enumerate(metrics):
        for changes in ({"sentence": metric.sentence + "!"}, {"terms": (*metric.terms, "wheel")}):
            changed = replace(metric, **changes)
            assert fingerprint(*metrics[:index], changed, *metrics[index + 1 :]) != before
