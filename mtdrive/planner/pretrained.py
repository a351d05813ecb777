"""Reading planners that others have made: whole and finite, or refused in one sentence; code of theirs is never run.

Where a file of weights is incomplete, transformers and peft fill in random numbers with a warning at most, and they
offer to run code that comes with a folder. Here the weights of a planner must be complete and finite, in safetensors
files; code of its own is refused, and its chat template is rendered in transformers' sandbox only.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from mtdrive.simulation.errors import MTDriveError

CONFIG, ADAPTER = "config.json", "adapter_config.json"
FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")  # of a model, its tokenizer and its processor
NEVER_RUN: dict[str, Any] = {"trust_remote_code": False}
NATIVE = ("step3p7",)  # released with code beside weights that transformers' own classes read: the code is ignored
KERNEL = re.compile(r'attn_implementation": (\{[^}]*|"[^"]*)/')  # the name of a repository
LONGEST_REASON = 400  # characters; some name every weight of a model
WELL_WORDED = (OSError, ValueError, RuntimeError, ImportError, SafetensorError)  # whose messages are sentences


@contextmanager
def reading(what: str, name: str | Path) -> Iterator[None]:
    """Turn any exception of transformers about a folder or Hugging Face name into one sentence.

    Raises:
        MTDriveError: in place of any other exception.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # or it prints tables of what is missing
    try:
        yield
    except MTDriveError:
        raise
    except Exception as error:  # files of others: any field can have any type
        reason = str(error) if isinstance(error, WELL_WORDED) else repr(error)
        reason = textwrap.shorten(_unreadable(name) + reason, LONGEST_REASON, placeholder=" ...")
        raise MTDriveError(f"Cannot load {what} {str(name)!r}: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)


def locate(model: str, subfolder: str | None) -> str:
    """Where the files of a planner are: a folder, or a Hugging Face name that transformers resolves.

    Args:
        model: a Hugging Face name, or a folder.
        subfolder: of the repository or folder, with the weights in question; of a repository it is downloaded alone.

    Raises:
        MTDriveError: there is no such subfolder, or it cannot be downloaded.
    """
    if subfolder is None:
        return model
    if os.path.isdir(model):
        found = next((path for path in (Path(model, subfolder), Path(model)) if (path / CONFIG).is_file()), None)
        if found is None:
            raise MTDriveError(
                f"{model} holds neither {subfolder}/{CONFIG} nor {CONFIG}; give the folder of the repository that was "
                f"downloaded, or of its {subfolder}, as planner.model=FOLDER."
            )
        return str(found)
    with reading("planner", f"{model}/{subfolder}"):
        folder = Path(snapshot_download(model, allow_patterns=[f"{subfolder}/{kind}" for kind in FILES])) / subfolder
        if not (folder / CONFIG).is_file():
            raise MTDriveError(f"The Hugging Face repository {model} has no {subfolder}/{CONFIG}.")
    return str(folder)


def refuse_code(name: str | Path) -> None:
    """Refuse a planner that asks for code of its own, or for an attention kernel from elsewhere.

    Models of `NATIVE` ask for code, too, and are loaded without it.

    Raises:
        MTDriveError: it does, or its configuration cannot be read.
    """
    with reading("planner", name):
        config = PreTrainedConfig.get_config_dict(name)[0]
        native, text = config.get("model_type") in NATIVE, json.dumps(config)
        texts = [text, *(path.read_text() for path in Path(name).glob("*config.json"))]
    if (any('"auto_map"' in text for text in texts) and not native) or KERNEL.search(text):
        raise MTDriveError(
            f"Planner {str(name)!r} asks to run code of its own (auto_map or attn_implementation), which is never "
            "done; give a model that transformers knows, and remove the key from its *config.json."
        )


def load_model(model_class: Any, name: str | Path, dtype: torch.dtype, **arguments: Any) -> PreTrainedModel:
    """`model_class.from_pretrained` for a folder or Hugging Face name with exactly the weights of the model.

    Raises:
        MTDriveError: nothing loads, or a weight is missing, left over or of another shape.
    """
    with reading("planner", name):
        arguments |= {"ignore_mismatched_sizes": True, "output_loading_info": True}  # reported below, by name
        model, found = model_class.from_pretrained(name, dtype=dtype, use_safetensors=True, **NEVER_RUN, **arguments)
    for key, stored, expected in sorted(found["mismatched_keys"]):
        raise MTDriveError(
            f"Planner {str(name)!r} has weights of another model: {key} is {tuple(stored)}, not {tuple(expected)}."
        )
    _check_names(name, found["missing_keys"], found["unexpected_keys"])
    return model


def load_adapter(model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """`model` with the LoRA adapter of a folder, which can be trained further.

    Raises:
        MTDriveError: the adapter is no plain LoRA, or its weights do not load (`fill_adapter`).
    """
    with reading("planner", folder):
        config = PeftConfig.from_pretrained(str(folder))
        if not isinstance(config, LoraConfig) or config.megatron_config is not None:
            raise MTDriveError(f"The adapter of planner {str(folder)!r} is no LoRA that peft applies by itself.")
        config.inference_mode = False
        adapted = get_peft_model(model, config)
    fill_adapter(adapted, folder)
    return adapted


def fill_adapter(model: PeftModel, folder: str | Path, adapter: str = "default") -> None:
    """Load the weights of an adapter of `model` from a folder.

    Raises:
        MTDriveError: they cannot be read, or one is missing, left over or of another shape.
    """
    with reading("planner", folder):
        if not (path := Path(folder) / SAFETENSORS_WEIGHTS_NAME).is_file():
            raise MTDriveError(f"There are no weights {path}; other formats than safetensors are not read.")
        found = model.load_adapter(str(folder), adapter, is_trainable=True, torch_device="cpu")
    _check_names(folder, found.missing_keys, found.unexpected_keys)


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the first weight with NaN or an infinite number, or None."""
    for name, weight in weights.items():
        # One pass without a copy; NaN makes both bounds NaN.
        if weight.is_floating_point() and weight.numel() and not torch.stack(torch.aminmax(weight)).isfinite().all():
            return name
    return None


def check_saved(weights: Mapping[str, Tensor], folder: str | Path) -> None:
    """Refuse to save weights that are not finite.

    Raises:
        MTDriveError: names the first such weight.
    """
    if (weight := not_finite(weights)) is not None:
        raise MTDriveError(
            f"Training has made the weight {weight} NaN or infinite, so the planner is not saved in {folder}; "
            "train with a lower learning_rate, from the last checkpoint if there is one."
        )


def check_loaded(weights: Mapping[str, Tensor], name: str | Path) -> None:
    """Refuse to use weights that are not finite.

    Raises:
        MTDriveError: names the first such weight.
    """
    if (weight := not_finite(weights)) is not None:
        raise MTDriveError(
            f"Planner {str(name)!r} cannot be used: its weight {weight} holds NaN or an infinite number, as after a "
            "training that diverged; take an earlier checkpoint."
        )


def _check_names(name: str | Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    for what, keys in (("lacks weights of its model", missing), ("has weights that its model does not", unexpected)):
        if keys := sorted(keys):
            raise MTDriveError(f"Planner {str(name)!r} {what} ({len(keys)}, as {keys[0]}); copy it again, whole.")


def _unreadable(name: str | Path) -> str:
    """Name of the file of weights in a folder that cannot be read, which safetensors' own message leaves out."""
    for path in sorted(Path(name).glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError):
            return f"{path.name}: "
    return ""
