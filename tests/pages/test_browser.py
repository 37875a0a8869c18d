"""The report in a real browser, from a file and without any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DRAWN = "document.querySelectorAll('[data-drawn] svg').length === 4"
OVERFLOWS = """
[...document.querySelectorAll('body *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1
               && !e.closest('.scroll') && e.offsetParent !== null && !e.matches('.skip'))
  .map(e => e.tagName + '.' + e.className)
"""


@pytest.fixture(scope="module")
def address(page: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page, encoding="utf-8")
    return file.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_quiet_offline_and_within_the_width(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(address)
    tab.wait_for_function(DRAWN, timeout=30_000)
    assert said == []
    assert asked == [address]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(OVERFLOWS) == []
    charts = "[...document.querySelectorAll('.chart')].map(e => e.scrollWidth - e.clientWidth)"
    assert tab.evaluate(charts) == [0, 0, 0, 0]
    for details in tab.query_selector_all("details"):
        details.evaluate("e => e.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    paper = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 25, 29)"}[scheme]
    # The charts follow: their text is drawn in the page's ink.
    ink = "getComputedStyle(document.querySelector('.chart .role-legend-label text')).fill"
    assert tab.evaluate(ink) == {"light": "rgb(28, 33, 38)", "dark": "rgb(232, 234, 237)"}[scheme]
    context.close()


def test_charts_follow_a_change_of_width(browser: Any, address: str) -> None:
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.goto(address)
    tab.wait_for_function(DRAWN)
    tab.set_viewport_size({"width": 420, "height": 900})
    narrow = "[...document.querySelectorAll('[data-drawn]')].every(e => +e.dataset.drawn < 420)"
    tab.wait_for_function(narrow, timeout=20_000)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 420
    tab.close()


def test_keyboard_reaches_links_tables_and_details(browser: Any, address: str) -> None:
    tab = browser.new_page(viewport={"width": 800, "height": 900})
    tab.goto(address)
    reached = set()
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.add(
            tab.evaluate("document.activeElement.tagName + document.activeElement.className")
        )
    assert "Askip" in reached
    assert "SUMMARY" in reached
    assert "DIVscroll chart" in reached
    tab.close()


def test_paper_is_white_even_for_those_who_read_in_the_dark(browser: Any, address: str) -> None:
    context = browser.new_context(color_scheme="dark")
    tab = context.new_page()
    tab.goto(address)
    tab.emulate_media(media="print")
    paper = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    context.close()


def test_without_scripts_the_charts_are_there(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 400, "height": 900})
    tab = context.new_page()
    tab.goto(address)
    boxes = [chart.bounding_box() for chart in tab.query_selector_all(".chart > svg")]
    assert len(boxes) == 4
    assert all(box["width"] > 300 and box["x"] + box["width"] <= 401 for box in boxes)
    context.close()
