"""Command line: `mtdrive VERB key=value ...`, with Hydra overrides after the verb.

Every verb is a module of `mtdrive.commands` with `run(settings)`, and a file `configs/VERB.yaml` of defaults, whose
comments are its help. Bad input, and a file that cannot be written, end with one sentence on standard error and
exit status 2; Ctrl-C with one and status 130.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

import yaml

from mtdrive.interruption import ended_by_signals
from mtdrive.settings import CONFIGS, load_settings
from mtdrive.settings.verbs import VERBS
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.cache_home import without_home
from mtdrive.simulation.runtime.files import cannot_write


def usage() -> str:
    """The text of `mtdrive --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return f"usage: mtdrive VERB [key=value ...]\n\n{verbs}\n\nmtdrive VERB --help lists the keys of a verb."


def keys_of(verb: str) -> str:
    """The keys of a verb with what they mean: its own configuration, and those that it shares with other verbs."""
    own = (CONFIGS / f"{verb}.yaml").read_text()
    shared = [part for part in yaml.safe_load(own).get("defaults", []) if isinstance(part, str) and part != "_self_"]
    return "\n".join([own, *((CONFIGS / f"{part}.yaml").read_text() for part in shared[::-1])])


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
        print(f"mtdrive {verb}: {VERBS[verb].summary}\n\n{keys_of(verb)}")
        return 0
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve the other processes of a machine
    without_home()
    settings = None
    try:
        settings = load_settings(verb, overrides)
        return importlib.import_module(f"mtdrive.commands.{verb}").run(settings) or 0
    except MTDriveError as error:
        print(f"mtdrive {verb}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if (reason := cannot_write(error)) is None:
            raise
        place = getattr(error, "filename", None) or getattr(settings, "out", None) or "a file"
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
