"""The Chromium of this machine, driven by Playwright, which downloads none of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: Programs that are Chromium, the free one first.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ON_A_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")

#: The two sizes that pages are looked at in, in pixels.
WIDE = {"width": 1280, "height": 860}
NARROW = {"width": 400, "height": 800}


def find_chromium() -> str | None:
    """The path of Chromium, or of what CLARA_MLX_CHROMIUM names; None if there is none."""
    named = os.environ.get("CLARA_MLX_CHROMIUM")
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    return named or found or (str(_ON_A_MAC) if _ON_A_MAC.exists() else None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium; the test is skipped, with the reason, where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium here; scripts/test says how to get one")
    playwright_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed; the extra 'test' brings it"
    )
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def serious(page: Page, **options: Any) -> list[str]:
    """What axe finds wrong on a page that is serious or worse, a line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=options or None).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:5]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def overflow(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    width: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return width
