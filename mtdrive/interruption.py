"""Ctrl-C and SIGTERM: a run ends within seconds, with one sentence and the exit status that shells expect.

The signal is raised where the main thread stands, so that what is half written is removed on the way out. Code that
does not come back to Python in time (a compilation, a collective of several devices) is not waited for: after GRACE, or
at a second signal, the process ends where it stands.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from mtdrive.simulation.runtime.files import remove_unfinished

GRACE = 1.5  # [s]
MESSAGE = "interrupted; run the same command again."
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end; `args[0]` is its number."""


@contextmanager
def ended_by_signals(program: str) -> Iterator[None]:
    """End the process when one of SIGNALS arrives within the block, which runs in the main thread of a program."""
    terminal = os.dup(STDERR)
    bell, ring = socket.socketpair()
    ring.setblocking(False)
    signal.set_wakeup_fd(ring.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(bell, program, terminal), daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, _raise)
    try:
        yield
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # there is nothing left to interrupt
    except Interrupted as error:
        _end(program, terminal, error.args[0])


def _raise(number: int, _frame: object) -> None:
    for other in SIGNALS:
        signal.signal(other, lambda *_: None)  # the next one is for the thread
    # Hide what libraries print about it: the thread ends the process in any case.
    sys.unraisablehook = _ignore
    threading.excepthook = _ignore
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
    raise Interrupted(number)


def _ignore(_: object) -> None:
    pass


def _end_in_time(bell: socket.socket, program: str, terminal: int) -> None:
    while heard := bell.recv(1):
        if heard[0] in SIGNALS:  # libraries may have handlers of others
            break
    else:
        return  # the block has ended
    bell.settimeout(GRACE)
    with suppress(TimeoutError):
        bell.recv(1)
    _end(program, terminal, heard[0])


_ending = threading.Lock()


def _end(program: str, terminal: int, number: int) -> NoReturn:
    """Neither waits for threads nor runs what libraries have registered for the end."""
    _ending.acquire()  # and never gives it back: one thread ends the process
    for child in multiprocessing.active_children():
        child.kill()
    remove_unfinished()
    try:  # below ^C, or a progress bar
        os.write(terminal, f"\n{program}: {MESSAGE}\n".encode())
    finally:
        os._exit(128 + number)
