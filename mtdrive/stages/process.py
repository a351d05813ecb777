"""Run a command in a process of its own, with its output in a log and its peak memory measured."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL = 0.5  # [s] between two looks at a running process
LINE_WIDTH = 120  # [characters] of a line of the log that is reported
# A training step frees and asks for the same memory again: glibc should keep it rather than give it back every time.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36), "MALLOC_TOP_PAD_": str(2**26)}


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it took."""

    exit_status: int
    """As the shell gives it; negative for the signal that killed the process."""
    seconds: float
    """Wall time [s]."""
    peak_memory: int
    """Largest memory [bytes] of the process and its children together."""


def run_logged(command: Sequence[str], log: Path, lock: int | None, report: Callable[[str], object]) -> Ended:
    """Run a command to its end, in this process's environment; an exception here ends the command too.

    Args:
        command: program and arguments.
        log: file for its output and errors, begun anew.
        lock: descriptor of a lock file; the command inherits it, and so holds the lock as long as it runs.
        report: called with the newest line of the log, at every look at the process.
    """
    started = time.perf_counter()
    environment = {**KEEP_MEMORY, **os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "140"}
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=() if lock is None else (lock,),
        )
        try:
            exit_status, peak_memory = _wait(process.pid, lambda: report(last_line(log)))
            process.returncode = exit_status
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return Ended(exit_status, time.perf_counter() - started, peak_memory)


def _wait(pid: int, look: Callable[[], object]) -> tuple[int, int]:
    """Wait for a child; returns its exit status, and the peak memory [bytes] of it and its children together."""
    peak = 0
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), max(peak, usage.ru_maxrss * 1024)
        peak = max(peak, _memory(pid))
        look()
        time.sleep(POLL)


def _memory(pid: int) -> int:
    """Memory [bytes] of a process and its children; pages that they share count once."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total


def log_lines(log: Path) -> list[str]:
    """The lines of a log that are not empty; of a progress bar, its newest state."""
    lines = log.read_text(errors="replace").split("\n")
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines if line.strip()]


def last_line(log: Path) -> str:
    """The newest line of a log, cut to LINE_WIDTH; empty if there is none yet."""
    lines = log_lines(log)
    return lines[-1].strip()[:LINE_WIDTH] if lines else ""
