"""The draft heads of `step_flash_tiny`: architecture, files, what they learn from, and that the planner never notices.

Paper: Step 3.5 Flash, arXiv 2602.10604.
"""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import DynamicCache
from transformers.modeling_layers import MtpModel
from transformers.models.step3p7.modeling_step3p7 import Step3p7MLP, Step3p7RMSNorm

from mtdrive.planner.models import Planner, load_planner
from mtdrive.planner.settings import PlannerSettings
from mtdrive.rollout.sampling import sampling_params
from mtdrive.rollout.shared_prefix import enable
from mtdrive.settings import planner_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.draft_heads import DraftLearner, DraftTargets, depth_losses
from mtdrive.training.log_probs import Continuation, add_scoring, plain_inputs, shared_prefix_inputs
from mtdrive.training.sft_trainer import finetune
from support import fine_tuning
from support.planners import step_flash_config
from support.training import SETTINGS, any_text, load, make_trainer, steps_of, weights

LAYERS, WINDOW = 4, 32
SIZES = {"layers": LAYERS, "clamped_layers": 1}
WEIGHTS = "model.safetensors"


def config(**changes) -> PlannerSettings:
    return step_flash_config(step_flash=SIZES | changes.pop("step_flash", {}), **changes)


@pytest.fixture
def planner() -> Planner:
    return load_planner(config())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planner")
    load_planner(config()).save(folder)
    return folder


def masks(length: int, window: int | None) -> torch.Tensor:
    """Who sees whom in a row, as an attention mask."""
    ahead = torch.arange(length)[:, None] - torch.arange(length)
    return ((ahead >= 0) & (ahead < (window or length)))[None, None]


def drafts(planner, ids) -> torch.Tensor:
    """Logits of all depths after a row of tokens."""
    ids, heads = torch.as_tensor(ids)[None], planner.draft_heads
    width = ids.shape[1] - len(heads.kinds)
    positions, logits = torch.arange(width)[None], []
    with torch.no_grad():
        hidden = planner.model.model.language_model(input_ids=ids[:, :width]).last_hidden_state
        for depth in range(len(heads.kinds)):
            shifted = ids[:, depth + 1 : depth + 1 + width]
            hidden = heads.step(depth, hidden, shifted, positions, attention_mask=masks(width, WINDOW))
            logits.append(heads.logits(hidden))
    return torch.stack(logits)


def test_a_head_is_dense_attends_within_the_window_and_owns_neither_embedding_nor_head():
    planner = load_planner(planner_settings("step_flash_tiny"))
    heads, text = planner.draft_heads, planner.model.config.text_config
    assert text.num_nextn_predict_layers == 3
    assert (text.mtp_layer_types, text.mtp_mlp_layer_types) == (["sliding_attention"] * 3, ["dense"] * 3)
    for depth, layer in enumerate(heads.layers):
        attention = layer.mtp_block.self_attn
        assert (attention.layer_idx, attention.sliding_window, attention.num_heads) == (8 + depth, WINDOW, 6)
        assert isinstance(layer.mtp_block.mlp, Step3p7MLP)
        assert layer.eh_proj.weight.shape == (96, 2 * 96)
        assert layer.eh_proj.weight.std().item() == pytest.approx(0.08, rel=0.05)
    norms = [module for module in heads.modules() if isinstance(module, Step3p7RMSNorm)]
    assert len(norms) == 3 * 7
    assert not any(norm.weight.any() for norm in norms)  # centred at zero
    assert {name.split(".")[0] for name, _ in heads.named_parameters()} == {"layers"}
    assert not {id(weight) for weight in heads.parameters()} & {id(weight) for weight in planner.model.parameters()}


def test_weights_follow_the_seed_and_leave_the_model_as_it_is_without_heads():
    with_heads, again, other = (load_planner(config(seed=seed)) for seed in (3, 3, 4))
    first = [planner.draft_heads.layers[2].eh_proj.weight for planner in (with_heads, again, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    without = load_planner(config(seed=3, step_flash={"draft_heads": 0}))
    assert without.draft_heads is None
    assert all(torch.equal(*pair) for pair in zip(weights(with_heads).values(), weights(without).values(), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draft_heads": -1}, "draft_heads=-1 must be a whole number"),
        ({"clamped_layers": 2}, r"draft_heads=3 must not be more than .*layers=4 less .*clamped_layers=2\."),
    ],
)
def test_a_number_of_heads_that_no_model_has_is_one_sentence(changes, message):
    with pytest.raises(MTDriveError, match=message):
        config(step_flash=changes)


def test_their_attention_is_the_one_that_the_model_is_switched_to(planner):
    enable(planner.model)
    calls = []

    class Segments:
        def attend(self, layer, query, key, value, scaling, window):
            calls.append((layer, window))
            return query.transpose(0, 1)

    hidden, ids = torch.zeros(1, 5, 32), torch.arange(5)[None]
    planner.draft_heads.step(1, hidden, ids, ids, attention_mask=masks(1, None), segments=Segments())
    assert calls == [(LAYERS + 1, WINDOW)]


def test_transformers_own_reader_finds_the_same_heads(saved):
    planner = load_planner(planner_settings(str(saved)))
    theirs = MtpModel.from_pretrained(planner.model)
    ids = torch.randint(0, 300, (1, 50), generator=torch.Generator().manual_seed(0))
    expected = drafts(planner, ids[0])
    with torch.no_grad():
        hidden = planner.model.model.language_model(input_ids=ids[:, :-3]).last_hidden_state
        for depth in range(3):
            shifted = ids[:, depth + 1 : depth - 2 or None]
            positions = torch.arange(depth + 1, depth + 48)[None]  # of the shifted tokens; only differences matter
            hidden = theirs.forward_layer(depth, hidden, positions, DynamicCache(config=theirs.config), shifted)
            torch.testing.assert_close(theirs.shared_head(hidden), expected[depth], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [None, "100KB"], ids=["", "in_shards"])
def test_saved_and_loaded_it_drafts_the_same(planner, saved, tmp_path, size):
    if size is not None:
        state = planner.model.state_dict() | planner.draft_heads.saved_weights()
        planner.model.save_pretrained(tmp_path, state_dict=state, max_shard_size=size)
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        planner.draft_heads.load(tmp_path)
    else:
        planner.save(tmp_path)
    loaded = load_planner(planner_settings(str(saved)))
    ids = np.arange(40, 90)
    assert torch.equal(drafts(planner, ids), drafts(loaded, ids))
    assert "model.layers.6.post_norm.weight" in load_file(saved / WEIGHTS)  # as in released checkpoints


def test_missing_or_spoilt_weights_of_heads_are_one_sentence(planner, tmp_path):
    planner.save(tmp_path)
    whole = load_file(tmp_path / WEIGHTS)
    spoilt = {name: weight.clone() for name, weight in whole.items()}
    spoilt["model.layers.5.eh_proj.weight"][0, 0] = torch.nan
    cases = [
        ({name: weight for name, weight in whole.items() if ".layers.6.hnorm" not in name}, "lacks a weight of its 3"),
        ({name: weight for name, weight in whole.items() if ".enorm." not in name}, "set num_nextn_predict_layers in"),
        (spoilt, "layers.1.eh_proj.weight holds NaN"),
        (whole | {"model.layers.4.eh_proj.weight": torch.zeros(3, 3)}, "of another shape"),
        (whole | {"model.layers.7.eh_proj.weight": torch.zeros(3, 3)}, "model does not"),
    ]
    for content, message in cases:
        save_file(content, tmp_path / WEIGHTS, {"format": "pt"})
        with pytest.raises(MTDriveError, match=message) as refused:
            load_planner(planner_settings(str(tmp_path)))
        assert "\n" not in str(refused.value)
    with torch.no_grad():
        planner.draft_heads.layers[0].enorm.weight[0] = torch.inf
    with pytest.raises(MTDriveError, match=r"layers\.4\.enorm\.weight NaN or infinite"):
        planner.save(tmp_path)


def test_an_adapter_keeps_the_heads_of_its_base(saved, tmp_path):
    base = load_planner(planner_settings(str(saved)))
    lora = {"r": 2, "target_modules": ["q_proj"]}
    adapted = replace(
        load_planner(replace(planner_settings(str(saved)), lora=lora)), parse_answer=any_text, max_new_tokens=4
    )
    assert not any("lora" in name for name, _ in adapted.draft_heads.named_parameters())
    before = {name: weight.clone() for name, weight in adapted.draft_heads.state_dict().items()}
    trainer = make_trainer(adapted, tmp_path, 1)
    trainer.train()
    trainer.save_planner(adapted.card)
    assert not any(name.startswith("draft/") for name in steps_of(trainer)[0])
    loaded = load_planner(planner_settings(str(tmp_path)))
    for planner in (adapted, loaded, base):
        assert all(torch.equal(weight, before[name]) for name, weight in planner.draft_heads.state_dict().items())


def reference(planner, prompt, said, action, *, shared: bool) -> list[list[tuple[float, int]]]:
    """Position by position, on nothing but the tokens up to each: (loss, target) of every target, of each depth.

    shared: whether what comes after the prompt is unknown to the prompt's heads.
    """
    ids, start, heads = np.concatenate([prompt.ids, said]), len(prompt.ids), planner.draft_heads
    written = np.concatenate([np.zeros(start, bool), action])
    found: list[list] = [[] for _ in heads.kinds]
    for position in range(start - 1, len(ids)):
        row = torch.from_numpy(ids[None, : position + 1])
        with torch.no_grad():
            hidden = planner.model.model(input_ids=row, pixel_values=prompt.images["pixel_values"]).last_hidden_state
        for depth, kind in enumerate(heads.kinds):
            target = position + depth + 2
            if target >= len(ids) or not written[position + 1 : target + 1].all():
                break
            seen = [
                ids[min(place + depth + 1, start - 1) if shared and place < start - 1 else place + depth + 1]
                for place in range(position + 1)
            ]
            mask = masks(position + 1, WINDOW if kind == "sliding_attention" else None)
            places = torch.arange(position + 1)[None]
            hidden = heads.step(depth, hidden, torch.tensor([seen]), places, attention_mask=mask)
            logits = heads.logits(hidden[0, -1])
            found[depth].append((cross_entropy(logits, torch.tensor(ids[target])).item(), int(ids[target])))
    return found


def conversations(planner):
    """Prompts of two lengths; episodes of one and two turns, of which one answer is a single token."""
    prompts = [task.prompt for task in load(planner).values()][:2]
    more = np.array([40, 41, 42])
    prompts[1] = replace(
        prompts[1], ids=np.append(prompts[1].ids, more), token_types=np.append(prompts[1].token_types, 0 * more)
    )
    random = np.random.default_rng(0)
    shapes = [(0, [5]), (0, [4, -6, 5]), (1, [1, -3, 6]), (1, [7])]  # scene; tokens of the planner, - of feedback
    return prompts, [
        Continuation(
            scene,
            random.integers(20, 300, sum(map(abs, parts))),
            np.concatenate([np.repeat(part > 0, abs(part)) for part in parts]),
        )
        for scene, parts in shapes
    ]


def check_against_reference(planner, make_inputs, shared):
    planner.model.train()
    add_scoring(planner.model, sampling_params(planner.model, planner.processor.tokenizer))
    prompts, episodes = conversations(planner)
    inputs = make_inputs(planner.model, prompts, episodes)
    learner = DraftLearner(planner.draft_heads, torch.optim.SGD(planner.draft_heads.parameters()), 0.0)
    planner.model(**inputs)
    draft = DraftTargets(inputs["input_ids"], inputs["scored"], prompts if shared else ())
    results = depth_losses(planner.draft_heads, draft, learner.hidden, inputs)
    planner.model.eval()
    expected = [reference(planner, prompts[c.scene], c.ids, c.action_mask, shared=shared) for c in episodes]
    for depth, (losses, _) in enumerate(results):
        wanted = [pair for episode in expected for pair in episode[depth]]
        assert len(wanted) == [22, 17, 12][depth]
        torch.testing.assert_close(losses.detach(), torch.tensor([loss for loss, _ in wanted]), atol=2e-5, rtol=1e-5)
        assert draft.targets(depth)[1].tolist() == [target for _, target in wanted]


def test_losses_of_padded_rows_are_those_of_every_position_alone(planner):
    check_against_reference(planner, plain_inputs, shared=False)


def test_losses_of_packed_episodes_too(planner):
    enable(planner.model)
    check_against_reference(planner, shared_prefix_inputs, shared=True)


def test_nothing_reaches_the_planners_gradients_and_every_weight_of_the_heads_learns(planner):
    planner.model.train()
    add_scoring(planner.model, sampling_params(planner.model, planner.processor.tokenizer))
    prompts, episodes = conversations(planner)
    inputs = plain_inputs(planner.model, prompts, episodes)
    learner = DraftLearner(planner.draft_heads, torch.optim.SGD(planner.draft_heads.parameters()), 0.0)
    planner.model(**inputs)
    learner.learn(DraftTargets(inputs["input_ids"], inputs["scored"]), inputs, nullcontext())
    assert all(weight.grad is None for weight in planner.model.parameters())
    assert all(weight.grad.any() for weight in planner.draft_heads.parameters())


def tune(planner, out, **changes):
    samples = Dataset.from_list([fine_tuning.sample(planner, index, 1) for index in range(4)])
    arguments = {"max_steps": 16, "per_device_train_batch_size": 2, "logging_steps": 4, **changes}
    return finetune(planner, samples, None, fine_tuning.read, fine_tuning.arguments(out, **arguments))


def curve(trainer, prefix=("loss", "grad_norm", "experts/", "draft/")) -> list[dict]:
    return [
        {name: value for name, value in line.items() if name.startswith(prefix)}
        for line in trainer.state.log_history
        if "loss" in line
    ]


def test_heads_learn_in_supervised_fine_tuning_and_the_planner_does_not_notice(tmp_path):
    planner, without = (load_planner(config(step_flash={"draft_heads": heads})) for heads in (3, 0))
    trainer, plain = tune(planner, tmp_path / "heads"), tune(without, tmp_path / "none")
    policy = ("loss", "grad_norm", "experts/")
    assert curve(trainer, policy) == curve(plain, policy)
    assert all(torch.equal(*pair) for pair in zip(weights(planner).values(), weights(without).values(), strict=True))
    first, *_, last = curve(trainer)
    for depth in (1, 2, 3):
        assert last[f"draft/agreement_{depth}"] > first[f"draft/agreement_{depth}"] + 0.15
        assert last[f"draft/loss_{depth}"] < first[f"draft/loss_{depth}"] - 1
    assert not any(name.startswith("draft/") for line in curve(plain) for name in line)


def test_a_resumed_run_has_the_same_heads_and_the_same_log(tmp_path):
    def train(out, steps):
        planner = load_planner(config())
        trainer = tune(planner, tmp_path / out, max_steps=steps, logging_steps=1, save_strategy="steps", save_steps=2)
        return [*planner.draft_heads.parameters()], curve(trainer)

    whole = train("whole", 4)
    train("resumed", 2)
    heads, lines = train("resumed", 4)
    assert all(torch.equal(*pair) for pair in zip(whole[0], heads, strict=True))
    assert lines == whole[1]


def test_in_reinforcement_learning_heads_follow_the_planner_which_does_not_notice(saved, tmp_path):
    made = [load_planner(planner_settings(str(saved))) for _ in range(2)]
    following, left = (replace(planner, parse_answer=any_text, max_new_tokens=8) for planner in made)
    before = [weight.clone() for weight in left.draft_heads.parameters()]
    trainers = [
        make_trainer(
            planner,
            tmp_path / str(learning),
            2,
            settings=replace(SETTINGS, train_draft_heads=learning),
            beta=0.1,  # passes of the reference, from which nothing is learnt
        )
        for planner, learning in ((following, True), (left, False))
    ]
    for trainer in trainers:
        trainer.train()
    curves = [curve(trainer, ("loss", "grad_norm", "reward", "kl", "experts/")) for trainer in trainers]
    assert curves[0] == curves[1]
    assert all(torch.equal(*pair) for pair in zip(weights(following).values(), weights(left).values(), strict=True))
    assert not any(torch.equal(*pair) for pair in zip(before, following.draft_heads.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in zip(before, left.draft_heads.parameters(), strict=True))
    assert all("draft/loss_3" in line for line in steps_of(trainers[0]))
    assert not any("draft/loss_3" in line for line in steps_of(trainers[1]))
    trainers[0].save_planner(following.card)
    loaded = load_planner(planner_settings(str(tmp_path / "True")))
    following.model.eval()
    ids = np.arange(40, 90)
    assert torch.equal(drafts(following, ids), drafts(loaded, ids))
