"""The report in a browser: wide, narrow and printed. Skipped where there is no Chromium."""

import base64
import io
import shutil
from dataclasses import replace

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from conftest import chest, save_nifti
from explored_folders import explore
from faults import Child
from PIL import Image
from playwright.sync_api import sync_playwright
from results_folders import write_report, write_volume

from sam_lungs.study.results import SliceResult
from sam_lungs.study.run_record import RunRecord

WIDE, NARROW, A4_PAPER = 1280, 400, 680
METRICS = "dice_3d,nsd,hd95,nsd_3d,hd95_3d"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A report with everything: many metrics, two runs, 7 patients, pictures, explored prompts."""
    folder = tmp_path_factory.mktemp("page")
    image, masks = chest(slices=5)
    files = ["-i", save_nifti(folder / "image_a.nii.gz", image)]
    files += ["-m", save_nifti(folder / "masks_a.nii.gz", masks)]
    options = ["--model", "box", "--prompts", "paper,negative_30", "--debug", "--save_masks"]
    options += ["--metrics", METRICS, "--tolerance_mm", "1,2,5", "--empty_slices", "nearest"]
    child = Child(folder, "process_image.py", *files, *options, "--output_folder", "results")
    assert child.wait() == 0, child.streams()
    quantities = {f"mean_dice_{points}_points": points / 40 for points in range(1, 21)}
    explore(folder / "results/explore/points/paper/a", quantities)
    for protocol in ("paper", "negative_30"):
        processed = folder / "results" / protocol / "image_a"
        record = RunRecord.read(processed)
        for number, dice in enumerate((0.3, 0.32, 0.34, 0.9, 0.92, 0.94)):
            name = f"image_of_a_hospital_with_a_long_name_{number}"
            dice -= 0.1 * (protocol == "negative_30")
            rows = [SliceResult(i, dice, dice, 0.5, 10, 10) for i in range(3)]
            write_volume(processed.parent / name, rows, replace(record, patient=name))
    return write_report(folder / "results/paper", [folder / "results/negative_30"])


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium)


@pytest.fixture
def page(browser, path):
    """The report in a wide window; it must not read any other file."""
    page = browser.new_page(viewport={"width": WIDE, "height": 900})
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(path.as_uri())
    yield page
    page.close()
    assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]


def overflowing(page) -> list[str]:
    """The names of tables that are wider than their place; the page itself never is."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((area) => area.scrollWidth >"
        " area.clientWidth).map((area) => area.getAttribute('aria-label'))"
    )


def style(page, selector: str, name: str, pseudo: str = "") -> str:
    script = "([selector, name, pseudo]) => getComputedStyle(document.querySelector(selector),"
    return page.evaluate(f"{script} pseudo)[name]", [selector, name, pseudo])


def test_a_wide_window_shows_all_columns(page):
    assert page.locator(".scroll").count() >= 7
    assert overflowing(page) == []


def test_a_narrow_window_marks_the_tables_that_scroll(page):
    page.set_viewport_size({"width": NARROW, "height": 800})
    names = overflowing(page)
    assert {"Table: results", "Table: runs compared", "Table: volumes"} <= set(names)
    assert page.locator(".scroll.wide").count() == len(names)
    assert "scroll it sideways" in style(page, ".scroll.wide", "content", "::before")
    area = page.get_by_role("region", name="Table: volumes")
    area.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.activeElement.scrollLeft > 0")


def test_names_that_begin_with_a_number_are_sorted_as_names(page):
    kinds = {"text": ["2_b", "10_a", "2_a"], "": ["1e-5", "< 0.0001", "-1 (-2 to 0)"]}
    for kind, texts in kinds.items():
        made = page.evaluate(
            "([kind, texts]) => texts.map((text) => Object.assign(document.createElement('td'),"
            " {textContent: text, className: kind})).sort(compare).map((cell) => cell.textContent)",
            [kind, texts],
        )
        assert made == [texts[2], texts[0], texts[1]]


def test_tables_are_sorted_by_keyboard(page):
    table = page.get_by_role("region", name="Table: volumes")
    assert page.get_by_text("press Enter on it").count() == 1

    def press_and_read(heading: str, column: int) -> tuple[list[str], list[str]]:
        table.get_by_role("button", name=heading).press("Enter")
        cells = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
        sorts = table.locator("th").evaluate_all("all => all.map((each) => each.ariaSort)")
        return cells, [sort for sort in sorts if sort]

    headings = table.locator("th").all_inner_texts()
    dice, of_3d = headings.index("dice avg"), headings.index("dice 3d")
    up, sorts = press_and_read("dice avg", dice)
    assert sorts == ["ascending"]
    assert [float(each) for each in up] == sorted(map(float, up))
    down, sorts = press_and_read("dice avg", dice)
    assert (down, sorts) == (up[::-1], ["descending"])
    assert "▼" in style(page, "th[aria-sort] button", "content", "::after")
    for _ in range(2):  # a volume without a value stays last
        values, sorts = press_and_read("dice 3d", of_3d)
        assert values[1:] == ["-"] * 6
    assert sorts == ["descending"]


def test_no_link_is_dead(page):
    links = page.locator("a[href]").evaluate_all(
        "all => all.map((each) => each.getAttribute('href'))"
    )
    inside = [link for link in links if link.startswith("#")]
    assert inside
    assert all(page.locator(link).count() == 1 for link in inside)
    assert all(link.startswith("https://") for link in links if link not in inside)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_axe_finds_nothing(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")
    page.evaluate(AXE_FILE_PATH.read_text("utf-8"))
    violations = page.evaluate("axe.run().then((results) => results.violations)")
    assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []


def test_the_animation_runs_only_while_it_is_opened(page):
    still, animated = page.locator('figure:has(img[src^="data:image/gif"]) img').all()
    picture = still.get_attribute("src").partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(picture))).n_frames == 1
    switch = page.get_by_text("Play the animation")
    assert still.is_visible()
    assert not animated.is_visible()
    switch.click()
    assert animated.is_visible()
    page.emulate_media(media="print")
    assert still.is_visible()
    assert not animated.is_visible()
    page.emulate_media(media="screen")
    switch.click()
    assert not animated.is_visible()


def test_print_keeps_columns_headings_and_closed_tables(page):
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4_PAPER, "height": 900})
    assert overflowing(page) == []
    for selector in ("h2", "h3", ".lead"):
        assert style(page, selector, "breakAfter") == "avoid"
    assert style(page, "thead", "display") == "table-header-group"
    # A form control in it would keep Chromium from repeating it on the next page.
    assert style(page, "th button", "display") == "contents"
    assert page.locator("details:not([open]):not(.screen) td").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
