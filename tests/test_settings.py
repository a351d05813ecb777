"""What a verb can be told: keys, types and bounds, and the sentence for everything else."""

import re
from dataclasses import asdict, fields

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from mtdrive.cli import main
from mtdrive.settings import CONFIGS, load_settings
from mtdrive.settings.validate import typed
from mtdrive.settings.verbs import VERBS
from mtdrive.simulation.errors import MTDriveError

ROOTS = ["openscene_data_root=data", "nuplan_maps_root=maps", "navsim_exp_root=exp"]
NEEDED = {  # by each verb, besides
    "quickstart": [],
    "synth": ["out=out"],
    "cache": [*ROOTS, "split=train"],
    "score": [*ROOTS, "trajectories=plans.npz", "out=scores.csv"],
    "record": [*ROOTS, "out=out"],
    "sft": [*ROOTS, "dataset=dataset", "out=out"],
    "rl": [*ROOTS, "planner=outputs/sft", "out=out"],
    "evaluate": [*ROOTS, "planner=tiny"],
    "compare": [*ROOTS, "first", "second"],
    "submit": [
        *ROOTS,
        "planner=tiny",
        *(f"{key}=x" for key in ("team_name", "authors", "email", "institution", "country")),
    ],
    "visualize": [*ROOTS, "out=out"],
    "bench": ROOTS,
    "doctor": ROOTS,
}
WRONG = ("abc", "2.5", "-1", "0", "1e1", "true", "null", "[]", "[abc]", "{a: 1}", "''", "nan", "inf", str(10**30))

AS_TYPED = ("tokens", "token", "explain", "runs")  # a number that is no text to Hydra is one here
ANY = re.compile(r"^(trl|vllm\.options|planner\.lora|stages\.[^.]+\.keys)\.")  # what others take, unseen


def keys_of(values: object, prefix: str = "") -> list[str]:
    """The keys of composed settings, those of groups as group.key."""
    if not isinstance(values, dict):
        return [prefix]
    own = [prefix] if prefix else []
    return own + [key for name, value in values.items() for key in keys_of(value, f"{prefix}.{name}".lstrip("."))]


def with_value(values: dict, key: str, value: object) -> dict:
    """Settings with another value at a key."""
    name, _, inner = key.partition(".")
    return values | {name: with_value(values[name], inner, value) if inner else value}


@pytest.mark.parametrize("verb", VERBS)
def test_the_yaml_file_and_the_class_have_the_same_keys(verb):
    text = (CONFIGS / f"{verb}.yaml").read_text()
    own, types = yaml.safe_load(text), {field.name for field in fields(VERBS[verb].settings)}
    shared = {
        key
        for part in ("paths", "scenes")
        if part in own.get("defaults", [])
        for key in yaml.safe_load((CONFIGS / f"{part}.yaml").read_text())
    }
    groups = {next(iter(group)) for group in own.pop("defaults", []) if isinstance(group, dict)} - {"preset"}
    assert own.keys() | shared | groups == types - ({"turns"} if verb == "quickstart" else set())  # in the presets


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_value_of_any_key_ends_with_one_sentence(verb, tmp_path, monkeypatch, capsys):
    """Of a dozen values each is either what the key takes, or refused by name before anything is written.

    The keys of a planner, which are the same for all verbs, are tried with `sft`.
    """
    monkeypatch.chdir(tmp_path)
    good, parser = asdict(load_settings(verb, NEEDED[verb])), OverridesParser.create()
    for key in (key for key in keys_of(good) if not ANY.search(key)):
        if key.startswith("planner.") and verb != "sft":
            continue
        refused = []
        for text in WRONG:
            value = parser.parse_override(f"key={text}").value()
            try:
                typed(VERBS[verb].settings, with_value(good, key, value))
            except MTDriveError as error:
                refused.append(f"{key}={text}")
                assert key.split(".")[0] in str(error)  # noqa: PT017
        assert len(refused) >= 2, key
        refused = [override for override in refused if key not in AS_TYPED or "''" in override]
        assert main([verb, *NEEDED[verb], refused[0]]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"mtdrive {verb}: ")
        assert key.split(".")[0] in said
        assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "override", "sentence"),
    [
        ("rl", "turns=abc", "turns=abc must be a whole number of at least 1."),
        ("evaluate", "turns=2.5", "turns=2.5 must be a whole number of at least 1."),
        ("evaluate", "limit=-1", "limit=-1 must be a whole number of at least 1, or null."),
        ("evaluate", "limit=1e1", "limit=10.0 must be a whole number of at least 1, or null."),
        (
            "evaluate",
            "baselines=human",
            "baselines=human must be a list of values, each one of constant_velocity, standstill, human, pdm_closed.",
        ),
        ("synth", "close_calls=nope", "close_calls=nope must be a number from 0 to 1."),
        ("synth", "image_size=[640,1]", "image_size.1=1 must be a whole number from 32 to 8192."),
        ("rl", "vllm.mode=fast", "vllm.mode=fast must be one of colocate, server."),
        ("cache", "workers=all", "workers=all must be a whole number from 1 to 1024, or ray."),
        ("cache", "split=../test", "split=../test must be a name of letters, digits, _ and -, or null."),
        (
            "rl",
            "planner=nothing",
            "planner=nothing is neither a planner (mtdrive_rl, mtdrive_sft, qwen2_5_vl_7b, step_flash, "
            "step_flash_tiny, tiny) nor the folder of one.",
        ),
    ],
)
def test_the_sentence_names_key_value_and_what_is_allowed(verb, override, sentence):
    with pytest.raises(MTDriveError) as refused:
        load_settings(verb, [*NEEDED[verb], override])
    assert str(refused.value) == sentence


def test_open_groups_take_any_key_and_tokens_stay_text():
    rl = load_settings("rl", [*NEEDED["rl"], 'vllm.options={server_base_url: "http://here"}', "trl.bf16=true"])
    assert rl.vllm.options["server_base_url"] == "http://here"
    assert rl.trl == {"bf16": True}
    assert load_settings("sft", [*NEEDED["sft"], "planner.lora.r=4"]).planner.lora == {"r": 4}
    typed = ["1234567890123e12", "6992452986292901", "0012345678901234", "5118e69f55dd7a54"]
    assert load_settings("cache", [*NEEDED["cache"], f"tokens=[{', '.join(typed)}]"]).named_tokens == typed
    for token in typed:
        assert load_settings("score", [*NEEDED["score"], f"explain={token}"]).explain == token
        assert load_settings("visualize", [*NEEDED["visualize"], f"token={token}"]).shown == [token]


def test_a_folder_is_a_planner():
    planner = load_settings("evaluate", [*ROOTS, "planner=outputs/rl", "planner.device=cpu"]).planner
    assert (planner.model, planner.prompt, planner.device) == ("outputs/rl", None, "cpu")
