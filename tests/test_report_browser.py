"""The report in a real browser: nothing wrong in its console, readable on a phone and on paper, sorted and filtered."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.page import write_report
from tests.chromium import Chromium, Page, chromium, needs_chromium
from tests.test_report import PEOPLE, make_run, measurements_of, record_of

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></td><script>document.title='owned'</script>"

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of the same data at three commits, one generator of a name that is HTML, as one page."""
    folder = tmp_path_factory.mktemp("browser")
    runs = []
    for index, letter in enumerate("abc"):
        record = record_of(commit=letter * 40, started=f"2026-11-2{index}T03:14:15Z")
        rows = measurements_of(PEOPLE, ("copy", HOSTILE), seed=index)
        # Numbers that no parser reads as they are written: with a minus sign, and with thin spaces.
        rows.append(rows[0].model_copy(update={"metric": "jitter_dlib68", "value": -1.25 - index, "n_frames": 123_456}))
        runs.append(make_run(folder / f"run-{letter}", rows, record))
    return write_report(runs, folder / "report.html").html


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(report: Path, browser: Chromium) -> Iterator[Page]:
    page = browser.new_page()
    page.size(1400, 900)
    page.open(report.as_uri())
    page.wait_for("document.readyState === 'complete' && !!document.querySelector('#board')")
    yield page
    assert page.problems == []


LEADERBOARD = "#board table"
MEASUREMENTS = "[aria-label='Every measurement, table'] table"


def column(page: Page, heading: str, table: str = LEADERBOARD) -> list[str]:
    """The keys of a column of a table, in the order of its rows."""
    keys: list[str] = page.evaluate(
        f"""(() => {{
        const table = document.querySelector("{table}");
        const index = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith('{heading}'));
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[index].dataset.key);
        }})()"""
    )
    return keys


def sort_by(page: Page, heading: str, table: str = LEADERBOARD) -> None:
    page.evaluate(
        f"""[...document.querySelectorAll("{table} th button")]
        .find((button) => button.textContent.startsWith('{heading}')).click()"""
    )


def test_the_leaderboard_sorts_and_filters(page: Page) -> None:
    sort_by(page, "psnr")
    down = [float(key) for key in column(page, "psnr")]
    assert down == sorted(down) and len(down) == 18  # three runs, two generators, three numbers of shots
    sort_by(page, "psnr")
    assert [float(key) for key in column(page, "psnr")] == down[::-1]
    assert page.evaluate("document.querySelector('#board th[aria-sort]').getAttribute('aria-sort')") == "descending"
    page.evaluate(
        """(() => {
        const form = document.getElementById('board-filter');
        form.elements.words.value = 'COPY'; form.elements.setting.value = '8';
        form.dispatchEvent(new Event('input'));
        })()"""
    )
    assert len(column(page, "psnr")) == 3
    assert page.evaluate("document.querySelector('#board-filter output').textContent") == "3 of 18"


@pytest.mark.parametrize("heading", ["value", "frames"])
def test_every_measurement_is_sorted_by_number_and_not_as_written(page: Page, heading: str) -> None:
    for down in (False, True):
        sort_by(page, heading, MEASUREMENTS)
        keys = column(page, heading, MEASUREMENTS)
        there = [float(key) for key in keys if key]
        assert there == sorted(there, reverse=down) and len(set(there)) > 2
        assert keys == [key for key in keys if key] + [""] * keys.count("")  # what has none is last, either way
        assert keys.count("") == (18 if heading == "value" else 0)  # fid, whose weights are not there
    text = page.evaluate(f"""document.querySelector("{MEASUREMENTS}").textContent""")
    assert "\u22121" in text and "123\u202f456" in text


def test_names_with_html_in_them_stay_text(page: Page) -> None:
    assert page.evaluate("document.title").startswith("run-a")
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert HOSTILE in page.evaluate("document.body.textContent")


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_as_wide_as_its_window(page: Page, width: int) -> None:
    page.size(width, 900)
    page.wait_for(f"innerWidth === {width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = """[...document.querySelectorAll('main *')].filter((e) => e.childElementCount === 0 && e.textContent.trim()
        && !e.closest('svg, sup, details') && parseFloat(getComputedStyle(e).fontSize) < 10).map((e) => e.outerHTML)"""
    assert page.evaluate(small) == []
    assert page.evaluate("document.querySelectorAll('#trends svg').length") > 0


def test_it_prints_without_what_paper_cannot_do(page: Page) -> None:
    page.call("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.evaluate("getComputedStyle(document.getElementById('board-filter')).display") == "none"
    assert base64.b64decode(page.call("Page.printToPDF")["data"]).startswith(b"%PDF")
