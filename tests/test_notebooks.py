"""The notebooks: they run from a finished run to their end, and are kept with small outputs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from mtdrive.evaluation.runs import finished_run
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.visualization.advantages import figure_advantages, token_row

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"image/png", "image/jpeg", "image/gif"}


def outputs(path: Path) -> list[dict]:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert all(cell.execution_count is not None for cell in cells), f"{path.name} was not executed to its end"
    return [output for cell in cells for output in cell.outputs]


def pictures(path: Path) -> int:
    return sum(bool(PICTURES & set(output.get("data", {}))) for output in outputs(path))


def test_there_are_four():
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_small_outputs_of_no_particular_machine(path):
    assert path.stat().st_size < 300_000
    assert pictures(path) >= 1
    assert not [output for output in outputs(path) if output.output_type == "error" or output.get("name") == "stderr"]
    assert not re.findall(r'[" =](?:/home|/root|/tmp|/work|/Users)/', path.read_text())
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    first = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    assert "finished_run()" in first.source


def test_all_of_them_run(smoke_run, tmp_path):
    folder = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "smoke").symlink_to(smoke_run.folder)
    kept = {path.name: pictures(path) for path in NOTEBOOKS}
    command = [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name: pictures(path) for path in folder.glob("*.ipynb")} == kept
    assert "outputs/smoke" in (folder / NOTEBOOKS[0].name).read_text()


def test_a_finished_run_is_found_and_never_made_anew(smoke_run, tmp_path):
    run = finished_run((tmp_path / "missing", smoke_run.folder))
    assert run.folder == smoke_run.folder
    scene = run.scenes("train").load(run.scenes("train").tokens[0])
    assert run.image(scene).shape == (360, 640, 3)
    assert len(run.evaluation().episodes) == 3


def episode(*lengths):
    """An episode whose turns are told and written so many tokens."""
    turns = tuple(
        Turn(np.zeros(told), np.zeros(written), np.zeros(written), "", TurnStatus.OK, 0.5, "")
        for told, written in lengths
    )
    return Episode("scene", "image", turns, EpisodeStatus.TRUNCATED)


def test_advantages_stand_on_what_the_planner_wrote():
    one = episode((90, 3), (2, 2))
    np.testing.assert_array_equal(token_row(one, np.array([1.0, 1, 1, -2, -2])), [1, 1, 1, np.nan, np.nan, -2, -2])
    np.testing.assert_array_equal(token_row(episode((90, 2)), np.array([3.0, 3])), [3, 3])
    rows = [np.array([1.0, 1, 1, -2, -2]), np.array([0.5, 0.5])]
    figure = figure_advantages([one, episode((90, 2))], {"GRPO": rows, "mtGRPO": rows})
    first, second, _ = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["GRPO", "mtGRPO"]
    grid = np.ma.filled(first.images[-1].get_array().astype(float), np.nan)
    np.testing.assert_array_equal(grid[0], [1, 1, 1, np.nan, np.nan, -2, -2])
    np.testing.assert_array_equal(grid[1][:2], [0.5, 0.5])
    assert np.isnan(grid[1][2:]).all()
    assert first.images[-1].get_clim() == (-2, 2)  # one scale for all
    silent = [np.zeros(5), np.zeros(2)]
    figure_advantages([one, episode((90, 2))], {"mtGRPO": silent})
