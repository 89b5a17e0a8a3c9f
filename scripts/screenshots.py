"""The pictures of docs/INSPECTOR.md, made from real outputs that went through a real gateway.

python scripts/screenshots.py                 # writes to docs/pictures
python scripts/screenshots.py FOLDER --all    # all pages, in both sizes and both schemes

The reasoner behind the gateway answers "done" to everything; it says how much of each prompt it had
from before, as servers with a cache do. Needs a Chromium, see scripts/test.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests/support")]

from browser import NARROW, WIDE, find_chromium  # noqa: E402
from gateway import Gateway, Upstream, gateway  # noqa: E402
from inspected import caching, conversation, work  # noqa: E402
from playwright.sync_api import ViewportSize, sync_playwright  # noqa: E402

from clara_mlx.context import Budget  # noqa: E402

Scheme = Literal["light", "dark"]

SESSION = "3f2b7c1e-8d4a-4b6e-9d0f-5a1c2e3d4f60"


def main(folder: Path) -> None:
    """Make the pictures."""
    program = find_chromium()
    if program is None:
        sys.exit("there is no Chromium here: install it, or set CLARA_MLX_CHROMIUM to its path")
    folder.mkdir(parents=True, exist_ok=True)
    upstream = Upstream(caching("done"))
    budget = Budget(window=9_000, reserve=500)
    with (
        tempfile.TemporaryDirectory() as scratch,
        upstream.running() as url,
        gateway(Path(scratch), url, budget=budget) as gate,
        sync_playwright() as playwright,
    ):
        work(gate, conversation(9, first=60), "0b7a5c3e-2f1d-4e6a-8c9b-7d6e5f4a3b2c")
        work(gate, conversation(20), SESSION, **{"user-agent": "claude-cli/2.1 (external, cli)"})
        browser = playwright.chromium.launch(executable_path=program)
        for name, path, scheme, size in pictures(gate):
            context = browser.new_context(viewport=size, color_scheme=scheme)
            page = context.new_page()
            page.goto(gate.url + path)
            target = folder / name
            page.screenshot(path=target)
            print(f"{target}: {target.stat().st_size:,} bytes")
            context.close()
        browser.close()


def pictures(gate: Gateway) -> Iterator[tuple[str, str, Scheme, ViewportSize]]:
    """The name of each picture, the page's address, and how it is looked at."""
    conversation_path = f"/inspector/conversation?session={SESSION}"
    yield "memory.png", memory_path(gate), "light", WIDE
    yield "conversation.png", conversation_path, "dark", WIDE
    if "--all" in sys.argv:  # to look at, before a change is committed
        paths = {
            "list": "/",
            "memory": memory_path(gate),
            "conversations": "/inspector/conversations",
            "conversation": conversation_path,
            "savings": "/inspector/savings",
        }
        schemes: tuple[Scheme, ...] = ("light", "dark")
        for name, path in paths.items():
            for scheme in schemes:
                for size in (WIDE, NARROW):
                    yield f"{name}-{scheme}-{size['width']}.png", path, scheme, size


def memory_path(gate: Gateway) -> str:
    """The page of the longest memory that a block stands for."""
    compacted = {h for one in gate.memory.ledger.rounds(most=500) for h in one.compacted}
    known = [one for one in gate.memory.list({"source": "bash"}) if one.handle in compacted]
    longest = max(known, key=lambda one: one.length)
    return f"/inspector/memory?handle={longest.handle}"


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if one != "--all"]
    main(Path(given[0]) if given else ROOT / "docs" / "pictures")
