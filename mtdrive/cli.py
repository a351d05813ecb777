"""Command line: `mtdrive VERB key=value ...`, with Hydra overrides after the verb.

Every verb is a module of `mtdrive.commands` with `run(config)`, and a configuration `configs/VERB.yaml`
whose comments are its help. Bad input ends with one sentence on standard error and exit status 2.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtdrive.simulation.errors import MTDriveError

CONFIGS = Path(__file__).resolve().parent / "configs"
VERBS = {
    "quickstart": "the main job end to end on the embedded synthetic world",
    "synth": "write a synthetic world in NAVSIM's on-disk format",
    "cache": "compile scenes into memory-mapped scene caches",
    "score": "PDM scores of trajectories",
    "record": "record interactive multi-turn samples",
    "sft": "supervised fine-tuning of a planner",
    "rl": "multi-turn reinforcement learning (mtGRPO) of a planner",
    "evaluate": "per-turn scores of a planner beside the baselines",
    "visualize": "pictures of scenes, plans and conversations: still, moving, or a page to browse",
    "bench": "how long caching and scoring take on this machine",
    "doctor": "check this installation",
}


def usage() -> str:
    """The text of `mtdrive --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return f"usage: mtdrive VERB [key=value ...]\n\n{verbs}\n\nmtdrive VERB --help lists the keys of a verb."


def load_config(verb: str, overrides: list[str]) -> DictConfig:
    """Compose `configs/VERB.yaml` with overrides.

    Raises:
        MTDriveError: an override does not parse or names a key that does not exist.
    """
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose(config_name=verb, overrides=overrides)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise MTDriveError(f"Cannot apply {' '.join(overrides)}: {reason} (see mtdrive {verb} --help)") from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise MTDriveError(f"mtdrive {verb} needs {' and '.join(f'{key}=...' for key in missing)}.")
    return config


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    verb, *overrides = arguments
    if verb not in VERBS:
        print(f"mtdrive: there is no verb {verb!r}; choose from {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    if "-h" in overrides or "--help" in overrides:
        print(f"mtdrive {verb}: {VERBS[verb]}\n\n{(CONFIGS / f'{verb}.yaml').read_text()}")
        return 0
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve the other processes of a machine
    try:
        config = load_config(verb, overrides)
        return importlib.import_module(f"mtdrive.commands.{verb}").run(config) or 0
    except MTDriveError as error:
        print(f"mtdrive {verb}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
