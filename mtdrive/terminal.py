"""What verbs print: data as it is, whatever brackets or colons stand in a path, a token or a reason."""

from __future__ import annotations

import sys
from typing import NoReturn

from rich.console import Console


class _Terminal(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise  # the BrokenPipeError that rich is handling; the program ends by it


def terminal(width: int | None = None) -> Console:
    """A console that reads no markup; style by `style=` and `rich.text.Text`.

    width: [characters] of tables in a file or pipe, where they should have room.
    """
    return _Terminal(
        width=None if sys.stdout.isatty() else width, soft_wrap=True, highlight=False, markup=False, emoji=False
    )
