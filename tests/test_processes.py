"""Spreading work: over processes, and what is said where that cannot be."""

import sys

import pytest

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.processes import RAY, map_unordered


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
