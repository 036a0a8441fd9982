"""The report in a browser: accessible, readable on a phone, and nothing of a page runs or loads.

Playwright drives the Chromium of the system; axe-core, which comes with `axe-playwright-python`,
looks for what people with a screen reader, a keyboard or weak eyes cannot use.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from hand_made_lake import HOSTILE, HOSTILE_TEXT, HOSTILE_TITLE, HOSTILE_URL, make_full
from playwright.sync_api import Browser, Page, sync_playwright

from curation.engine.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
PHONE, DESK = (360, 740), (1280, 900)  # CSS pixels

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is missing; Debian: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        # the sandbox of Chromium does not start as root; the page is ours
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a lake that is hostile wherever a page could put something into it."""
    folder = tmp_path_factory.mktemp("browser")
    lake, config = make_full(folder)
    write_report(lake, folder / "report.html", config)
    return folder / "report.html"


def test_nothing_of_a_page_runs_or_loads(browser: Browser, report: Path, tmp_path: Path) -> None:
    found = happened(browser, report)
    assert found == {"requests": [report.as_uri()], "dialogs": [], "complaints": []}
    unescaped = tmp_path / "unescaped.html"
    unescaped.write_text(f"<p>{HOSTILE_URL}{HOSTILE_TITLE}{HOSTILE_TEXT}</p>")
    found = happened(browser, unescaped)
    assert len(found["dialogs"]) >= 2, "the same text must be able to run where it is not escaped"
    assert len(found["requests"]) >= 2


def test_hostile_text_is_shown_as_it_is(browser: Browser, report: Path) -> None:
    with opened(browser, report, DESK, "light") as page:
        samples = page.locator("#samples").inner_text()
        assert HOSTILE_TITLE in samples
        assert f"A{HOSTILE}{HOSTILE_TEXT.removeprefix('A')}" in samples  # cut, put and the rest


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_and_no_page_scrolls_sideways(
    browser: Browser, report: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, report, size, scheme) as page:
        found = Axe().run(page, options={"resultTypes": ["violations"]})
        assert [each["id"] for each in found.response["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_dark_and_light_follow_the_system(browser: Browser, report: Path) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        with opened(browser, report, DESK, scheme) as page:
            colors[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colors == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}


# ---- the browser -------------------------------------------------------------------------------


@contextmanager
def opened(browser: Browser, path: Path, size: tuple[int, int], scheme: Any) -> Iterator[Page]:
    """A page with everything unfolded."""
    width, height = size
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    ) as context:
        page = context.new_page()
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        yield page


def happened(browser: Browser, path: Path) -> dict[str, list[str]]:
    """Return what a page asked for, the dialogs that it opened and what the browser says of it."""
    found: dict[str, list[str]] = {"requests": [], "dialogs": [], "complaints": []}

    def dismiss(dialog: Any) -> None:
        found["dialogs"].append(dialog.message)
        dialog.dismiss()

    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.on("request", lambda request: found["requests"].append(request.url))
        page.on("dialog", dismiss)
        page.on("console", lambda message: found["complaints"].append(message.text))
        page.on("pageerror", lambda error: found["complaints"].append(str(error)))
        page.goto(path.as_uri(), wait_until="load")
        page.wait_for_load_state("networkidle")
    return found
