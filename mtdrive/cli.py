"""Command line: `mtdrive VERB key=value ...`, with Hydra overrides after the verb.

Every verb is a module of `mtdrive.commands` with `run(config)`, and a configuration `configs/VERB.yaml`
whose comments are its help. Bad input, and a file that cannot be written, end with one sentence on standard error and
exit status 2; Ctrl-C with one and status 130.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mtdrive.interruption import ended_by_signals
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.cache_home import without_home
from mtdrive.simulation.runtime.files import cannot_write

if TYPE_CHECKING:
    from omegaconf import DictConfig

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
    import hydra  # not before signals are looked after
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose(config_name=verb, overrides=overrides)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        said = " ".join(f"{' '.join(overrides)}: {error}".split())
        raise MTDriveError(
            f"Cannot apply {said} (see mtdrive {verb} --help; a value with other signs needs quotes of its own, as in "
            "\"out='café, 2'\")"
        ) from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise MTDriveError(f"mtdrive {verb} needs {' and '.join(f'{key}=...' for key in missing)}.")
    return config


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status. Without arguments this is the program, which signals end."""
    if arguments is None:
        return _program(sys.argv[1:])
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
    without_home()
    config = {}
    try:
        config = load_config(verb, overrides)
        return importlib.import_module(f"mtdrive.commands.{verb}").run(config) or 0
    except MTDriveError as error:
        print(f"mtdrive {verb}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if (reason := cannot_write(error)) is None:
            raise
        place = getattr(error, "filename", None) or config.get("out") or "a file"
        print(f"mtdrive {verb}: Cannot write {place}: {reason}.", file=sys.stderr)
        return 2


def _program(arguments: list[str]) -> int:
    """`main`, for a shell: it can be interrupted, and what it prints into may be closed."""
    try:
        with ended_by_signals(" ".join(["mtdrive", *arguments[:1]])):
            status = main(arguments)
            sys.stdout.flush()
            return status
    except BrokenPipeError:  # as in `mtdrive score --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing else is to be said about it
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
