"""Supervised fine-tuning: what is a target, that images matter, that it learns, resumes, and runs from the verb."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME

from mtdrive import cli
from mtdrive.datasets.schema import SCHEMA
from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import load_planner
from mtdrive.planner.prompt import PROMPTS
from mtdrive.planner.wording import wording_fingerprint
from mtdrive.simulation.navsim_format.scene_filter import SceneSet
from mtdrive.training.checkpoints import LOG_NAME, latest_checkpoint
from mtdrive.training.sft_trainer import PlannerCollator, answer_metrics, finetune, tokenise
from support.files import contents
from support.fine_tuning import FEEDBACK, arguments, image, plan, read, sample
from support.planners import tiny_config

EXAMPLES = 8


@pytest.fixture
def planner():
    return load_planner(tiny_config())


@pytest.fixture
def samples(planner):
    rows = [sample(planner, index, turns) for index in range(EXAMPLES) for turns in (1, 2)]
    return Dataset.from_list(rows)


@pytest.fixture
def collator(planner, tmp_path):
    with ImageInputs(planner.processor, lambda name: image(int(name)), tmp_path) as images:
        yield PlannerCollator(planner.processor, images)


def test_the_target_is_the_last_answer_alone(planner, samples, collator):
    rows = tokenise(samples, planner.processor)
    batch = collator([rows[0], rows[1]])
    decode = planner.processor.tokenizer.decode
    for row, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        on = labels != -100
        assert torch.equal(row[on], labels[on])
        assert decode(row[on]) == planner.format_answer(plan(0)) + "<|im_end|>"
        assert decode(row[: int(on.nonzero()[0])]).endswith("<|im_start|>assistant\n")
    assert FEEDBACK.split(".")[0].split()[0] in decode(batch["input_ids"][1])
    prompts = collator.prompts([rows[0], rows[1]])
    assert all(decode(row).endswith("<|im_start|>assistant\n") for row in prompts["input_ids"])
    assert "labels" not in prompts


def test_the_loss_sees_the_image(planner, samples, collator):
    batch = collator([tokenise(samples, planner.processor)[0]])
    other = collator([tokenise(samples, planner.processor)[14]])
    with torch.no_grad():
        loss = planner.model(**batch).loss
        changed = planner.model(**batch | {"pixel_values": other["pixel_values"]}).loss
    assert abs(loss - changed) > 1e-4


def test_it_learns_plans_that_only_the_image_tells(tmp_path, collator):
    planner = load_planner(tiny_config(tiny={"hidden_size": 64}))
    samples = Dataset.from_list([sample(planner, index, 1) for index in range(EXAMPLES)])
    settings = arguments(tmp_path, max_steps=160, lr_scheduler_type="cosine")
    trainer = finetune(planner, samples, None, lambda name: image(int(name)), settings)
    rows = trainer.train_dataset
    learnt = answer_metrics(planner, collator, rows, batch_size=8)
    assert learnt["parse_rate"] == 1.0
    assert learnt["ade"] < 0.5
    shuffled = rows.map(lambda row: {"image": str((int(row["image"]) + 4) % EXAMPLES)})
    assert answer_metrics(planner, collator, shuffled, batch_size=8)["ade"] > 4.0


WALL_CLOCK = ("runtime", "per_second")


def log_of(folder) -> list[dict]:
    """The lines of a training log without what the clock says."""
    lines = map(json.loads, (folder / LOG_NAME).read_text().splitlines())
    return [{key: value for key, value in line.items() if not key.endswith(WALL_CLOCK)} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four and a half passes over its 16 samples, that was not cut; its planner beside it."""
    out = tmp_path_factory.mktemp("whole")
    trained(out)
    return out


def trained(out) -> dict[str, torch.Tensor]:
    planner = load_planner(tiny_config())
    samples = Dataset.from_list([sample(planner, index, turns) for index in range(EXAMPLES) for turns in (1, 2)])
    settings = {"max_steps": 9, "save_strategy": "steps", "save_steps": 3, "logging_steps": 2, "eval_steps": 4}
    settings |= {"eval_strategy": "steps", "train_sampling_strategy": "group_by_length"}
    finetune(planner, samples, samples.select(range(3)), read, arguments(out, **settings))
    planner.save(out)
    return planner.model.state_dict()


@pytest.mark.parametrize("last", [None, 3, 6, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path, last):
    """Cut before the first checkpoint, within a pass, at its end, and when all steps are done."""
    if last is not None:
        shutil.copytree(whole / f"checkpoint-{last}", tmp_path / f"checkpoint-{last}")
    resumed = trained(tmp_path)
    for name, weight in load_file(whole / "model.safetensors").items():
        torch.testing.assert_close(load_file(tmp_path / "model.safetensors")[name], weight, rtol=0, atol=0)
    assert all(torch.isfinite(weight).all() for weight in resumed.values())
    assert log_of(tmp_path) == log_of(whole)
    assert [line["step"] for line in log_of(whole) if "loss" in line] == [2, 3, 4, 6, 8, 9]
    assert max(line["step"] for line in log_of(tmp_path)) == 9
    assert latest_checkpoint(tmp_path).name == "checkpoint-9"


def test_the_logged_losses_are_means_over_tokens(whole):
    lines = [line for line in log_of(whole) if "loss" in line]
    assert all(line["tokens"] > 0 for line in lines)
    mean = sum(line["loss"] * line["tokens"] for line in lines) / sum(line["tokens"] for line in lines)
    assert log_of(whole)[-1]["train_loss"] == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("harm", ["cut", "missing"])
def test_a_damaged_checkpoint_is_passed_over_whichever_of_its_files_it_is(whole, tmp_path, harm):
    for step in (3, 6):
        shutil.copytree(whole / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    for name in ("checkpoint-old", "checkpoint-", "checkpoint-1e3", "checkpoint-7 (copy)"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-12").write_text("a file")
    assert latest_checkpoint(tmp_path).name == "checkpoint-6"
    files = [path for path in (tmp_path / "checkpoint-6").iterdir() if path.stat().st_size]
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", TRAINER_STATE_NAME} <= {
        path.name for path in files
    }
    for path in files:
        content = path.read_bytes()
        path.unlink() if harm == "missing" else path.write_bytes(content[: len(content) // 2])
        assert latest_checkpoint(tmp_path).name == "checkpoint-3", path.name
        path.write_bytes(content)
    assert latest_checkpoint(tmp_path).name == "checkpoint-6"


def test_what_is_passed_over_is_said_and_what_is_not_a_checkpoint_stays(whole, tmp_path, capsys):
    shutil.copytree(whole / "checkpoint-6", tmp_path / "checkpoint-6")
    os.truncate(tmp_path / "checkpoint-6" / "optimizer.pt", 100)
    (tmp_path / "checkpoint-old").mkdir()
    os.utime(tmp_path / "checkpoint-old", (0, 0))
    planner = load_planner(tiny_config())
    samples = Dataset.from_list([sample(planner, index, 1) for index in range(EXAMPLES)])
    settings = {"max_steps": 7, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}
    finetune(planner, samples, None, read, arguments(tmp_path, **settings))
    said = capsys.readouterr().err
    assert "checkpoint-6 is not complete (optimizer.pt has 100 bytes instead of" in said
    assert "starting from the beginning." in said
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-old", "checkpoint-6", "checkpoint-7"}


def write_recording(root, rows):
    """A folder as `mtdrive record` leaves it."""
    (root / "samples").mkdir(parents=True)
    (root / "images").mkdir()
    full = [
        {"id": str(i), "turns": 1, "scores": [1.0], "sources": ["human"], "metric": "pdms_v1", "seed": 0}
        | row
        | {"image": f"{int(row['image']):032x}"}
        for i, row in enumerate(rows)
    ]
    shard = root / "samples" / "part-00000.parquet"
    pq.write_table(pa.Table.from_pylist(full, schema=SCHEMA), shard)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    recipe = {"metric": "pdms_v1", "feedback": "privileged", "feedback_steps": False}
    manifest = {
        "scene_set": asdict(SceneSet("train", "train", None)),
        "recipe": recipe,
        "samples": len(rows),
        "metric_version": 1,
        "wording": "compact",
    }
    manifest["wording_fingerprint"] = wording_fingerprint(PROMPTS["compact"])
    (root / "manifest.json").write_text(json.dumps(manifest | {"shards": {shard.name: digest}}))
    for row in rows:
        Image.fromarray(image(int(row["image"]))).save(root / "images" / f"{int(row['image']):032x}.jpg")


def test_the_verb_trains_saves_and_refuses_shared_scenes(planner, tmp_path, capsys):
    write_recording(tmp_path / "train", [sample(planner, index, 1) for index in range(4)])
    write_recording(tmp_path / "val", [sample(planner, index, 2) for index in range(4, 6)])
    command = ["sft", f"dataset={tmp_path}/train", f"out={tmp_path}/out", "max_steps=2", "eval_steps=2", "batch_size=2"]
    command += ["planner.tiny.hidden_size=32", "planner.tiny.layers=1", "logging_steps=1"]
    assert cli.main([*command, f"val_dataset={tmp_path}/val"]) == 0
    log = [json.loads(line) for line in (tmp_path / "out" / LOG_NAME).read_text().splitlines()]
    assert {"loss", "eval_loss", "eval_parse_rate", "eval_ade"} <= set().union(*log)
    assert load_planner(tiny_config(model=str(tmp_path / "out"))).model.config.text_config.hidden_size == 32
    assert cli.main([*command, f"val_dataset={tmp_path}/train"]) == 2
    assert "shares scene scene0" in capsys.readouterr().err


@pytest.fixture
def command(planner, tmp_path) -> list[str]:
    """`mtdrive sft` on a recording of four scenes, for three steps."""
    write_recording(tmp_path / "train", [sample(planner, index, 1) for index in range(4)])
    keys = [f"dataset={tmp_path}/train", f"out={tmp_path}/out", "max_steps=3", "batch_size=2", "save_steps=2"]
    return ["sft", *keys, "planner.tiny.hidden_size=32", "planner.tiny.layers=1"]


def test_a_finished_command_changes_nothing_and_goes_on_only_when_more_is_asked(command, tmp_path, capsys):
    """Also with fewer steps than a line of the log has."""
    assert cli.main(command) == 0
    summary = [line for line in capsys.readouterr().out.splitlines() if "planner in" in line]
    assert summary[0].startswith("3 steps, loss ")
    before = contents(tmp_path / "out")
    assert cli.main(command) == 0
    assert capsys.readouterr().out.splitlines() == summary
    assert contents(tmp_path / "out") == before
    assert cli.main([*command, "learning_rate=0.001"]) == 2
    assert "holds a run with learning_rate=0.003, not learning_rate=0.001" in capsys.readouterr().err
    assert cli.main([*command, "max_steps=2"]) == 2
    assert "checkpoint-3 has gone further than max_steps=2" in capsys.readouterr().err
    write_recording(tmp_path / "other", [sample(load_planner(tiny_config()), index, 2) for index in range(4)])
    assert cli.main([*command, f"dataset={tmp_path}/other"]) == 2
    assert "dataset_digest" in capsys.readouterr().err
    assert cli.main([*command, "batch_size=1", "gradient_accumulation_steps=2", "max_steps=4"]) == 0
    assert [line["step"] for line in log_of(tmp_path / "out")] == [2, 3, 4, 4]


def test_a_command_that_was_cut_off_while_it_saved_its_planner_saves_it_again(command, tmp_path, monkeypatch):
    save, out = PreTrainedModel.save_pretrained, tmp_path / "out"

    def half(model, folder, **kwargs):
        save(model, folder, **kwargs)
        if Path(folder) == out:  # no checkpoint
            os.truncate(out / "model.safetensors", 9)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", half)
        with pytest.raises(KeyboardInterrupt):
            cli.main(command)
    assert cli.main(command) == 0
    saved = [load_file(tmp_path / "out" / name / "model.safetensors") for name in (".", "checkpoint-3")]
    assert all(torch.equal(saved[0][name], weight) for name, weight in saved[1].items())
    assert [line["step"] for line in log_of(tmp_path / "out")] == [2, 3, 3]


@pytest.mark.parametrize("key", ["max_steps", "batch_size", "gradient_accumulation_steps", "logging_steps"])
def test_the_verb_refuses_numbers_below_one(command, capsys, key):
    assert cli.main([*command, f"{key}=0"]) == 2
    assert f"{key}=0 must be a whole number of at least 1" in capsys.readouterr().err


def test_the_verb_reports_to_tensorboard_and_computes_in_the_precision_asked_for(command, tmp_path, capsys):
    """Where a run reports to may change when it goes on; what is passed on to TRL may not."""
    out = tmp_path / "out"
    assert cli.main([*command, "logging_steps=1", "report_to=[tensorboard]", "trl.bf16=true"]) == 0
    [folder] = (out / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    logged = [line["loss"] for line in log_of(out) if "loss" in line]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(logged)
    assert cli.main([*command, "logging_steps=1", "max_steps=4"]) == 2
    assert "holds a run with trl={'bf16': True}, not trl={}" in capsys.readouterr().err
    assert cli.main([*command, "logging_steps=1", "max_steps=4", "trl.bf16=true"]) == 0
    assert len(list((out / "runs").iterdir())) == 1
    assert [line["step"] for line in log_of(out) if "loss" in line] == [1, 2, 3, 4]
