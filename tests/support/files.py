"""What lies in a folder."""

from pathlib import Path


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Files by path, with their times."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
