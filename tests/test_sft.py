"""Supervised fine-tuning: what is a target, that images matter, that it learns, resumes, and runs from the verb."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from PIL import Image
from test_planner import tiny_config
from trl import SFTConfig

from mtdrive import cli
from mtdrive.datasets.schema import SCHEMA
from mtdrive.planner.images import ImageInputs
from mtdrive.planner.models import load_planner
from mtdrive.planner.prompt import SceneView
from mtdrive.simulation.scene import DrivingCommand
from mtdrive.training.checkpoints import LOG_NAME, latest_checkpoint
from mtdrive.training.sft import PlannerCollator, answer_metrics, finetune, tokenise

FEEDBACK = "Travel -2.00 by +4.00. PDMS +0.50."
EXAMPLES = 8


def image(index: int) -> np.ndarray:
    """A bright square on grey, whose place tells the example."""
    pixels = np.full((90, 160, 3), 110, np.uint8)
    pixels[20:70, 18 * index : 18 * index + 30] = 240
    return pixels


def plan(index: int) -> np.ndarray:
    seconds = 0.5 * np.arange(1, 9)
    return np.column_stack([(1.0 + index) * seconds, 0.1 * (index - 4) * seconds, np.zeros(8)])


def sample(planner, index: int, turns: int) -> dict:
    """The right plan for image `index`, after `turns` - 1 plans of 9 m/s and their feedback."""
    seen = SceneView(f"scene{index}", "", np.zeros((4, 3)), np.zeros(2), np.zeros(2), DrivingCommand.STRAIGHT)
    exchanges = [(planner.format_answer(plan(8)), FEEDBACK)] * (turns - 1)
    answer = {"role": "assistant", "content": [{"type": "text", "text": planner.format_answer(plan(index))}]}
    return {"messages": [*planner.messages(seen, exchanges), answer], "image": str(index), "token": seen.token}


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


def arguments(out, **changes) -> SFTConfig:
    settings = {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 5,
        "save_strategy": "no",
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "activation_checkpointing": False,
        "report_to": [],
    }
    return SFTConfig(output_dir=str(out), **settings | changes)


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


def test_a_resumed_run_equals_an_uninterrupted_one(samples, tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1}
    results = {}
    for name in ("whole", "resumed"):
        if name == "resumed":
            shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
            (tmp_path / "resumed" / "checkpoint-4").mkdir()  # cut off before its state was written
            assert latest_checkpoint(tmp_path / "resumed").name == "checkpoint-2"
        planner = load_planner(tiny_config())
        finetune(planner, samples, None, lambda name: image(int(name)), arguments(tmp_path / name, **settings))
        results[name] = planner.model.state_dict()
    for name, weight in results["whole"].items():
        torch.testing.assert_close(results["resumed"][name], weight, rtol=0, atol=0)
    logs = [(tmp_path / name / LOG_NAME).read_text().splitlines() for name in results]
    steps, losses = ([[json.loads(line).get(key) for line in log[:6]] for log in logs] for key in ("step", "loss"))
    assert steps == [[1, 2, 3, 4, 5, 6]] * 2
    assert losses[0] == losses[1]


def write_recording(root, rows):
    """A folder as `mtdrive record` leaves it."""
    (root / "samples").mkdir(parents=True)
    (root / "images").mkdir()
    full = [
        {"id": str(i), "turns": 1, "scores": [1.0], "sources": ["human"], "metric": "pdms_v1", "seed": 0} | row
        for i, row in enumerate(rows)
    ]
    shard = root / "samples" / "part-00000.parquet"
    pq.write_table(pa.Table.from_pylist(full, schema=SCHEMA), shard)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    (root / "manifest.json").write_text(json.dumps({"shards": {shard.name: digest}}))
    for row in rows:
        Image.fromarray(image(int(row["image"]))).save(root / "images" / f"{row['image']}.jpg")


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
