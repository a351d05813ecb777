"""The page to browse: its data says what the pictures show, and the file stands alone. A browser drives it in
tools/check_viewer.py."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtdrive.cli import main
from mtdrive.simulation import vehicle
from mtdrive.simulation.baselines import constant_velocity_plan
from mtdrive.simulation.scene import ObjectType
from mtdrive.visualization.records import EpisodeRecord, TurnRecord
from mtdrive.visualization.turns import DrawnTurn, references, show_turns
from mtdrive.visualization.viewer.page import embedded, look, write_viewer
from mtdrive.visualization.viewer.scenes import viewer_scene
from support.pictures import CAMERA, GREY, scene_with
from support.scenes import RoadObject


class Scripts(HTMLParser):
    """The contents of script elements by id, and every address that the page names."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts, self.links, self._open = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[key] for key in ("href", "src") if key in values]
        self._open = values.get("id", "code") if tag == "script" else None

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.scripts[self._open] = self.scripts.get(self._open, "") + data


@pytest.fixture
def shown():
    """A scene where driving on hits a standing car and then keeping still does not."""
    scene = scene_with(RoadObject(22.0), RoadObject(30.0, 3.5, heading=np.pi, speed=6.0))
    plans = (constant_velocity_plan(scene), np.zeros((8, 3)))
    turns = tuple(TurnRecord(plan, "An answer.", feedback="Told </script> & told.") for plan in plans)
    record = EpisodeRecord("name", scene.token, turns, "lead_braking", "truncated")
    return scene, record, show_turns(scene, record, "pdms_v1", "privileged")


def test_a_row_tells_the_filters_what_became_of_the_scores(shown):
    scene, record, turns = shown
    row = viewer_scene(scene, GREY, record, turns, [], "pdms_v1").row
    assert row["scores"][0] == 0.0
    assert row["scores"][1] > 0.1
    assert row["change"] == "gained"
    assert row["faults"] == ["C"]  # it brakes hard
    assert row["statuses"] == ["truncated"]
    backwards = viewer_scene(scene, GREY, record, turns[::-1], [], "pdms_v1").row
    assert backwards["change"] == "lost"
    assert {"NC", "TTC", "EP"} <= set(backwards["faults"])
    silent = (turns[1], DrawnTurn("?", "parse_error", float("nan"), {}, "Invalid plan."))
    row = viewer_scene(scene, GREY, record, silent, [], "pdms_v1").row
    assert row["change"] == "same"  # the plan before stays in force
    assert row["statuses"] == ["parse_error", "truncated"]
    assert row["faults"] == ["C"]


@pytest.mark.parametrize("width", [640, 1280])
def test_the_ribbon_and_the_cross_lie_where_the_camera_sees_the_plan(shown, width):
    scene, record, turns = shown
    size = (width, width * 9 // 16)
    image, calibration = cv2.resize(GREY, size), replace(scene.camera, intrinsic=CAMERA.resized(*size).intrinsic)
    scene = replace(scene, camera=calibration)
    content = viewer_scene(scene, image, record, turns, references(scene, ["human"], "pdms_v1"), "pdms_v1").content
    assert content["size"] == [640, 360]
    first = content["turns"][0]
    pixels = np.concatenate([np.array(quad) for quad in first["ribbon"]["quads"]])
    assert abs(pixels[:, 0].min() + pixels[:, 0].max() - 639) < 2
    for x in (10.0, 20.0):
        (u, v), half = CAMERA.project(np.array([[x, 0.0, 0.0]]))[0][0], 515.0 * vehicle.WIDTH / 2 / (x - 1.6)
        for edge in first["ribbon"]["edges"]:
            across = np.interp(v, np.array(edge)[::-1, 1], np.array(edge)[::-1, 0])
            assert abs(abs(across - u) - half) < 1.5
    place = first["violation"]["place"]
    assert 16 < place[0] < 22
    expected = CAMERA.project(np.array([[*place, 0.0]]))[0][0]
    assert np.abs(np.array(first["violation"]["pixel"]) - expected).max() < 2
    assert "violation" not in content["turns"][1]
    ends = np.array(first["footprints"][-1])
    assert ends[:, 1].min() == pytest.approx(pixels[:, 1].min(), abs=0.2)  # the car's front ends the ribbon


def test_traffic_and_map_are_those_of_the_scene(shown):
    scene, record, turns = shown
    content = viewer_scene(scene, GREY, record, turns, [], "pdms_v1").content
    standing, moving = content["agents"]
    assert standing["poses"] == [[22.0, 0.0, 0.0]] * 9
    assert moving["poses"][0][:2] == [30.0, 3.5]
    assert moving["poses"][8][:2] == [6.0, 3.5]
    assert look()["agent"][moving["kind"]]
    lanes = [layer for layer in content["map"] if layer["edge"]]
    widths = {round(max(y for _, y in ring) - min(y for _, y in ring), 1) for layer in lanes
              for rings in layer["rings"] for ring in rings}  # fmt: skip
    assert max(abs(width - 3.5) for width in widths) < 0.15
    assert len(json.dumps(content)) < 30_000


@given(st.text(max_size=40))
def test_no_text_ends_the_element_it_stands_in(text):
    page = Scripts(f'<script type="application/json" id="x">{embedded({"words": text + "</script><!--"})}</script>')
    assert json.loads(page.scripts["x"])["words"] == text + "</script><!--"


def test_the_page_stands_alone_and_holds_every_scene(shown, tmp_path):
    scene, record, turns = shown
    made = [viewer_scene(scene, GREY, record, turns, [], "pdms_v1") for _ in range(3)]
    write_viewer(tmp_path / "viewer.html", "Title <b>", iter(made))
    text = (tmp_path / "viewer.html").read_text()
    page = Scripts(text)
    assert page.links == []
    assert not re.findall(r"url\(|@import|https?://|fetch\(|XMLHttpRequest", text)
    assert "Title &lt;b&gt;" in text
    assert json.loads(page.scripts["rows"]) == [item.row for item in made]
    assert [json.loads(page.scripts[f"scene-{i}"]) for i in range(3)] == [item.content for item in made]
    assert len(json.loads(page.scripts["look"])["objects"]) == len(ObjectType)
    assert set(re.findall(r'\$\("(\w+)"\)', page.scripts["code"])) <= set(re.findall(r'id="(\w+)"', text))
    assert [path.name for path in tmp_path.iterdir()] == ["viewer.html"]


def test_visualize_makes_a_page_of_an_evaluation_and_of_a_dataset(world, tmp_path):
    assert main(["record", *world.overrides(), "split=train", f"out={tmp_path}/data", "workers=1"]) == 0
    assert main(["visualize", *world.overrides(), f"episodes={tmp_path}/data", f"out={tmp_path}", "format=html"]) == 0
    page = Scripts((tmp_path / "viewer.html").read_text()).scripts
    rows = json.loads(page["rows"])
    assert len(rows) == json.loads((tmp_path / "data" / "manifest.json").read_text())["samples"]
    kinds = {row["statuses"][0] for row in rows}
    assert {"planning", "refinement"} <= kinds
    refined = [row for row in rows if row["statuses"] == ["refinement"]]
    assert {row["change"] for row in refined} == {"gained"}  # a target betters the plans before it
    for index, row in enumerate(rows):
        turns = json.loads(page[f"scene-{index}"])["turns"]
        assert len(turns) == len(row["scores"])
        assert turns[-1]["answer"]
        if row["statuses"] == ["refinement"]:
            assert all(turn["feedback"].endswith(".") for turn in turns[:-1])
            assert turns[-1]["feedback"] == ""
        elif row["statuses"] != ["planning"]:
            assert turns[-1]["feedback"]
