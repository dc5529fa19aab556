"""The report as a browser shows it: Chromium, without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from conftest import Workflow, make_clip

pytestmark = pytest.mark.browser

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
)

COLOURS_OF_CHARTS = """
() => Bokeh.index.roots.filter(view => view.model.type == "Figure").map(view => {
    const canvas = view.canvas_view.primary.canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
})
"""
"""Of each figure that Bokeh has drawn, how many colours there are in what it has drawn."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium; as root of a Debian, `make test-browser` installs it")
    with sync_playwright() as playwright:
        # As root, which CI often is, Chromium runs without its sandbox only.
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class Shown:
    """A page, and what it complained of and asked for while it was loaded."""

    def __init__(self, browser: Browser, path: Path):
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": 1140, "height": 900})
        self.page.on("console", self._take)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function(
            "window.Bokeh === undefined || Bokeh.documents.every(d => d.is_idle)"
        )
        self.path = path

    def _take(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def assert_quiet(self) -> None:
        """Nothing went wrong, and nothing but the file itself was asked for."""
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("data:")] == [self.path.as_uri()]


@pytest.fixture(scope="module")
def report(tmp_path_factory, real_weights, real_clips) -> Path:
    """The report of a run over nine real and synthetic videos and one that is missing."""
    folder = tmp_path_factory.mktemp("run")
    workflow = Workflow(folder, real_weights)
    clips = [make_clip(folder / "more" / f"{k}.mp4", seconds=2 + k) for k in range(6)]
    workflow.write_rows(
        *((clip, f"features/{clip.parent.name}_{clip.stem}.npy") for clip in clips),
        *((clip, f"features/{stem}.npy") for stem, clip in real_clips.items()),
        ("<b>gone</b>.mp4", "features/gone.npy"),
    )
    workflow.run(check=False, report="true")
    return workflow.folder / "results" / "report.html"


def test_every_chart_is_drawn_without_a_network_and_without_a_complaint(browser, report):
    shown = Shown(browser, report)
    shown.assert_quiet()
    page = shown.page
    # Six videos with a timeline and a matrix each, the map, six histograms, throughput and stages.
    colours = page.evaluate(COLOURS_OF_CHARTS)
    assert len(colours) == 6 * 2 + 1 + 6 + 2
    assert min(colours) > 2
    assert page.locator(".strip img").count() >= 6 * 2
    broken = "images => images.filter(image => !image.naturalWidth).length"
    assert page.locator("img").evaluate_all(broken) == 0
    assert page.locator("nav a").all_inner_texts() == [
        *("not done", "what came out", "the collection", "nearly the same"),
        *("distributions", "speed", "time", "settings"),
    ]
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.get_by_text("<b>gone</b>.mp4").count() == 1
    # Nothing is wider than the page.
    assert page.evaluate("document.documentElement.scrollWidth") <= 1140


def test_a_point_of_the_map_shows_its_video_on_hover(browser, report):
    shown = Shown(browser, report)
    page = shown.page
    page.locator("#map").scroll_into_view_if_needed()
    place = page.evaluate("""() => {
        const view = Bokeh.index.roots.find(v => v.model.renderers.length && v.model.match_aspect);
        const renderer = view.model.renderers[0], data = renderer.data_source.data;
        const box = view.el.getBoundingClientRect();
        const frame = view.frame;
        return [box.x + frame.x_scale.compute(data.x[0]), box.y + frame.y_scale.compute(data.y[0]),
                data.video_path[0]];
    }""")
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(place[0], place[1])
    tip = page.locator(".tip", has_text=place[2])
    tip.first.wait_for(timeout=10_000)
    assert tip.first.locator("img").evaluate("image => image.naturalHeight") > 0
    shown.assert_quiet()


def test_what_is_seen_is_not_empty(browser, report, tmp_path):
    page = Shown(browser, report).page
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 3000
    bands = [band.reshape(-1, 3) for band in np.array_split(pixels, 20)]
    assert all(len(np.unique(band, axis=0)) > 10 for band in bands)


def test_a_report_without_anything_done_opens_too(browser, workflow):
    workflow.write_rows(("gone.mp4", "features/gone.npy"))
    workflow.run(check=False, report="true")
    shown = Shown(browser, workflow.folder / "results" / "report.html")
    shown.assert_quiet()
    assert shown.page.locator(".tile b").first.inner_text() == "0"
