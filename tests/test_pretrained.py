"""Planner folders of others: broken weights and foreign tokenizers refused, no code run, nothing broken saved."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtdrive.planner.models import load_planner
from mtdrive.simulation.errors import MTDriveError
from support.planners import tiny_config
from support.training import make_trainer

WEIGHTS, ADAPTER, INDEX = "model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json"
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """`whole`, a saved planner, and `adapter`, one with LoRA on it."""
    root = tmp_path_factory.mktemp("planners")
    load_planner(tiny_config()).save(root / "whole")
    load_planner(tiny_config(model=str(root / "whole"), lora=LORA)).save(root / "adapter")
    return root


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved / "whole", tmp_path / "planner"))


def load(folder: Path):
    return load_planner(tiny_config(model=str(folder)))


def change(path: Path, **changes) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_half(weights: dict) -> dict:
    return dict(list(weights.items())[::2])


def with_value(value: float):
    def spoilt(weights: dict) -> dict:
        last = list(weights)[-1]
        weights[last].view(-1)[-1] = value
        return weights

    return spoilt


def of_another_shape(weights: dict) -> dict:
    last = list(weights)[-1]
    return weights | {last: weights[last].repeat_interleave(2, 0)}


def with_another(weights: dict) -> dict:
    return weights | {"model.layers.7.extra.weight": torch.zeros(3)}


BROKEN = pytest.mark.parametrize(
    ("broken", "message"),
    [
        (without_half, "lacks weights"),
        (with_value(torch.nan), "NaN"),
        (with_value(-torch.inf), "NaN or an infinite"),
        (of_another_shape, r"size mismatch|of another model"),
        (with_another, "layers.7.extra"),
    ],
    ids=["half", "nan", "infinite", "shape", "more"],
)


@BROKEN
@pytest.mark.parametrize(("kind", "file"), [("whole", WEIGHTS), ("adapter", ADAPTER)])
def test_broken_weights_are_refused_by_name(saved, tmp_path, kind, file, broken, message):
    """Whether a planner is loaded, or training would go on from them."""
    folder = Path(shutil.copytree(saved / kind, tmp_path / "planner"))
    save_file(broken(load_file(folder / file)), folder / file, {"format": "pt"})
    with pytest.raises(MTDriveError, match=message) as refused:
        load(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)
    trainer = make_trainer(replace(load(saved / kind), max_new_tokens=8), tmp_path / "out", 1)
    with pytest.raises(MTDriveError, match=message):
        trainer.train(resume_from_checkpoint=str(folder))


def shards(folder: Path) -> list[Path]:
    """Split the weights in two, as large models are saved."""
    weights = list(load_file(folder / WEIGHTS).items())
    (folder / WEIGHTS).unlink()
    parts = {f"model-0000{number}-of-00002.safetensors": dict(weights[number - 1 :: 2]) for number in (1, 2)}
    for name, part in parts.items():
        save_file(part, folder / name, {"format": "pt"})
    of_key = {key: name for name, part in parts.items() for key in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": of_key}))
    return [folder / name for name in parts]


def test_the_shards_of_a_planner_are_read_and_one_that_is_missing_or_cut_is_named(saved, folder):
    _, last = shards(folder)
    whole, split = (load(path).model.state_dict() for path in (saved / "whole", folder))
    assert all(torch.equal(split[name], weight) for name, weight in whole.items())
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(MTDriveError, match=last.name):
        load(folder)
    last.unlink()
    with pytest.raises(MTDriveError, match=last.name):
        load(folder)
    index = json.loads((folder / INDEX).read_text())
    kept = {key: name for key, name in index["weight_map"].items() if name != last.name}
    change(folder / INDEX, weight_map=kept)
    with pytest.raises(MTDriveError, match="lacks weights"):
        load(folder)


@pytest.mark.parametrize(("kind", "file"), [("whole", WEIGHTS), ("adapter", ADAPTER)])
def test_pickled_weights_are_not_read(saved, tmp_path, kind, file):
    folder = Path(shutil.copytree(saved / kind, tmp_path / "planner"))
    pickled = "pytorch_model.bin" if file == WEIGHTS else "adapter_model.bin"
    torch.save(load_file(folder / file), folder / pickled)
    (folder / file).unlink()
    with pytest.raises(MTDriveError, match=file):
        load(folder)


def test_a_planner_with_weights_that_are_not_finite_is_not_saved(saved, tmp_path):
    planner = replace(load(saved / "whole"), max_new_tokens=8)
    trainer = make_trainer(planner, tmp_path / "out", 1)
    with torch.no_grad():
        planner.model.lm_head.weight[3, 5] = torch.nan
    for save in (planner.save, trainer.save_model):
        with pytest.raises(MTDriveError, match=r"learning_rate"):
            save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def of_another_planner(folder: Path) -> None:
    change(
        folder / "tokenizer.json", model=json.loads((folder / "tokenizer.json").read_text())["model"] | {"vocab": {}}
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "tokenizer of another model"),
        (of_another_planner, "tokenizer"),
        (lambda folder: change(folder / "config.json", image_token_id=3), "image token"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "chat template"),
    ],
    ids=["no tokenizer", "another vocabulary", "another image token", "no template"],
)
def test_a_processor_that_does_not_fit_its_model_is_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(MTDriveError, match=message):
        load(folder)


OWN_CLASSES = dict.fromkeys(("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor"), "own.Own")
OWN_TOKENIZER = {"AutoTokenizer": ["own.Own", "own.Own"]}


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"auto_map": OWN_CLASSES}),
        ("config.json", {"auto_map": OWN_CLASSES, "model_type": "own"}),
        ("config.json", {"attn_implementation": {"text_config": "own/kernel"}}),
        ("processor_config.json", {"auto_map": OWN_CLASSES, "processor_class": "Own"}),
        ("tokenizer_config.json", {"auto_map": OWN_TOKENIZER, "tokenizer_class": "Own"}),
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "/nowhere", "auto_map": OWN_CLASSES}),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_code_that_a_planner_brings_is_never_run_nor_asked_about(folder, monkeypatch, file, changes, hidden):
    """Also where the key is spelt in a way that only a JSON reader understands; what is known may then be loaded."""
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail(prompt))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Own: pass\n")
    path = folder / file
    text = json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes)
    path.write_text(text.replace("auto_map", "auto\\u005fmap") if hidden else text)
    with suppress(MTDriveError) if hidden else pytest.raises(MTDriveError, match=str(folder)):
        load(folder)
    assert not (folder / "ran").exists()


def test_a_chat_template_is_rendered_in_a_sandbox(folder):
    ran = folder / "ran"
    template = f"{{{{ cycler.__init__.__globals__.os.system('touch {ran}') }}}}"
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(MTDriveError, match="chat template"):
        load(folder)
    assert not ran.exists()


SAVE = """
import sys
from mtdrive.planner.models import load_planner
from mtdrive.settings import planner_settings
load_planner(planner_settings("tiny")).save(sys.argv[1])
"""


def test_a_saved_planner_is_the_same_for_every_hash_seed(tmp_path):
    made = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE, tmp_path / seed],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for seed in "012"
    ]
    assert [process.wait(timeout=300) for process in made] == [0, 0, 0]
    digests = [
        {path.name: sha256(path.read_bytes()).hexdigest() for path in (tmp_path / seed).iterdir()} for seed in "012"
    ]
    assert "tokenizer.json" in digests[0]
    assert digests[0] == digests[1] == digests[2]
