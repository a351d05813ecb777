"""Spreading work: over processes, and what is said where that cannot be."""

import os
import signal
import sys
from multiprocessing.synchronize import SemLock

import pytest

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.processes import RAY, map_unordered


@pytest.mark.parametrize(("workers", "most"), [(1, None), (2, None), (5, 1)])
def test_every_item_is_worked_on_once(workers, most):
    assert sorted(map_unordered(abs, [-3, 1, -2], workers, most)) == [1, 2, 3]


def stop(item: int) -> int:
    raise StopIteration


@pytest.mark.parametrize("workers", [1, 2])
def test_an_item_that_stops_the_iteration_is_no_end(workers):
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(map_unordered(stop, [1, 2], workers))


def test_ray_that_is_not_installed_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MTDriveError, match=r"pip install 'mtdrive\[ray\]'\.$"):
        list(map_unordered(abs, [1], RAY))


def test_workers_that_are_no_number_are_refused():
    with pytest.raises(MTDriveError, match="workers=many must be a number of processes, or ray"):
        list(map_unordered(abs, [1], "many"))


@pytest.mark.parametrize("workers", [0, -3, True, 1.5, "", None, 10**6])
def test_what_is_no_number_of_workers_is_refused_before_the_work(workers):
    with pytest.raises(MTDriveError, match=rf"^workers={workers} must be a number of processes"):
        map_unordered(abs, [], workers)


def die_at_zero(item: int) -> int:
    if item == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_worker_is_told_and_what_the_others_did_is_kept():
    done = []
    with pytest.raises(MTDriveError, match=r"A worker process was killed .*; run again with workers=1"):
        done.extend(map_unordered(die_at_zero, [*range(1, 20), 0], 2))
    assert len(done) > 10


class Unsendable(Exception):
    """Raised with two arguments, unpickled with one."""

    def __init__(self, first, second):
        super().__init__(first)


def fail(item: int) -> None:
    raise Unsendable("first", "second") if item else KeyError("no such thing")


def test_what_goes_wrong_in_a_worker_is_raised_here_with_where():
    with pytest.raises(KeyError, match="no such thing") as caught:
        list(map_unordered(fail, [0, 0], 2))
    assert "in fail" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Unsendable: first"):
        list(map_unordered(fail, [1, 1], 2))


def test_a_pool_leaves_no_semaphores(monkeypatch):
    names = []
    monkeypatch.setattr(SemLock, "_make_name", lambda: names.append("made") or "/mtdrive-test")
    assert sorted(map_unordered(abs, [-1, 2], 2)) == [1, 2]
    assert not names
