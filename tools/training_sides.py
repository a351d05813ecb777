"""One side of `python tools/bench_training.py`, in a process of its own: stock TRL, or ours. Asked by lines of JSON.

Stock is TRL's GRPOTrainer as it is installed: its generation, its loss, its padded batch. Several turns come from its
`rollout_func`, which calls the trainer's own generation for every turn, on the conversation so far, for all episodes at
once: the way of TRL's own loop over tool calls. Between turns TRL keeps nothing: it encodes each episode's image
and computes the keys and values of its conversation anew.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.autograd import DeviceType
from training_workload import Material, Workload, conversation, material
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from mtdrive.planner.answer import Parsed
from mtdrive.planner.tokens import feedback_delta_ids
from mtdrive.rollout import shared_prefix
from mtdrive.rollout.multi_turn import Task
from mtdrive.simulation.feedback.text import render_text
from mtdrive.simulation.feedback.worker_pool import InProcessAssessor
from mtdrive.training import mtgrpo_trainer as mtgrpo
from mtdrive.training.advantages import estimator
from mtdrive.training.expert_balance import ExpertBalance
from mtdrive.training.log_probs import Continuation, add_scoring, plain_inputs, shared_prefix_inputs
from mtdrive.training.mtgrpo_trainer import MTGRPOSettings, MTGRPOTrainer

STEPS = 10_000  # more than are ever asked for


class Meter:
    """Seconds and peak memory by phase of a step.

    Phases: vision and prefill (forward passes in generation over images, and over more than one token a row), scoring,
    generation (the whole of it), and step. Memory is this process's resident set, or what is allocated on the GPU.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.peaks: dict[str, int] = {}

    def now(self) -> float:
        """The clock [s], when the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The block's time counts for a phase."""
        started = self.now()
        yield
        self.seconds[name] += self.now() - started

    def reset_peak(self) -> None:
        """Begin anew to look for the peak memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def take_peak(self, name: str) -> None:
        """The peak since the last reset is that of phase `name`."""
        cuda = self.device.type == "cuda"
        self.peaks[name] = torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")
        self.reset_peak()

    def watch(self, model) -> None:
        """Tell vision and prefill apart in the forward passes of generation."""
        started: list[float] = []

        def width(kwargs: dict) -> int:
            segments = kwargs.get("segments")
            return segments.rows.width if segments is not None else kwargs["inputs_embeds"].shape[1]

        def before(*_, **__) -> None:
            if not torch.is_grad_enabled():
                started.append(self.now())

        def after_vision(*_, **__) -> None:
            if not torch.is_grad_enabled():
                self.seconds["vision"] += self.now() - started.pop()

        def after_text(module, arguments, kwargs, output) -> None:
            if not torch.is_grad_enabled():
                took = self.now() - started.pop()
                self.seconds["prefill" if width(kwargs) > 1 else "decode forward"] += took

        for part, after in ((model.get_encoder("image"), after_vision), (model.get_decoder(), after_text)):
            part.register_forward_pre_hook(before, with_kwargs=True)
            part.register_forward_hook(after, with_kwargs=True)


def resident(name: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak) of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


class OneStepAtATime(TrainerCallback):
    """Makes a step whenever a line comes in, and answers with what it took; an end of lines ends the training."""

    def __init__(self, meter: Meter, facts: Callable[[], dict]):
        self.meter, self.facts = meter, facts

    def _wait(self, control) -> None:
        wish = sys.stdin.readline()
        if not wish:
            control.should_training_stop = True
        self.profile = torch.profiler.profile() if wish.strip() == "profile" else None
        if self.profile:
            self.profile.start()
        self.meter.seconds.clear()
        self.meter.reset_peak()
        self.started, self.cpu = self.meter.now(), time.process_time()

    def on_train_begin(self, args, state, control, **kwargs):
        """Wait for the first wish."""
        self._wait(control)

    def on_step_end(self, args, state, control, **kwargs):
        """Answer, and wait for the next wish."""
        seconds = {"step": self.meter.now() - self.started, "cpu": time.process_time() - self.cpu}
        self.meter.take_peak("loss")
        idle = {"idle": self._idle(seconds["step"])} if self.profile else {}
        answer({"seconds": {**self.meter.seconds, **seconds}, "peaks": self.meter.peaks, **idle, **self.facts()})
        self._wait(control)

    def _idle(self, seconds: float) -> float:
        """Share of the step in which no kernel ran on the GPU."""
        self.profile.stop()
        kernels = [e for e in self.profile.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        return 1.0 - sum(kernel.time_range.elapsed_us() for kernel in kernels) * 1e-6 / seconds


def answer(message: dict) -> None:
    """Send a line of JSON to the process that asks."""
    print(json.dumps(message), file=ANSWERS, flush=True)


def arguments(workload: Workload, out: str, **changes: object) -> GRPOConfig:
    """The same for both sides."""
    return GRPOConfig(
        output_dir=out,
        max_steps=STEPS,
        per_device_train_batch_size=workload.episodes // workload.passes,
        gradient_accumulation_steps=workload.passes,
        steps_per_generation=workload.passes,
        num_generations=workload.group,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        beta=0.0,
        loss_type="dapo",
        shuffle_dataset=False,
        save_strategy="no",
        logging_steps=1,
        use_cpu=workload.device == "cpu",
        bf16=False,
        activation_checkpointing=workload.recompute,
        disable_tqdm=True,
        report_to=[],
        **changes,
    )


def ours(workload: Workload, given: Material, meter: Meter, out: str) -> tuple[MTGRPOTrainer, list]:
    """Our trainer, and a list that will hold what the last step's episodes said."""
    # Random weights write no plan: whatever the answer, `FixedPlans` is asked. No answer ends by itself.
    planner = replace(given.planner, parse_answer=lambda text: Parsed(np.zeros((8, 3)), None))
    mtgrpo.sampling_params = lambda *_: given.params
    tasks = {token: Task.from_scene(planner, given.scenes[token], given.images[token]) for token in given.scenes}
    trainer = MTGRPOTrainer(
        planner,
        arguments(workload, out),
        # Stock leaves the routers' biases where they are.
        MTGRPOSettings(workload.turns, estimator("mtgrpo"), experts=ExpertBalance(balance_rate=0.0)),
        list(tasks) * STEPS,
        tasks.__getitem__,
        InProcessAssessor(lambda scene, poses: scored(meter, given, scene, poses)),
    )
    said: list = []
    generate = trainer.rollout

    def kept(inputs):
        batches = generate(inputs)
        said[:] = [[c.ids.tolist(), c.action_mask.tolist()] for batch in batches for c in batch.continuations]
        return batches

    trainer.rollout = kept
    return trainer, said


def scored(meter: Meter, given: Material, scene, poses: np.ndarray):
    """Assessments of the fixed plans, whatever `poses` (N, 8, 3) are; their time counts as scoring."""
    with meter.phase("scoring"):
        return given.plans(scene, poses)


def stock(workload: Workload, given: Material, meter: Meter, out: str) -> tuple[GRPOTrainer, list]:
    """TRL's trainer, and a list that will hold what the last step's episodes said."""
    processor, scenes, said = given.planner.processor, list(given.scenes.values()), []

    def rollout(prompts: list, trainer: GRPOTrainer) -> dict[str, list]:
        encoded = processor.apply_chat_template(
            prompts, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
        )
        real = encoded.pop("attention_mask").bool()
        ids = [row[mask].tolist() for row, mask in zip(encoded.pop("input_ids"), real, strict=True)]
        types = encoded.pop("mm_token_type_ids", None)  # of models that ask for them
        spoken: list[list[int]] = [[] for _ in prompts]
        written: list[list[int]] = [[] for _ in prompts]
        rewards = np.zeros(len(prompts))
        for turn in range(workload.turns):
            fields = dict(encoded)
            if types is not None:
                rows = zip(types, real, spoken, strict=True)
                fields["mm_token_type_ids"] = [t[mask].tolist() + [0] * len(so_far) for t, mask, so_far in rows]
            context = [prompt + so_far for prompt, so_far in zip(ids, spoken, strict=True)]
            answers, _ = trainer._generate_single_turn(context, None, fields, 1)
            processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
            results = [
                result for scene in scenes for result in scored(meter, given, scene, np.zeros((workload.group, 8, 3)))
            ]
            rewards += [result.score for result in results]
            for row, (tokens, result) in enumerate(zip(answers, results, strict=True)):
                spoken[row] += tokens
                written[row] += [1] * len(tokens)
                if turn + 1 < workload.turns:
                    told = feedback_delta_ids(processor, render_text(result.feedback), closed=False)
                    spoken[row] += told
                    written[row] += [0] * len(told)
        said[:] = [[s, [bool(w) for w in mask]] for s, mask in zip(spoken, written, strict=True)]
        return {
            "prompt_ids": ids,
            "completion_ids": spoken,
            "logprobs": None,
            "env_mask": written,
            "episode_reward": rewards.tolist(),
        }

    rows = [conversation(given.planner, given.views[token], given.images[token]) for token in given.views]
    numbers = Dataset.from_dict({"number": list(range(len(rows))) * STEPS})
    trainer = GRPOTrainer(
        model=given.planner.model,
        reward_funcs=lambda completions, episode_reward, **_: episode_reward,
        args=arguments(
            workload,
            out,
            max_completion_length=workload.answer_tokens,
            generation_kwargs={
                "do_sample": False,
                "min_new_tokens": workload.answer_tokens,
                "suppress_tokens": list(given.params.suppressed),
            },
        ),
        train_dataset=numbers.with_transform(
            lambda batch: {name: [rows[n][name] for n in batch["number"]] for name in ("prompt", "image")}
        ),
        processing_class=processor,
        rollout_func=rollout,
    )
    return trainer, said


def equality(workload: Workload, given: Material) -> dict[str, float]:
    """Largest relative differences between the shared-prefix pass and the plain padded one, float32.

    log_probs: |shared - plain| / |plain| over all written tokens. gradients: the same of the norms, over parameters.
    """
    random = np.random.default_rng(0)
    model, tasks = given.planner.model.train(), list(given.scenes)[:2]
    prompts = [Task.from_scene(given.planner, given.scenes[t], given.images[t]).prompt for t in tasks]
    mtgrpo.enable(model)
    add_scoring(model, given.params)
    words = [index for index in range(len(given.planner.processor.tokenizer)) if index not in given.params.suppressed]
    length = workload.turns * (workload.answer_tokens + 20)
    continuations = [
        Continuation(scene, random.choice(words, length - 7 * member), np.arange(length - 7 * member) % 71 < 51)
        for scene in range(len(prompts))
        for member in range(workload.group)
    ]
    results = []
    for build in (plain_inputs, shared_prefix_inputs):
        model.zero_grad()
        log_probs, _ = model(**build(model, prompts, continuations))
        (log_probs * torch.linspace(-1, 1, len(log_probs))).sum().backward()
        results.append((log_probs.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}))
    (plain, gradients), (shared, others) = results
    return {
        "log_probs": float(((shared - plain) / plain).abs().max()),
        "gradients": max(float((others[n] - g).norm() / g.norm()) for n, g in gradients.items()),
    }


def decode_bytes(model, side: str, prompts: list[int], said: list) -> float | None:
    """What a decode step reads at least, on average: the language model, and the keys and values of all contexts.

    None for a model with sliding layers or experts, of which a step reads parts that depend on its tokens.
    prompts: tokens of each scene's prompt. said: by episode, the ids after the prompt and which of them were written.
    """
    text, group = model.config.text_config, len(said) // len(prompts)
    if shared_prefix.SLIDING in text.layer_types:
        return None
    size = model.lm_head.weight.element_size()
    a_token = (
        2 * size * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    )
    own = sum(float(np.flatnonzero(written).mean()) for _, written in said)
    shared = sum(prompts) * (1 if side == "ours" else group)
    return size * sum(p.numel() for p in model.model.language_model.parameters()) + a_token * (own + shared)


def bandwidth(device: torch.device) -> float:
    """Bytes per second that the device's memory reads and writes in a large copy; the best of several."""
    source = torch.ones(2**26, device=device)
    target, best = torch.empty_like(source), 0.0
    meter = Meter(device)
    for _ in range(5):
        started = meter.now()
        target.copy_(source)
        best = max(best, 2 * source.nbytes / (meter.now() - started))
    return best


def main() -> None:
    side, workload = sys.argv[1], Workload(**json.loads(sys.argv[2]))
    if side == "equality":
        return answer(equality(workload, material(workload)))
    before = 0 if workload.device == "cuda" else resident("VmRSS")
    given = material(workload)
    model = given.planner.model
    meter = Meter(model.device)
    meter.watch(model)
    with tempfile.TemporaryDirectory() as out:
        trainer, said = {"ours": ours, "stock": stock}[side](workload, given, meter, out)
        trainer.remove_callback(PrinterCallback)
        entry = "rollout" if side == "ours" else "_generate_and_score_completions"
        inner = getattr(trainer, entry)

        def generate(inputs):
            with meter.phase("generation"):
                batches = inner(inputs)
            meter.take_peak("generation")
            return batches

        setattr(trainer, entry, generate)
        prompts = [
            len(Task.from_scene(given.planner, given.scenes[t], given.images[t]).prompt.ids) for t in given.scenes
        ]
        fixed = {"before": before, "parameters": model.num_parameters(), "bandwidth": bandwidth(model.device)}

        def facts() -> dict:
            read = decode_bytes(model, side, prompts, said)
            return {**fixed, "said": said, "scorings": given.plans.calls, "decode_bytes": read}

        trainer.add_callback(OneStepAtATime(meter, facts))
        trainer.train()


if __name__ == "__main__":
    ANSWERS, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed must not get among the answers
    main()
