"""Read forged files of every kind: each must read equal or be refused in a sentence, in time and memory, process alive.

    python tools/fuzz_files.py --inputs 100000 --seed 0 --workers 2

Workers read many inputs each. One that dies, or is silent for SECONDS, is attributed to its input, which is kept in
--keep, and started again behind it. The same seed makes the same inputs. Ends with status 1 if any input was neither
read equal nor refused.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import threading
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from fuzz_inputs import KINDS, Kind
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mtdrive.simulation.errors import MTDriveError

SECONDS = 10  # for an input
MEMORY = 2 << 30  # bytes beyond what a worker takes before its first input
START = 120  # seconds for a worker's first sign
OUTCOMES = ("read equal", "refused", "crashed", "too slow", "too large", "other exception")
FINE = OUTCOMES[:2]


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


def work(pipe: Connection, name: str, seed: int) -> None:
    """In a worker: read the inputs whose numbers come through the pipe."""
    with tempfile.TemporaryDirectory() as folder:
        kind = KINDS[name](Path(folder))
        path = Path(folder) / "input" / kind.name
        path.parent.mkdir()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        pipe.send(("ready", ""))
        while (index := pipe.recv()) is not None:
            path.write_bytes(content(kind, name, seed, index))
            pipe.send(outcome(kind, path))


class Worker:
    """A process that reads inputs of one kind, and is started again when one of them ends it."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed, self._process = name, seed, None

    def read(self, index: int) -> tuple[str, str]:
        """Outcome of an input, and a traceback."""
        if self._process is None:
            self._start()
        self._pipe.send(index)
        return self._answer(SECONDS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, self._name, self._seed), daemon=True)
        self._process.start()
        other.close()
        ready = self._answer(START)
        if ready[0] != "ready":
            raise RuntimeError(f"The worker for {self._name} {ready[0]} before its first input.")

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


def fuzz(inputs: int, seed: int, workers: int, keep: Path) -> dict[str, Counter]:
    """Outcomes by kind; inputs that ended in none of FINE are kept, each with its traceback."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            name: make(Path(folder) / name) for name, make in KINDS.items() if (Path(folder) / name).mkdir() is None
        }
    counts = {name: Counter() for name in kinds}
    jobs = [(name, index) for name, kind in kinds.items() for index in range(round(kind.share * inputs))]
    lock, left = threading.Lock(), iter(jobs)

    def run(progress: tqdm) -> None:
        worker, current = None, None
        while True:
            with lock:
                job = next(left, None)
            if worker is not None and (job is None or job[0] != current):
                worker.stop()
                worker = None
            if job is None:
                return
            name, index = job
            if worker is None:
                worker, current = Worker(name, seed), name
            found, said = worker.read(index)
            if found not in FINE:
                keep.mkdir(parents=True, exist_ok=True)
                target = keep / f"{name}-{seed}-{index}"
                target.write_text(f"{found}\n{said}")
                target.with_suffix(Path(kinds[name].name).suffix).write_bytes(content(kinds[name], name, seed, index))
            with lock:
                counts[name][found] += 1
                progress.update()

    with tqdm(total=len(jobs), unit="file") as progress:
        threads = [threading.Thread(target=run, args=(progress,)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("outputs/fuzz_files"), help="for inputs that do harm")
    arguments = parser.parse_args()
    counts = fuzz(arguments.inputs, arguments.seed, arguments.workers, arguments.keep)
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
