"""tools/fuzz_files.py, a short run: every forged file is read equal or refused in a sentence, the process alive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parent.parent / "tools" / "fuzz_files.py"
KINDS = ["pickle", "cache", "map", "image", "npz", "csv", "parquet", "jsonl", "yaml"]


def test_forged_files_do_no_harm(tmp_path):
    command = [sys.executable, str(FUZZER), "--kinds", *KINDS, "--inputs", "1000", "--seed", "7", "--workers", "1"]
    done = subprocess.run([*command, "--keep", str(tmp_path)], capture_output=True, text=True, timeout=300)
    harm = "".join(path.read_text() for path in tmp_path.glob("*.txt"))
    assert done.returncode == 0, done.stdout + done.stderr + harm
    count, equal, refused, *others = map(int, done.stdout.splitlines()[-1].split()[1:])
    assert count == equal + refused == 1000
    assert min(equal, refused) > 100
    assert not any(others)
