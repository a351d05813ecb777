"""Check the viewer in a real headless browser: open it from disk, filter, search, go through scenes, move the plans.

    python tools/check_viewer.py                                       a page of 500 scenes of a small synthetic world
    python tools/check_viewer.py --page pictures/viewer.html --screenshot viewer.png

Needs the package playwright and a Chromium on the PATH (Debian: apt-get install chromium). Prints what it measured;
exits with 1 and the reason if the page does not do what it should.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from mtdrive.cli import main
from mtdrive.simulation.baselines import BASELINES
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.visualization.records import EpisodeRecord, Recording, TurnRecord
from mtdrive.visualization.turns import references, show_turns
from mtdrive.visualization.viewer.page import write_viewer
from mtdrive.visualization.viewer.scenes import viewer_scene

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOURED = 60  # scenes gone through with the keyboard


def example_page(folder: Path, scenes: int) -> Path:
    """A page of so many scenes, those of a small world again and again; the first plan stands still, the second is the
    human's."""
    roots = [
        f"openscene_data_root={folder}/world",
        f"nuplan_maps_root={folder}/world/maps",
        f"navsim_exp_root={folder}",
    ]
    sizes = ["scenes_train=0", "scenes_val=0", "scenes_test=12"]
    if main(["synth", f"out={folder}/world", *sizes]) or main(["cache", "split=test", *roots]):
        sys.exit("The example world could not be made.")
    store = SceneStore(folder / "scene_cache", "test")
    recording = Recording("Example", all_windows("test").scene_set, "pdms_v1", "privileged", ())
    made = []
    for token in store.tokens:
        scene = store.load(token)
        plans = [BASELINES[name](scene) for name in ("standstill", "human")]
        texts = ("Stand still.", "Drive as the human did.")
        turns = tuple(TurnRecord(plan, text, feedback="Told.") for plan, text in zip(plans, texts, strict=True))
        episode = EpisodeRecord(token, token, turns, family=f"family_{len(made) % 3}", status="completed")
        image = read_image(folder / "world", "test", scene.camera.image)
        shown = show_turns(scene, episode, recording.metric, recording.source)
        beside = references(scene, ["human"], recording.metric)
        made.append(viewer_scene(scene, image, episode, shown, beside, recording.metric))
    names = (f"{number:04d}" for number in range(scenes))
    page = folder / "viewer.html"
    write_viewer(
        page,
        f"Example of {scenes} scenes",
        (replace(scene, row=scene.row | {"name": name}) for name, scene in zip(names, islice(cycle(made), scenes))),
    )
    return page


def expect(condition: bool, sentence: str) -> None:
    """End with a sentence unless the condition holds."""
    if not condition:
        sys.exit(f"FAILED: {sentence}")


def check_page(page: Page, path: Path, foreign: list[str], errors: list[str]) -> None:
    """Everything that a person would do, in order."""
    started = time.perf_counter()
    page.goto(path.resolve().as_uri())
    page.wait_for_function("picture && picture.complete && views.bird.width > 0")
    opened = time.perf_counter() - started
    rows = page.evaluate("ROWS")
    expect(page.locator("#list li").count() == len(rows), "the list does not hold every scene")

    check_filters(page, rows)
    check_keys(page, rows)
    check_time(page)

    toured = min(TOURED, len(rows) - 1)
    page.keyboard.press("Home")
    started = time.perf_counter()
    for _ in range(toured):
        page.keyboard.press("j")
        page.wait_for_function("picture.complete")
    each = (time.perf_counter() - started) / max(toured, 1)
    expect(page.evaluate("chosen") == page.evaluate(f"shown[{toured}]"), "j does not go through the list")
    expect(not errors, f"the page raised {errors[:3]}")
    expect(not foreign, f"the page asked for {foreign[:3]}")
    megabytes, heap = path.stat().st_size / 1e6, page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    print(f"{len(rows)} scenes, {megabytes:.1f} MB: opened in {opened:.2f} s, {1e3 * each:.0f} ms a scene, "
          f"{heap:.0f} MB of script memory after {toured} scenes")  # fmt: skip


def check_filters(page: Page, rows: list[dict]) -> None:
    """Each choice of each filter leaves as many rows as it says and as the data has."""
    values = {
        "family": lambda row: [row["family"]],
        "faults": lambda row: row["faults"] or ["none"],
        "change": lambda row: [row["change"]],
        "statuses": lambda row: row["statuses"],
    }
    for name, of in values.items():
        options = page.eval_on_selector_all(f"#{name} option", "all => all.map(o => o.value).filter(Boolean)")
        for value in options:
            page.select_option(f"#{name}", value)
            expected = sum(value in of(row) for row in rows if row["scores"] or name in ("family", "statuses"))
            expect(page.evaluate("shown.length") == expected, f"{name}={value} does not show {expected} scenes")
            expect(page.locator("#list li").count() == expected, f"{name}={value} lists other rows")
        page.click("#clear")
    page.keyboard.press("/")
    page.keyboard.type(rows[-1]["name"])
    expect(page.evaluate("shown.includes(ROWS.length - 1)"), "search does not find a scene by its name")
    expect(
        page.evaluate("ROWS[chosen].name") == rows[-1]["name"] or page.evaluate("shown.length") > 1, "search is lost"
    )
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    expect(page.evaluate("shown.length") == len(rows), "x does not clear the search")


def check_keys(page: Page, rows: list[dict]) -> None:
    """Keys go through the list, open the help and hide plans."""
    page.keyboard.press("Home")
    for key, place in (("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0), ("End", len(rows) - 1), ("Home", 0)):
        page.keyboard.press(key)
        expect(page.evaluate("shown.indexOf(chosen)") == min(place, len(rows) - 1), f"{key} goes astray")
    expect(page.url.endswith(f"#{page.evaluate('ROWS[chosen].name')}"), "the address does not name the scene")
    page.keyboard.press("?")
    expect(page.locator("#help").is_visible(), "? shows no help")
    page.keyboard.press("Escape")
    expect(not page.locator("#help").is_visible(), "Escape leaves the help open")
    while page.evaluate("!scene.turns.some((turn) => turn.path && Math.max(...turn.path.map((p) => p[0])) > 8)"):
        page.keyboard.press("j")
    page.wait_for_function("picture.complete")
    for number in range(1, page.evaluate("scene.turns.length") + 1):
        page.keyboard.press(str(number))
    bare = page.evaluate("views.camera.toDataURL()")
    page.keyboard.press("0")
    expect(page.evaluate("views.camera.toDataURL()") != bare, "no plan is drawn into the camera view")


def check_time(page: Page) -> None:
    """The slider moves what is drawn; playing ends by itself."""
    still = page.evaluate("views.bird.toDataURL()")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".time output").inner_text() == "2.0 s", "20 steps of 0.1 s are not 2 s")
    expect(page.evaluate("views.bird.toDataURL()") != still, "nothing moves with the time")
    page.keyboard.press("Space")
    page.wait_for_function("!playing", timeout=15_000)
    expect(page.locator(".time output").inner_text() == "4.0 s", "playing does not reach 4 s")


def run() -> None:
    """Parse the command line and check the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, help="a viewer.html; without it an example is made")
    parser.add_argument("--scenes", type=int, default=500, help="of the example")
    parser.add_argument("--screenshot", type=Path, help="PNG to write at the end")
    parser.add_argument("--browser", default=next(filter(None, map(shutil.which, BROWSERS)), None))
    arguments = parser.parse_args()
    if arguments.browser is None:
        sys.exit("There is no Chromium on the PATH: install one (Debian: apt-get install chromium) or give --browser.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = arguments.page or example_page(Path(folder), arguments.scenes)
        browser = playwright.chromium.launch(executable_path=arguments.browser, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        foreign, errors = [], []
        page.on(
            "request", lambda request: foreign.append(request.url) if request.url[:5] not in ("file:", "data:") else 0
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else 0)
        check_page(page, path, foreign, errors)
        if arguments.screenshot:
            page.screenshot(path=arguments.screenshot)
        browser.close()
    print("The viewer passes.")


if __name__ == "__main__":
    run()
