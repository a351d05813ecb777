"""Read forged files of every kind: each must read equal or be refused in a sentence, in time and memory, process alive.

    python tools/fuzz_files.py --inputs 100000 --seed 0 --workers 2

Workers read many inputs each. The death of one, or its silence for SECONDS, is put down to its input, which is kept in
--keep; another worker goes on behind it. The same seed makes the same inputs. Ends with status 1 if any input was
neither read equal nor refused.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from fuzz_inputs import KINDS, SHARES, Kind
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mtdrive.simulation.errors import MTDriveError

SECONDS = 10  # for an input
MEMORY = 2 << 30  # bytes beyond what a worker takes before its first input
START = 120  # seconds to start a worker and to make an input
OUTCOMES = ("read equal", "refused", "crashed", "too slow", "too large", "other exception")
FINE = OUTCOMES[:2]
READY = "ready"


def content(kind: Kind, name: str, seed: int, index: int) -> bytes:
    """The input of this kind and number."""
    return kind.make(np.random.default_rng([seed, list(KINDS).index(name), index]))


def outcome(kind: Kind, path: Path) -> tuple[str, str]:
    """What comes of reading a file, and the traceback of what it should not."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        kind.read(path)
        found = "read equal", ""
    except MTDriveError as refusal:
        found = ("refused", "") if str(refusal).endswith(".") else ("other exception", f"no sentence: {refusal}")
    except MemoryError:
        found = "too large", traceback.format_exc()
    except Exception:
        found = "other exception", traceback.format_exc()
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > MEMORY:
        found = "too large", ""
    return found


def work(pipe: Connection, seed: int) -> None:
    """In a worker: read the inputs whose kinds and numbers come through the pipe; say first that one is made."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the decoders of images say much
    kinds = {}
    with tempfile.TemporaryDirectory() as folder:
        while True:
            try:
                name, index = pipe.recv()
            except EOFError:
                return
            if not (known := name in kinds):
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                kinds[name] = prepared(name, Path(folder))
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
            path = Path(folder) / name / kinds[name].name
            forged = content(kinds[name], name, seed, index)
            if not known:
                path.write_bytes(forged)
                outcome(kinds[name], path)  # compiles the code that reads it
            path.write_bytes(forged)
            pipe.send((READY, ""))
            pipe.send(outcome(kinds[name], path))


def prepared(name: str, folder: Path) -> Kind:
    """A kind with what it needs in folder/name."""
    (folder / name).mkdir(exist_ok=True)
    return KINDS[name](folder / name)


class Worker:
    """A process that reads inputs, and is started again when one of them has ended it."""

    def __init__(self, seed: int) -> None:
        self._seed, self._process = seed, None

    def read(self, name: str, index: int) -> tuple[str, str]:
        """Outcome of an input, and a traceback."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=work, args=(other, self._seed), daemon=True)
            self._process.start()
            other.close()
        self._pipe.send((name, index))
        made = self._answer(START)
        return self._answer(SECONDS) if made[0] == READY else made

    def stop(self) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.join(0.5)
            self._process.kill()
            self._process.join()
            self._process = None

    def _answer(self, seconds: float) -> tuple[str, str]:
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv()
            found = "too slow", ""
        except (EOFError, ConnectionResetError):
            self._process.join()
            found = "crashed", f"exit code {self._process.exitcode}"
        self.stop()
        return found


def fuzz(kinds: list[str], inputs: int, seed: int, workers: int, keep: Path) -> dict[str, Counter]:
    """Outcomes by kind; inputs that ended in none of FINE are kept, each with its traceback."""
    counts = {name: Counter() for name in kinds}
    jobs = [(name, index) for name in kinds for index in range(round(SHARES[name] * inputs))]
    lock, left = threading.Lock(), iter(jobs)

    def run(progress: tqdm, folder: Path) -> None:
        worker = Worker(seed)
        while True:
            with lock:
                job = next(left, None)
            if job is None:
                return worker.stop()
            found, said = worker.read(*job)
            if found not in FINE:
                save(*job, found, said, folder)
            with lock:
                counts[job[0]][found] += 1
                progress.update()

    def save(name: str, index: int, found: str, said: str, folder: Path) -> None:
        with lock:
            kind = prepared(name, folder)
        keep.mkdir(parents=True, exist_ok=True)
        target = keep / f"{name}-{seed}-{index}-{kind.name}"
        target.write_bytes(content(kind, name, seed, index))
        target.with_name(f"{target.name}.txt").write_text(f"{found}\n{said}")

    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(jobs), unit="file") as progress:
        threads = [threading.Thread(target=run, args=(progress, Path(folder))) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--inputs", type=int, default=100_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("outputs/fuzz_files"), help="for inputs that do harm")
    arguments = parser.parse_args()
    counts = fuzz(arguments.kinds, arguments.inputs, arguments.seed, arguments.workers, arguments.keep)
    table = Table(box=None)
    for column in ("kind", "inputs", *OUTCOMES):
        table.add_column(column, justify="right")
    for name, outcomes in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        table.add_row(name, *map(str, (outcomes.total(), *(outcomes[each] for each in OUTCOMES))))
    Console(width=120).print(table)
    harmless = all(outcomes.total() == sum(outcomes[each] for each in FINE) for outcomes in counts.values())
    return 0 if harmless else 1


if __name__ == "__main__":
    sys.exit(main())
