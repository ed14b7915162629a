"""The page in a real browser: every control, both themes, three widths, no faults of access."""

import csv
import io
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cases.analysis import study_parts  # noqa: F401
from cases.report_page import every_part

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here")
axe = pytest.importorskip("axe_playwright_python.base", reason="no axe-core here")
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on the path"),
]
WIDTHS = (390, 768, 1440)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        yield engine.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def address(study_parts, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("page") / "page.html"
    every_part(study_parts).save(path)
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the page, and fail on errors of its scripts and on requests to a network."""
    contexts, faults = [], []

    def open_page(width=1440, theme="light"):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: None if r.url == address else check_local(r.url, faults))
        page.goto(address)
        page.wait_for_function("document.documentElement.dataset.ready")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def check_local(url, faults):
    if not url.startswith(("data:", "blob:")):
        faults.append(f"request to {url}")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_is_accessible(opened, width, theme):
    page = opened(width, theme)
    for details in page.locator("details").all():  # folded parts are checked too
        details.evaluate("(node) => { node.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(axe.AXE_SCRIPT)
    results = page.evaluate("axe.run({resultTypes: ['violations']})")
    serious = [v for v in results["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (theme == "light")


def test_the_theme_button_goes_through_three_states(opened):
    page, button = opened(), "#theme"
    papers = []
    for _ in range(3):
        page.click(button)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers[0] == papers[2] == "rgb(255, 255, 255)" and papers[1] != papers[0]
    assert page.inner_text(button) == "Theme: as the system"


def test_contents_follow_the_reader(opened):
    page = opened()
    page.click("nav a >> nth=2")
    page.wait_for_function("document.querySelectorAll('nav a')[2].hasAttribute('aria-current')")
    narrow = opened(390)
    assert not narrow.locator("nav a >> nth=0").is_visible()
    narrow.click("nav summary")
    assert narrow.locator("nav a >> nth=0").is_visible()


def test_curves_toggle_scale_and_speak(opened):
    page = opened()
    chart = page.locator("#chart-1")
    lines = "[...document.querySelectorAll('#chart-1 .panel svg path')].length"
    before = page.evaluate(lines)
    button = chart.locator(".legend button >> nth=0")
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and page.evaluate(lines) < before
    button.press("Enter")
    assert page.evaluate(lines) == before
    ticks = chart.locator(".panel svg").first.inner_html()
    chart.get_by_label("logarithmic x").check()
    assert chart.locator(".panel svg").first.inner_html() != ticks
    chart.locator(".panels").press("ArrowRight")
    assert "panel blur" in chart.locator(".readout").inner_text()
    chart.get_by_text("Values", exact=True).click()
    assert chart.locator("table tbody tr").count() > 10


@pytest.mark.parametrize("number", range(1, 7))
def test_every_chart_shows_values_on_hover(opened, number):
    page = opened()
    chart = page.locator(f"#chart-{number}")
    if chart.get_attribute("data-kind") == "matrix":
        return  # its numbers are in the cells
    svg = chart.locator(".panel svg").first
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    tip = svg.locator("g[aria-label=tip] text")
    for n in range(64):  # a pointer shows the values of points nearby
        across, down = 0.2 + 0.1 * (n % 8), 0.1 + 0.1 * (n // 8)
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        if tip.count():
            break
    assert tip.count() and len(tip.first.text_content()) > 3


def saved(page, click):
    with page.expect_download() as event:
        click()
    return event.value.suggested_filename, Path(event.value.path()).read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(1, 7))
def test_every_chart_can_be_saved(opened, number):
    page = opened()
    chart = page.locator(f"#chart-{number}")
    name, text = saved(page, chart.get_by_text("CSV", exact=True).click)
    rows = list(csv.reader(io.StringIO(text)))
    assert name.endswith(".csv") and len(rows) > 2 and rows[0][0] == "panel"
    assert len({len(row) for row in rows}) == 1
    name, text = saved(page, chart.get_by_text("SVG", exact=True).click)
    drawn = ElementTree.fromstring(text)
    assert name.endswith(".svg") and len(list(drawn.iter())) > 20
    assert "var(--" not in text


def test_tables_sort_and_can_be_saved(opened):
    page = opened()
    head = page.locator("table[data-name=masking] th", has_text="masked, %").locator("button")
    head.click()
    column = "[...document.querySelectorAll('table[data-name=masking] tbody tr')]"
    values = [float(v) for v in page.evaluate(f"{column}.map((row) => row.cells[3].textContent)")]
    assert values == sorted(values, reverse=True)
    head.press("Enter")
    values = [float(v) for v in page.evaluate(f"{column}.map((row) => row.cells[3].textContent)")]
    assert values == sorted(values)
    name, text = saved(page, page.get_by_label("Download table masking as CSV").click)
    lines = text.splitlines()  # one a metric, for machines
    assert name == "masking.csv" and lines[0].startswith("degradation,contrast,method,fraction")
    assert len(lines) > 2 * len(values)


TRANSFORMS = """[...new Set([...document.querySelectorAll('#scene-1 .shots img')]
    .map((image) => getComputedStyle(image).transform))]"""


def test_images_zoom_together_and_differ(opened):
    page = opened()
    scene = page.locator("#scene-1")
    scene.get_by_label("Zoom", exact=True).fill("4")
    (zoomed,) = page.evaluate(TRANSFORMS)
    assert zoomed.startswith("matrix(4,")
    scene.locator(".shots").press("ArrowLeft")
    (moved,) = page.evaluate(TRANSFORMS)
    assert moved != zoomed
    scene.locator(".shots").scroll_into_view_if_needed()
    box = scene.locator(".shots .lens").first.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 80)
    page.mouse.up()
    (dragged,) = page.evaluate(TRANSFORMS)
    assert dragged != moved
    scene.locator(".shots").press("-")
    assert page.evaluate(TRANSFORMS)[0].startswith("matrix(3.5,")
    scene.get_by_text("Reset zoom").click()
    assert page.evaluate(TRANSFORMS) == ["matrix(1, 0, 0, 1, 0, 0)"]
    scene.get_by_label("Difference to").select_option(label="target")
    scene.get_by_label("brighter").select_option(label="× 8")
    assert scene.locator(".lens.differs").count() == 5
    scene.get_by_label("Difference to").select_option(label="off")
    assert scene.locator(".lens.differs").count() == 0


def test_the_slider_compares_two_images(opened):
    page = opened()
    box = page.locator("#scene-1 .compare")
    cut = "getComputedStyle(document.querySelector('#scene-1 .over')).clipPath"
    box.get_by_label("Border between").fill("20")
    assert "20%" in page.evaluate(cut)
    box.get_by_label("Border between").press("ArrowRight")
    assert "21%" in page.evaluate(cut)
    box.get_by_label("A (left)").select_option(label="input")
    box.get_by_label("B (right)").select_option(label="ground truth")
    shown = "[...document.querySelectorAll('#scene-1 .compare img')].map((i) => i.alt.slice(0, 9))"
    assert page.evaluate(shown) == ["A: input,", "B: ground"]


def test_dials_choose_images(opened):
    page = opened()
    dial = page.locator("#dial-2")
    current = "[...document.querySelectorAll('#dial-2 .stack img')].findIndex((i) => i.className)"
    assert page.evaluate(current) == 5 and dial.locator("img:visible").count() == 1
    dial.get_by_label("strength of blur").fill("0")
    dial.get_by_label("strength of noise").press("ArrowLeft")
    assert page.evaluate(current) == 1
    assert "blur at strength 0, noise at strength 0.5: 1 dB" in dial.inner_text()


def test_filters_are_browsed(opened):
    page = opened()
    part = page.locator(".browser")
    part.locator(".best button", has_text="3. ").first.click()
    assert "rank for blur\t3 of" in part.locator("tbody").inner_text()
    title = part.locator("h3").inner_text()
    pixels = "document.querySelector('.browser canvas').toDataURL()"
    before = page.evaluate(pixels)
    part.get_by_label("Colour by").select_option(label="blur − noise")
    assert page.evaluate(pixels) != before
    part.get_by_label("One scale for all layers").uncheck()
    part.get_by_label("Layer", exact=True).select_option(index=1)
    part.locator("canvas[tabindex]").click(position={"x": 5, "y": 5})
    part.locator("canvas[tabindex]").press("ArrowDown")
    assert part.locator("h3").inner_text() != title
    assert "out 1, in 0" in part.locator("h3").inner_text()
    assert part.locator(".kernels svg").count() == 3
    _, text = saved(page, part.get_by_label("Download scores and ranks").click)
    assert text.startswith("layer,out,in,score blur") and len(text.splitlines()) > 4
    _, text = saved(page, part.get_by_label("Download the three kernels").click)
    assert len(ElementTree.fromstring(text).findall("{http://www.w3.org/2000/svg}svg")) == 3


def test_print_shows_every_strength_and_no_controls(opened):
    page = opened(theme="dark")
    page.emulate_media(media="print", color_scheme="light")
    assert not page.locator("nav").is_visible() and not page.locator("#theme").is_visible()
    assert page.locator("#dial-1 img:visible").count() == 3
    assert len(page.pdf()) > 10_000
