"""report.html in headless Chromium: it opens from disk alone, sorts, fits, and can be read in both themes; that of two
stages too, which has the same parts."""

import json
import shutil
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from xray_lightning.evaluation.report.page import write_report

from ..cascades import cascade_content
from .conftest import Maker, finished_sweep, save_png

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what playwright's own imports deprecate is not ours
    sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"there is no browser here: none of {', '.join(NAMES)}")

CONTRASTS = """() => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(e).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const ink = channels(getComputedStyle(element).color).slice(0, 3), paper = behind(element);
    const [low, high] = [luminance(ink), luminance(paper)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), `${element.tagName} ${texts.currentNode.data.trim().slice(0, 30)}`]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # the sandbox needs rights that containers seldom have
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(finished_sweep(Maker(tmp_path_factory.mktemp("sweep") / "four"))).as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The sweep's report, opened; `seen` is what it asked for, `complaints` its errors."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened.seen, opened.complaints = [], []
    opened.on("request", lambda request: opened.seen.append(request.url))
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.goto(address)
    yield opened
    opened.close()


def column(page: Any, number: int) -> list[str]:
    rows = page.locator("#results tbody tr").all()
    return [row.locator("th, td").nth(number).inner_text().split("\n")[0] for row in rows]


def test_it_opens_from_disk_without_errors_or_network(page: Any) -> None:
    page.wait_for_load_state("networkidle")
    assert page.complaints == []
    assert page.seen[0].startswith("file://")
    assert all(url.startswith("data:") for url in page.seen[1:])


def test_figures_are_there_and_described(page: Any) -> None:
    images = page.evaluate("[...document.querySelectorAll('figure img')].map(i => [i.naturalWidth, i.alt.length])")
    assert len(images) == 21
    assert all(width > 0 and alt > 20 for width, alt in images)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_an_enlarged_figure_opens_and_closes_by_keyboard(page: Any, key: str) -> None:
    button = page.locator(".enlarge").nth(1)
    button.focus()
    page.keyboard.press(key)
    image = page.locator("dialog img")
    assert image.is_visible()
    assert image.get_attribute("alt") == page.locator("figure img").nth(1).get_attribute("alt")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert button.evaluate("b => b === document.activeElement")


@pytest.mark.parametrize(("width", "columns"), [(390, 1), (1280, 2), (2400, 2)])
def test_figures_stand_in_two_columns_at_most_and_galleries_span_them(page: Any, width: int, columns: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    grid = page.locator("details.run[open] .figures")
    assert len(grid.evaluate("g => getComputedStyle(g).gridTemplateColumns").split()) == columns
    gallery = grid.locator("figure.gallery")
    assert gallery.count() == 1
    assert gallery.evaluate("f => f.offsetWidth") == grid.evaluate("g => g.clientWidth")


def test_an_interval_stays_on_one_line(page: Any) -> None:
    page.set_viewport_size({"width": 320, "height": 800})
    lines = page.evaluate("[...document.querySelectorAll('.unbroken')].map(s => s.getClientRects().length)")
    assert len(lines) > 8 and set(lines) == {1}


@pytest.mark.parametrize("by", ["click", "Enter", "Space"])
def test_a_column_sorts_up_and_down(page: Any, by: str) -> None:
    head = page.locator("#results thead th").nth(4)
    before = column(page, 4)
    orders = []
    for direction in ("ascending", "descending"):
        button = head.locator("button")
        if by == "click":
            button.click()
        else:
            button.focus()
            page.keyboard.press(by)
        assert head.get_attribute("aria-sort") == direction
        assert page.locator("#results th[aria-sort]").count() == 1
        kinds = page.evaluate("[...document.querySelectorAll('#results tbody tr')].map(r => r.className)")
        orders.append([v for v, kind in zip(column(page, 4), kinds, strict=True) if kind == "run"])
        below = [kinds[i - 1] for i, kind in enumerate(kinds) if kind == "reference"]
        assert below == ["run", "run"]
    assert orders[0] == sorted(orders[0]) and orders[1] == orders[0][::-1]
    assert sorted(column(page, 4)) == sorted(before)


def test_words_sort_by_alphabet(page: Any) -> None:
    head = page.locator("#results thead th").first
    head.locator("button").click()
    head.locator("button").click()
    assert [name for name in column(page, 0) if name != "reference"] == ["resnet50", "cnn", "resnet50", "cnn"]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("window.scrollTo(500, 0)")
    assert page.evaluate("window.scrollX") == 0


def test_both_themes_can_be_read(page: Any) -> None:
    papers = set()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        found = page.evaluate(CONTRASTS)
        assert len(found) > 300
        assert [text for contrast, text in found if contrast < 4.5] == []
    assert len(papers) == 2


def test_the_theme_is_toggled_and_remembered(page: Any) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    button = page.get_by_role("button", name="Dark theme")
    button.click()
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(paper) == light


def test_headings_and_landmarks_are_in_order(page: Any) -> None:
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])")
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.locator("html").get_attribute("lang") == "en"
    for landmark in ("main", "nav", "header", "footer"):
        assert page.locator(landmark).count() == 1
    tables = page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())"
    )
    scopes = page.evaluate("[...document.querySelectorAll('th')].every(h => ['col', 'row'].includes(h.scope))")
    assert tables and scopes
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_a_link_to_a_run_opens_its_section(page: Any) -> None:
    section = page.locator("details.run").nth(2)
    assert not section.evaluate("d => d.open")
    page.locator("#results tbody a").nth(2).click()
    page.wait_for_function("document.querySelectorAll('details.run')[2].open")


def test_the_skip_link_leads_to_the_results(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_on_paper_every_run_is_shown_on_white(page: Any) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("[...document.querySelectorAll('details.run')].every(d => d.open)")
    assert not page.locator("#theme").is_visible()


def test_the_page_of_two_stages_opens_fits_and_can_be_read(page: Any, tmp_path: Path) -> None:
    (tmp_path / "cascade.json").write_text(json.dumps(cascade_content()))
    save_png(tmp_path / "figures" / "sweep_unseen.png")
    page.goto(write_report(tmp_path).as_uri())
    for width, scheme in ((360, "dark"), (1280, "light")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = page.evaluate(CONTRASTS)
        assert len(found) > 300 and [text for contrast, text in found if contrast < 4.5] == []
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])")
    assert levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    targets = page.evaluate("[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))")
    assert len(targets) == 8 and all(targets)
    page.locator(".enlarge").click()
    assert page.locator("dialog img").is_visible()
    assert page.complaints == [] and all(url.startswith(("file:", "data:")) for url in page.seen)
