"""Pictures of plans: what is drawn lies where the geometry says, and bad input gets a sentence."""

import ast
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mtdrive.cli import main
from mtdrive.simulation import vehicle
from mtdrive.simulation.baselines import constant_velocity_plan
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.synthetic.rendering import render_front_camera
from mtdrive.simulation.synthetic.rendering.scene import Atmosphere, Marking, Material, RenderScene, Surface
from mtdrive.visualization import (
    Plan,
    Role,
    Violation,
    assessed_plan,
    bird_view_png,
    camera_view_jpeg,
    figure_scene,
    style,
)
from mtdrive.visualization.bev import draw_bird_view, to_page
from mtdrive.visualization.camera_view import camera_view
from mtdrive.visualization.plan import violation_place
from support.pictures import CAMERA, GREY, arc, near, scene_with
from support.scenes import RoadObject
from support.stores import save_store


def bird_view(scene, plans):
    """The rendered axes (H, W, 3) and the function from ego-frame points to its pixels (column, row)."""
    figure = Figure(figsize=(4, 5), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes([0, 0, 1, 1])
    draw_bird_view(axes, scene, plans)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3]

    def pixel(xy):
        column, row = axes.transData.transform(to_page(np.array(xy)))
        return round(column), round(image.shape[0] - row)

    return image, pixel


@pytest.mark.parametrize("width", [640, 1280])
def test_a_plan_straight_ahead_covers_the_width_of_the_car_about_the_image_centre(width):
    changed = (camera_view(scene_with(), GREY, [arc()], width) != 90).any(axis=-1)
    changed = cv2.resize(changed.astype(np.uint8), (640, 360), interpolation=cv2.INTER_AREA) > 0
    for x in (8.0, 15.0, 25.0):
        row = round(CAMERA.project(np.array([[x, 0.0, 0.0]]))[0][0, 1])
        columns = np.nonzero(changed[row])[0]
        half = 515.0 * (vehicle.WIDTH / 2) / (x - 1.6)
        assert abs(columns.min() - (319.5 - half)) < 5
        assert abs(columns.max() - (319.5 + half)) < 5
        assert abs(columns.min() + columns.max() - 639) < 4
        assert len(columns) == columns.max() - columns.min() + 1
    end = CAMERA.project(np.array([[32.0 + vehicle.REAR_AXLE_TO_FRONT, 0.0, 0.0]]))[0][0, 1]
    assert abs(np.nonzero(changed.any(axis=1))[0].min() - end) < 4


def test_plans_out_of_the_picture_leave_it_untouched():
    still = Plan("turn 1", np.zeros((8, 3)))
    backwards = Plan("turn 2", np.column_stack([-np.arange(1.0, 9), np.zeros(8), np.zeros(8)]))
    lost = Plan("turn 3", np.full((8, 3), np.nan))
    np.testing.assert_array_equal(camera_view(scene_with(), GREY, [still, backwards, lost], width=640), GREY)


@pytest.mark.parametrize("curvature", [-0.02, 0.0, 0.015])
def test_a_plan_along_a_painted_line_lies_on_it_in_the_rendered_image(curvature):
    plan = arc(curvature, speed=9.0)
    road = Surface(Material.ROAD, np.array([[-5.0, -40], [90, -40], [90, 40], [-5, 40]]))
    line = Marking(np.vstack([np.zeros(2), plan.poses[:, :2]]), width=0.2)
    view = RenderScene(surfaces=(road,), markings=(line,), atmosphere=Atmosphere(overcast=1.0))
    image = render_front_camera(view, CAMERA)
    changed = (np.abs(camera_view(scene_with(), image, [plan], width=640).astype(int) - image) > 3).any(axis=-1)
    for pose in plan.poses[10:34:6]:
        column, row = CAMERA.project(np.array([[*pose[:2], 0.0]]))[0][0]
        ribbon = np.nonzero(changed[round(row)])[0]
        paint = np.nonzero(image[round(row)].mean(axis=-1) > 170)[0]
        assert abs(paint.mean() - column) < 2
        assert abs((ribbon.min() + ribbon.max()) / 2 - paint.mean()) < 0.2 * (ribbon.max() - ribbon.min())


def test_left_is_left_in_both_views():
    scene, plan = scene_with(), arc(0.03)
    columns = np.nonzero((camera_view(scene, GREY, [plan], width=640) != GREY).any(axis=-1))[1]
    assert columns.mean() < 300
    image, pixel = bird_view(scene, [plan])
    drawn = np.nonzero(near(image, style.plan_colours([plan])[0]))
    assert drawn[1].mean() < image.shape[1] / 2 - 5
    column, row = pixel(plan.poses[25, :2])
    assert near(image, style.plan_colours([plan])[0])[row - 1 : row + 2, column - 1 : column + 2].any()


def test_bird_view_draws_agents_where_they_are_and_the_route_under_them():
    image, pixel = bird_view(scene_with(RoadObject(14.0, 3.5), RoadObject(20.0, -1.0, speed=4.0)), [])
    grey = style.OBJECTS[0]
    for place in ((13.0, 4.0), (19.0, -1.6)):
        column, row = pixel(place)
        assert near(image, grey, 6)[row, column]
    column, row = pixel((26.0, 1.0))
    assert near(image, style.ROUTE, 6)[row, column]
    column, row = pixel((10.0, -1.6))
    assert not near(image, grey, 6)[row, column]
    trace_column, trace_row = pixel((25.0, -1.0))  # on the way that the moving one will take
    assert near(image, grey, 30)[trace_row, trace_column - 1 : trace_column + 2].any()


def test_an_assessed_plan_marks_its_worst_violation_between_the_two_boxes():
    scene = scene_with(RoadObject(22.0))
    poses = constant_velocity_plan(scene)
    plan = assessed_plan("turn 1", poses, assess(scene, poses[None])[0])
    assert plan.violation.name == "collision"
    assert 1.5 < plan.violation.time < 2.2  # 22 m less front and half a car at 8 m/s
    assert plan.summary.startswith("turn 1  PDMS 0.00")
    ego, other, place = violation_place(scene, plan, plan.violation, "pdms_v1")
    assert other[:, 0].min() - 0.1 < place[0] < ego[:, 0].max() + 0.1  # they overlap by less than a step's way
    assert ego[:, 0].max() - other[:, 0].min() < 0.8
    assert abs(place[1]) < 0.1
    with_mark = near(camera_view(scene, GREY, [plan], width=640), style.VIOLATION)
    column, row = np.rint(CAMERA.project(np.array([[*place, 0.0]]))[0][0]).astype(int)
    assert with_mark[row - 2 : row + 3, column - 2 : column + 3].any()
    image, pixel = bird_view(scene, [plan])
    column, row = pixel(place)
    assert near(image, style.VIOLATION)[row - 1 : row + 2, column - 1 : column + 2].any()


def test_leaving_the_road_is_marked_at_the_corner_that_leaves_it():
    states = np.zeros((41, 11))
    states[:, 0] = np.linspace(0, 30, 41)
    plan = arc(states=states, violation=Violation("off road", 2.0, (15.0, 0.0), side="right"))
    _, other, place = violation_place(scene_with(), plan, plan.violation, "pdms_v1")
    assert other is None
    np.testing.assert_allclose(place, [15.0 + vehicle.REAR_AXLE_TO_FRONT, -vehicle.WIDTH / 2])


def test_turns_have_an_ordered_scale_and_references_colours_of_their_own():
    plans = [arc(label=f"turn {i}") for i in range(1, 5)] + [arc(role=Role.HUMAN), arc(role=Role.PDM_CLOSED)]
    colours = style.plan_colours(plans)
    lightness = [np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for colour in colours[:4]]
    assert (np.diff(lightness) > 0.1).all()
    assert len(set(colours)) == 6


def test_pictures_for_pages_are_small_and_complete():
    scene = scene_with(RoadObject(22.0), RoadObject(30.0, 3.5, heading=np.pi, speed=6.0))
    random = np.random.default_rng(0).integers(0, 256, (36, 64, 3)).astype(np.uint8)
    image = cv2.resize(random, (640, 360), interpolation=cv2.INTER_CUBIC)
    plans = [arc(0.01 * i, label=f"turn {i}") for i in range(1, 5)]
    bird, camera = bird_view_png(scene, plans), camera_view_jpeg(scene, image, plans)
    assert len(bird) < 60_000
    assert len(camera) < 60_000
    assert cv2.imdecode(np.frombuffer(bird, np.uint8), cv2.IMREAD_COLOR).shape == (480, 360, 3)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(camera, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - camera_view(scene, image, plans, 720)).mean() < 12
    figure = figure_scene(scene, image, plans)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == [plan.summary for plan in plans]


def test_no_picture_touches_the_global_state_of_pyplot():
    for path in Path(style.__file__).parent.glob("*.py"):
        names = {alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
                 for alias in node.names}  # fmt: skip
        assert "matplotlib.pyplot" not in names


@pytest.fixture
def data(tmp_path):
    """A data root with one image, and the cache of its scene."""
    scene = scene_with(RoadObject(22.0))
    for split in ("test", "val"):
        save_store(tmp_path / "scene_cache", split, replace(scene, split=split))
    picture = tmp_path / "sensor_blobs" / "test" / scene.camera.image
    picture.parent.mkdir(parents=True)
    cv2.imwrite(str(picture), GREY)
    np.savez(tmp_path / "T.npz", token=np.array([scene.token] * 2), interval_length=0.5,
             poses=np.stack([constant_velocity_plan(scene), np.zeros((8, 3))]))  # fmt: skip
    return tmp_path, scene


def verb(root: Path) -> list[str]:
    return ["visualize", f"openscene_data_root={root}", f"navsim_exp_root={root}", f"out={root}/out"]


def test_visualize_writes_a_picture_with_all_plans(data, monkeypatch):
    root, scene = data
    figures, save = [], Figure.savefig

    def savefig(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    assert main([*verb(root), f"trajectories={root}/T.npz"]) == 0
    picture = cv2.imread(str(root / "out" / f"{scene.token}.png"))
    assert picture.shape == (660, 1240, 3)
    [figure] = figures
    lines = [text.get_text().split("  ") for legend in figure.legends for text in legend.get_texts()]
    assert [line[0] for line in lines] == ["human", "PDM-Closed", "turn 1", "turn 2"]
    assert lines[2][1] == "PDMS 0.00"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["openscene_data_root=null"], "openscene_data_root"),
        (["references=[oracle]"], "references.0=oracle must be one of human, pdm_closed"),
        (["trajectories=nowhere.npz"], "nowhere.npz"),
        (["token=0123456789abcdef", "split=val"], "no camera image"),
        (["token=ffffffffffffffff", "nuplan_maps_root=null"], "nuplan_maps_root"),
        (["colour=red"], "colour"),
    ],
)
def test_visualize_answers_bad_input_with_one_sentence(data, capsys, arguments, sentence):
    root, _ = data
    assert main([*verb(root), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error.splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.parametrize(("metric", "title"), [("pdms_v1", "PDMS"), ("epdms_v2", "EPDMS")])
def test_a_plan_names_the_score_that_it_has(metric, title):
    scene = scene_with(RoadObject(22.0))
    (assessed,) = assess(scene, constant_velocity_plan(scene)[None], metric=metric)
    assert assessed_plan("turn 1", constant_velocity_plan(scene), assessed).summary.startswith(f"turn 1  {title} ")
