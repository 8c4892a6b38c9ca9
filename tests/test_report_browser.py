"""The pages in a real browser: nothing is fetched or complained of, the keyboard flips, paper and phones show all."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser, headless_browser
from evaluations import make_classification, make_comparison, make_evaluation, make_example, make_joint_evaluation
from PIL import Image

from veduta.report.comparison_page import write_comparison
from veduta.report.page import write_report
from veduta.tasks.metrics import Rules

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

PAGES = ("segment", "detect_segment", "classify", "comparison")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with headless_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, with all that it can hold."""
    folder = tmp_path_factory.mktemp("pages")
    run = folder / "run"
    run.mkdir()
    Image.new("RGB", (90, 60), (200, 0, 0)).save(run / "curves.png")
    Image.new("RGB", (3000, 200), (0, 0, 200)).save(run / "first_batch.png")
    (run / "recipe.json").write_text('{"name": "a"}')
    (run / "environment.json").write_text('{"torch": "2.10"}')
    failed = (("images/with/a/long/path/and_a_name_without_any_space_in_it_0123456789.png", "not a readable image"),)
    segment = replace(
        make_evaluation(failed=failed, examples=[make_example(name) for name in ("first", "second", "third")]),
        interval=(0.5, 0.8),
        best=(make_example("tall", height=200, width=50), make_example("wide", height=40, width=300)),
    )
    for name, evaluation in {
        "segment": segment,
        "detect_segment": make_joint_evaluation(),
        "classify": make_classification(rules=Rules(full=True)),
    }.items():
        write_report(evaluation, folder / f"{name}.html", run=run)
    write_comparison(make_comparison(4), folder / "comparison.html")
    return {name: folder / f"{name}.html" for name in PAGES}


def visible(browser: Browser, selector: str) -> list[str]:
    """The accessible names of the pictures that are to be seen."""
    script = f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility()).map(e => e.ariaLabel)"
    return list(browser.run(script))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fetches_nothing_and_the_browser_complains_of_nothing(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name])
    assert browser.requests == [pages[name].resolve().as_uri()]
    assert browser.complaints == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_filled_and_its_pictures_are_shown(
    browser: Browser, pages: dict[str, Path], name: str, dark: bool, tmp_path: Path
) -> None:
    browser.open(pages[name], dark=dark)
    browser.screenshot(tmp_path / "page.png", whole=True)
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    assert pixels.shape[0] > 1200 and pixels.shape[1] == 1200
    assert (pixels[0, 0].mean() < 60) == dark
    ink = (np.abs(pixels - pixels[0, 0]) > 8).any(axis=2)
    assert 0.01 < ink.mean() < 0.9
    if name != "comparison" and not dark:
        assert (pixels == (200, 0, 0)).all(axis=2).any()  # the red of the curves


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_narrow_phone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], width=360, height=740)
    assert browser.run("document.documentElement.scrollWidth") == 360
    outside = "[...document.querySelectorAll('main :not(svg *)')].filter(e => e.getBoundingClientRect().right > 361)"
    assert browser.run(f"{outside}.filter(e => !e.closest('.wide')).map(e => e.outerHTML.slice(0, 80))") == []


def test_arrow_keys_flip_through_views_and_pictures_and_keep_what_the_other_says(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["segment"])
    seen = ".stage svg"
    assert visible(browser, seen) == ["Predicted classes of first"]
    browser.run("document.querySelector('[name=view]:checked').focus()")
    browser.press("ArrowRight")
    assert visible(browser, seen) == ["What is wrong in first"]
    browser.press("ArrowRight")
    assert visible(browser, seen) == ["Photo first"]
    browser.press("Tab")
    browser.press("ArrowDown", 2)
    assert visible(browser, seen) == ["Photo third"]
    browser.press("ArrowDown", 2)
    assert visible(browser, seen) == ["Photo wide"]


def test_the_keyboard_reaches_everything_in_the_order_of_the_page_and_shows_where_it_is(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["segment"])
    ring = (
        "[document.activeElement, document.activeElement.closest('label') ?? document.activeElement]"
        ".some(e => getComputedStyle(e).outlineStyle != 'none')"
    )
    reached: list[str] = []
    places: list[float] = []
    while len(reached) < 40:
        browser.press("Tab")
        tag = browser.run("document.activeElement.tagName + '#' + document.activeElement.id")
        if tag.startswith("BODY"):
            break
        assert browser.run(ring), f"nothing shows that {tag} has the focus"
        reached.append(tag)
        places.append(browser.run("document.activeElement.getBoundingClientRect().top + scrollY"))
    assert {"INPUT#view-2", "INPUT#picture-0"} <= set(reached)
    assert sum(tag.startswith("A#") for tag in reached) >= 4 and sum(tag.startswith("SUMMARY") for tag in reached) >= 2
    assert places == sorted(places)


def test_the_canvas_of_all_pictures_has_one_height_so_that_flipping_moves_nothing(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["segment"])
    browser.run("document.querySelector('[name=picture]:checked').focus()")
    tops = set()
    for _ in range(5):
        tops.add(browser.run("document.querySelector('.legend').getBoundingClientRect().top + scrollY"))
        browser.press("ArrowDown")
    assert len(tops) == 1


def test_masks_and_boxes_lie_where_the_photo_is(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["detect_segment"], width=1300, height=1000)
    browser.run("document.getElementById('view-1').click()")  # truth
    browser.run("document.querySelector('.stage').scrollIntoView({behavior: 'instant'})")
    box = browser.run(
        "(() => { const svg = [...document.querySelectorAll('.stage svg')].find(e => e.checkVisibility());"
        " const photo = svg.querySelector('use').getBoundingClientRect();"
        " const mask = svg.querySelector('image').getBoundingClientRect();"
        " const rect = svg.querySelectorAll('rect')[0].getBoundingClientRect();"
        " return [photo, mask, rect].map(r => [r.left, r.top, r.width, r.height]); })()"
    )
    photo, mask, rect = (np.array(values) for values in box)
    assert np.allclose(photo, mask, atol=0.5)
    scale = photo[2] / 128  # the image is 128 x 96, the first object 10, 10, 50, 50
    assert np.allclose(rect, [photo[0] + 10 * scale, photo[1] + 10 * scale, 40 * scale, 40 * scale], atol=2.5)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_with_every_view_of_every_picture(
    browser: Browser, pages: dict[str, Path], name: str, tmp_path: Path
) -> None:
    browser.open(pages[name])
    browser.call("Emulation.setEmulatedMedia", media="print")
    views = browser.run("[...document.querySelectorAll('.view svg')].every(e => e.checkVisibility())")
    choices = browser.run("[...document.querySelectorAll('.viewer input')].some(e => e.checkVisibility())")
    assert views and not choices
    printed = tmp_path / "page.pdf"
    printed.write_bytes(browser.print_pdf())
    assert printed.read_bytes().startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) >= 2


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_paper_says_what_the_screen_says(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["segment"])
    printed = tmp_path / "page.pdf"
    printed.write_bytes(browser.print_pdf())
    words = subprocess.run(["pdftotext", str(printed), "-"], capture_output=True, text=True, check=True).stdout
    for expected in ("Not proved: read why", "95 % interval 50.00 to 80.00", "third", "Recipe", '"name": "a"'):
        assert expected in words
    assert "The arrow keys flip" not in words
