"""The console that verbs print to: text appears as it is, whatever brackets or colons a path or token contains."""

from __future__ import annotations

import sys
from typing import NoReturn

from rich.console import Console


class _Terminal(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise  # the BrokenPipeError that rich is handling; the program ends by it


def terminal(width: int | None = None) -> Console:
    """A console without markup; style text with `style=` and `rich.text.Text`.

    width: width of tables [characters] where the output is a file or pipe.
    """
    return _Terminal(
        width=None if sys.stdout.isatty() else width, soft_wrap=True, highlight=False, markup=False, emoji=False
    )
