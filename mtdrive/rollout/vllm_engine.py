"""Generation by vLLM through TRL's integration. **It has not been run**: only its calls are tested, against a fake.

TRL's `VLLMGeneration` starts or finds vLLM (mode `colocate`: an engine in every training process; `server`: one server
for all) and copies the trained weights into it. The rest goes to vLLM directly, since TRL's own `generate` takes part
in a collective call, and processes need different numbers of turns.

Every turn sends whole conversations; vLLM's prefix caching, on by default, computes only what is new in them. The image
is named by its content hash (colocate) or processed once a session (server). Ids go in and come out as ids.
Log-probabilities are vLLM's, after temperature and suppression (`processed_logprobs`); its kernels and image processing
differ from the trainer's in the last digits, which the clipped probability ratio of the loss absorbs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from trl.generation.vllm_client import VLLMClient

from mtdrive.rollout.encoding import Prompt
from mtdrive.rollout.generation import Completion
from mtdrive.rollout.sampling import SamplingParams
from mtdrive.simulation.errors import MTDriveError

NEVER = -100.0  # added to a logit; the lowest that vLLM takes
LOG_PROBS = "processed_logprobs"


@dataclass(frozen=True)
class VLLMSettings:
    """How vLLM is started or found."""

    read_image: Callable[[str], np.ndarray]
    """Image hash -> the image (H, W, 3) uint8 RGB."""
    mode: str = "colocate"
    """`colocate` (an engine in every training process) or `server` (one server for all)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of TRL's `VLLMGeneration`, such as `gpu_memory_utilization` or `server_base_url`."""


def check_installed() -> None:
    """Raises MTDriveError where there is no vLLM."""
    from trl.import_utils import is_vllm_available

    if not is_vllm_available():
        raise MTDriveError("engine=vllm needs vLLM: pip install 'trl[vllm]', on a machine with a GPU; or engine=hf.")


class VLLMEngine:
    """A `GenerationEngine`. model: unwrapped, as the trainer has it; read by `sync` alone.

    Raises:
        MTDriveError: vLLM is not installed, or the server's log-probabilities are not those it samples from.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        accelerator: Accelerator,
        processor: ProcessorMixin,
        sampling_params: SamplingParams,
        max_new_tokens: int,
        settings: VLLMSettings,
    ):
        from trl.generation.vllm_generation import VLLMGeneration  # where vLLM is, it takes seconds to import

        check_installed()
        self.sampling_params, self.max_new_tokens = sampling_params, max_new_tokens
        self.read_image = settings.read_image
        self.image_token = processor.image_token_id  # type: ignore[attr-defined]  # processors with images have it
        self._accelerator = accelerator
        self.generation = VLLMGeneration(model, accelerator, processor, mode=settings.mode, **settings.options)
        self.client: VLLMClient | None = None
        if settings.mode == "server":
            own = getattr(self.generation, "vllm_client", None)  # TRL makes one for the main process alone
            self.client = own or VLLMClient(base_url=self.generation.server_base_url)
            if (mode := self.client.get_server_info()["model_config"]["logprobs_mode"]) != LOG_PROBS:
                raise MTDriveError(f"Start the vLLM server with --logprobs-mode {LOG_PROBS}; it has {mode}.")

    def sync(self) -> None:
        """Copy the trained weights into vLLM, and forget what it computed with the old ones. All processes together."""
        self.generation.sync_weights()
        self._accelerator.wait_for_everyone()

    def open(self, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None = None) -> VLLMSession:
        """See `GenerationEngine.open`. A server draws with its own randomness."""
        if self.client is None:
            return ColocatedSession(self, prompts, group, generator)
        return ServerSession(self, prompts, group, generator, self.client)

    def sampling_arguments(self) -> dict[str, Any]:
        """The arguments of vLLM's own `SamplingParams` for the distribution of an answer."""
        params = self.sampling_params
        return {
            "temperature": 0.0 if params.greedy else params.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_tokens": self.max_new_tokens,
            "logprobs": 0,
            "stop_token_ids": list(params.stop),
            "logit_bias": dict.fromkeys(params.suppressed, NEVER),
        }


class VLLMSession:
    """See `GenerationSession`: what both modes share."""

    def __init__(self, engine: VLLMEngine, prompts: Sequence[Prompt], group: int, generator: torch.Generator | None):
        self.engine, self.prompts, self.group, self.generator = engine, prompts, group, generator
        self.images = [Image.fromarray(engine.read_image(prompt.image_hash)) for prompt in prompts]
        self.conversations = [prompt.ids.tolist() for prompt in prompts for _ in range(group)]

    def generate(self, episodes: Sequence[int], deltas: Sequence[np.ndarray]) -> Iterator[tuple[int, Completion]]:
        """See `GenerationSession.generate`; all answers come together."""
        for episode, delta in zip(episodes, deltas, strict=True):
            self.conversations[episode] = self.conversations[episode] + delta.tolist()
        answers = self._ask(episodes)
        for episode, (ids, _) in zip(episodes, answers, strict=True):
            self.conversations[episode] = self.conversations[episode] + list(ids)
        for episode, (ids, values) in zip(episodes, answers, strict=True):
            yield episode, Completion(np.array(ids, np.int64), np.array(values, np.float32))

    def _ask(self, episodes: Sequence[int]) -> list[tuple[Sequence[int], Sequence[float]]]:
        """Ids and log-probabilities of each one's next answer."""
        raise NotImplementedError


class ColocatedSession(VLLMSession):
    """With vLLM in this process."""

    def _ask(self, episodes: Sequence[int]) -> list[tuple[Sequence[int], Sequence[float]]]:
        import vllm

        seeds = torch.randint(2**31, (len(episodes),), generator=self.generator, device=self._device).tolist()
        arguments = self.engine.sampling_arguments() | {"detokenize": False}
        outputs = self.engine.generation.llm.generate(
            [self._row(episode) for episode in episodes],
            sampling_params=[vllm.SamplingParams(**arguments, seed=seed) for seed in seeds],
            use_tqdm=False,
        )
        for episode, output in zip(episodes, outputs, strict=True):
            if list(output.prompt_token_ids) != self.conversations[episode]:
                raise MTDriveError(
                    f"vLLM reads a conversation of {len(self.conversations[episode])} tokens as "
                    f"{len(output.prompt_token_ids)}: give the planner's folder the image processor that vLLM uses."
                )
        return [
            (
                answer.token_ids,
                [step[token].logprob for token, step in zip(answer.token_ids, answer.logprobs, strict=True)],
            )
            for answer in (output.outputs[0] for output in outputs)
        ]

    @property
    def _device(self) -> torch.device | str:
        return "cpu" if self.generator is None else self.generator.device

    def _row(self, episode: int) -> dict[str, Any]:
        """vLLM puts the image's tokens in itself, in place of one."""
        scene, ids, token = episode // self.group, self.conversations[episode], self.engine.image_token
        first, count = ids.index(token), ids.count(token)
        return {
            "prompt_token_ids": ids[: first + 1] + ids[first + count :],
            "multi_modal_data": {"image": [self.images[scene]]},
            "multi_modal_uuids": {"image": [self.prompts[scene].image_hash]},
        }


class ServerSession(VLLMSession):
    """With a vLLM server, which processes each image once and takes its tokens where they stand."""

    def __init__(
        self,
        engine: VLLMEngine,
        prompts: Sequence[Prompt],
        group: int,
        generator: torch.Generator | None,
        client: VLLMClient,
    ):
        super().__init__(engine, prompts, group, generator)
        self.client = client
        found = client.image_features([[image] for image in self.images])
        self.features = [
            {**features, "mm_placeholders": {"image": [self._place(prompt)]}}
            for features, prompt in zip(filter(None, found), self.prompts, strict=True)
        ]

    def _place(self, prompt: Prompt) -> dict[str, int]:
        at = np.flatnonzero(prompt.ids == self.engine.image_token)
        return {"offset": int(at[0]), "length": len(at)}

    def _ask(self, episodes: Sequence[int]) -> list[tuple[Sequence[int], Sequence[float]]]:
        arguments = self.engine.sampling_arguments()
        answers: dict[str, Any] = self.client.generate(
            prompts=[self.conversations[episode] for episode in episodes],
            features=[self.features[episode // self.group] for episode in episodes],
            generation_kwargs={name: arguments.pop(name) for name in ("stop_token_ids", "logit_bias")},
            **arguments,
        )
        values = [[step[0] for step in steps] for steps in answers["logprobs"]]
        return list(zip(answers["completion_ids"], values, strict=True))
