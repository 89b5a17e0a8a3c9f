"""The page of a report in a real Chromium: on a phone and a screen, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from browser import NARROW, WIDE, chromium, overflow, serious

if TYPE_CHECKING:
    from playwright.sync_api import Page


def look_at_both(file: Path) -> None:
    """Nothing is too wide or hard to read in either, and the page loads nothing else."""
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.set_viewport_size(WIDE)
        page.emulate_media(color_scheme="light")
        page.goto(file.as_uri())
        papers = [_look_at(page)]
        page.set_viewport_size(NARROW)
        page.emulate_media(color_scheme="dark")
        papers.append(_look_at(page))
        assert papers[0] != papers[1]
        assert not serious(page, runOnly=["wcag2a", "wcag2aa"])
    assert asked == [file.as_uri()]


def _look_at(page: Page) -> str:
    """The colour of the paper; nothing on it may be too wide, and plots have the text's ink."""
    assert overflow(page) <= 0
    paper, ink, of_plot = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
        " getComputedStyle(document.querySelector('svg text')).fill]"
    )
    assert ink == of_plot != paper
    return str(paper)
