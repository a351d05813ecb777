"""Where caches of compiled code go for a user without a home: never into a folder that others can write to."""

import os
import tempfile

import pytest

from mtdrive.simulation.runtime import cache_home


@pytest.fixture
def no_home(monkeypatch, tmp_path):
    """The folder for temporary files of a user without a home."""
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    cache_home.cache_home.cache_clear()


def found():
    """As a new process finds it."""
    cache_home.cache_home.cache_clear()
    return cache_home.cache_home()


def test_a_private_folder_is_made_and_found_again(no_home):
    folder = found()
    assert folder.parent == no_home
    assert folder.stat().st_mode & 0o777 == 0o700
    assert found() == folder


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_folder_that_others_can_write_to_is_not_used(no_home, trap):
    folder = found()
    folder.rmdir()
    (no_home / "elsewhere").mkdir(mode=0o700)
    match trap:
        case "open":
            folder.mkdir()
            folder.chmod(0o777)
        case "link":
            folder.symlink_to(no_home / "elsewhere")
        case "file":
            folder.touch()
    other = found()
    assert other != folder
    assert other.stat().st_mode & 0o777 == 0o700
    assert not list((no_home / "elsewhere").iterdir())


def test_libraries_are_told(no_home, monkeypatch):
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # whatever is set is taken back
        monkeypatch.delenv(name)
    folder = found()
    cache_home.without_home()
    assert os.environ["XDG_CACHE_HOME"] == str(folder)
    assert os.environ["MPLCONFIGDIR"].startswith(str(folder))
