"""The inspector on a real port, and a real browser before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from browser import WIDE, chromium
from inspected import Site, inspected, site_of

from clara_mlx.memory import Memory

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An inspector that reads only, of a memory that no test changes."""
    with (
        inspected(tmp_path_factory.mktemp("inspected") / "agent.db") as memory,
        site_of(memory, edit=False) as made,
    ):
        yield made


@pytest.fixture
def editable(memory: Memory) -> Iterator[Site]:
    """An inspector in which memories can be deleted, of an empty memory."""
    with site_of(memory, edit=True) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, started once for the file that drives it.

    Not for the session: while it runs, so does Playwright's event loop, beside which other tests
    could not run one of their own.
    """
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages in a context of their own; what goes wrong on them fails the test."""
    wrong: list[str] = []
    contexts = []

    def open_one(site: Site, path: str = "/", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        page.goto(site.entrance)
        if path != "/":
            page.goto(site.url + path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    # Where a test looks at an error on purpose, the browser says that a resource did not load.
    assert not [text for text in wrong if "Failed to load resource" not in text]
