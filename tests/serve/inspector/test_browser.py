"""What people do on the inspector's pages, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from browser import NARROW, WIDE, overflow, serious
from inspected import HOSTILE_NAME, LONG_LINE, SESSION, Site
from sizes import sized

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Open = Callable[..., Page]

#: What can differ between the two looks of a page.
COLOURS_AND_SIZES = {"runOnly": ["color-contrast", "target-size", "scrollable-region-focusable"]}

#: Seconds between two looks of a page that stays up to date.
LOOK = 3

PAGES = {
    "list": "/",
    "found": "/?q=ValueError",
    "nothing found": "/?source=nowhere",
    "long": "/inspector/memory?handle=m-10ff",
    "conversations": "/inspector/conversations",
    "conversation": f"/inspector/conversation?session={SESSION}",
    "hostile conversation": f"/inspector/conversation?session={quote(HOSTILE_NAME, safe='')}",
    "savings": "/inspector/savings",
    "not found": "/inspector/nowhere",
}


def hostile_page(site: Site) -> str:
    (first, *_) = site.memory.list({"source": "<b>x</b>"})
    return f"/inspector/memory?handle={first.handle}"


def replaced_page(site: Site) -> str:
    """The page of the longest memory that a block stands for."""
    used = {use for one in site.memory.ledger.rounds() for use in one.compacted}
    longest = max(site.memory.list({"handle": sorted(used)}), key=lambda one: one.length)
    return f"/inspector/memory?handle={longest.handle}"


def test_axe_finds_nothing_serious_and_nothing_overflows(site: Site, open_page: Open) -> None:
    page = open_page(site)
    some = [PAGES[name] for name in ("found", "conversation", "conversations", "savings")]
    paths = [replaced_page(site), hostile_page(site), *sized(some, PAGES.values())]
    for path in paths:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(WIDE)
        page.goto(site.url + path)
        assert overflow(page) <= 0, path
        assert not serious(page), path
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size(NARROW)
        assert overflow(page) <= 0, path
        assert not serious(page, **sized(COLOURS_AND_SIZES, {})), path
    page.context.clear_cookies()
    page.goto(site.url)
    assert page.get_by_label("Token").is_visible()
    assert not serious(page) and overflow(page) <= 0


def test_a_token_lets_a_browser_in(site: Site, open_page: Open) -> None:
    page = open_page(site)
    assert page.url == f"{site.url}/"  # the token is gone from the address
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    page.context.clear_cookies()
    page.goto(f"{site.url}/inspector/savings?days=7")
    page.get_by_label("Token").fill("not-the-token-at-all")
    page.get_by_role("button", name="Open").click()
    assert page.get_by_role("alert").inner_text() == "That token opens nothing here."
    page.get_by_label("Token").fill(site.entrance.partition("token=")[2])
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Savings").wait_for()
    assert page.url == f"{site.url}/inspector/savings?days=7"


def test_the_list_is_searched_and_filtered(site: Site, open_page: Open) -> None:
    page = open_page(site)
    assert page.locator(".item").count() == 50
    page.get_by_role("link", name="Next →").click()
    assert "Page 2 of" in page.locator(".pager").inner_text()
    page.wait_for_load_state()
    page.get_by_label("Source").select_option("mypy")  # applies by itself
    page.wait_for_url("**/?source=mypy")
    assert page.locator(".item").count() == 1
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Words, or a handle").fill("Incompatible return value type")
    page.keyboard.press("Enter")
    page.locator(".sum", has_text="found, best first").wait_for()
    assert "error: Incompatible return value type" in page.locator(".item").first.inner_text()
    page.get_by_label("Words, or a handle").fill("m-10ff")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=m-10ff")
    assert "xxxx" in page.locator(".item").first.inner_text()
    page.goto(f"{site.url}/?after=2020-01-01&before=2020-01-02")
    assert page.get_by_text("Nothing matches.").is_visible()
    page.goto(f"{site.url}/?after=yesterday")
    assert "not a date" in page.locator("main").inner_text()


def test_an_original_stands_beside_its_block(site: Site, open_page: Open) -> None:
    page = open_page(site, replaced_page(site))
    handle = page.url.partition("handle=")[2]
    sent, original = page.locator(".sent .code").first, page.locator(".original .code")
    assert f"[clara {handle}:" in sent.inner_text()
    assert sent.bounding_box()["x"] < original.bounding_box()["x"]  # type: ignore[index]
    text = site.memory.text(handle)
    lines = original.locator(".line")
    assert lines.count() == len(text.rstrip("\n").split("\n"))
    assert [one.removesuffix("\n") for one in lines.all_text_contents()] == (
        text.rstrip("\n").split("\n")
    )
    # Each fact says where the reasoner has it, and what is said to be shown stands in the block.
    shown = original.locator("mark.shown").all_inner_texts()
    near = original.locator("mark.near").all_inner_texts()
    assert shown and near and all(fact in sent.inner_text() for fact in shown)
    rows = page.locator(".sent table tbody tr")
    assert rows.count() >= len(shown) + len(near)
    assert "sent as a block from here on" in page.locator(".uses").inner_text()
    assert "asked back with expand" in page.locator(".uses").inner_text()


def test_a_long_line_has_pages(site: Site, open_page: Open) -> None:
    page = open_page(site, "/inspector/memory?handle=m-10ff")
    seen = page.locator(".original .line").inner_text()
    assert set(seen.strip()) == {"x"} and len(seen) < 20_000
    last = -(-LONG_LINE // 16_000)
    assert f"page 1 of {last}" in page.locator("#original").inner_text()
    page.locator(".pager a[rel=next]").first.click()
    assert page.locator(".original .line").first.get_attribute("data-n") == "…"
    page.goto(f"{site.url}/inspector/memory?handle=m-10ff&page={last}")
    assert page.locator(".original .line").all_inner_texts()[-1].strip() == "the end"


def test_hostile_texts_are_only_text(site: Site, open_page: Open) -> None:
    page = open_page(site)
    hostile = hostile_page(site)
    some = [PAGES["hostile conversation"], PAGES["conversations"]]
    for path in ("/?source=%3Cb%3E", "/?source=hostile", hostile, *sized(some, PAGES.values())):
        page.goto(site.url + path)
        assert page.evaluate("window.hacked") is None
        assert page.locator("h1").count() == 1
        assert (
            page.locator("script").count() == 1 and not page.locator("main a[href^='java']").count()
        )
    page.goto(site.url + hostile)
    text = page.locator(".original .code").inner_text()
    assert "<script>window.hacked = 1</script>" in text and "{{ 7 * 7 }}" in text
    marks = page.locator(".original .mark").all_inner_texts()
    assert "ESC[31m" in marks and "U+202E" in marks and "U+FEFF U+200B U+E0041" in marks
    assert page.locator(".original .mark").first.get_attribute("title") == "a code for terminals"
    # Nothing that hides or moves other text is left, outside of marks.
    assert not [one for one in page.content() if one in "\u202e\u2066\x1b\x00\u200b\ufeff"]


def test_a_conversation_is_a_timeline(site: Site, open_page: Open) -> None:
    page = open_page(site, "/inspector/conversations")
    page.get_by_role("link", name=SESSION).click()
    rounds = page.locator(".round")
    assert rounds.count() == 4  # latest first
    failed, asked, compacted, first = (rounds.nth(number).inner_text() for number in range(4))
    assert "no answer: the reasoner <i>did not</i> answer" in failed
    assert "cache hit" in asked and "7,000 cached, 1,000 read: only what is new" in asked
    assert "8,000 of 13,000 tokens sent" in asked and "expand" in asked
    assert "12,000 → 7,000 tokens: old tool outputs as blocks" in compacted
    assert "5,000 fewer from here on" in compacted and "6,900 tokens" in compacted
    assert "partly a hit" in compacted and "the compaction changed message 3" in compacted
    assert "first" in first and "nothing of it was sent before" in first
    figures = page.locator(".figures").inner_text()
    assert "34,000" in figures and "24,000" in figures and "70.6%" in figures
    assert page.locator(".chart svg g").count() == 4 and page.locator(".chart .cut").count() == 1
    page.get_by_text("3 texts", exact=True).click()
    page.locator(".compaction li a").first.click()
    assert "/inspector/memory" in page.url


def test_savings_add_up(site: Site, open_page: Open) -> None:
    page = open_page(site, "/inspector/savings")
    (sums,) = site.memory.ledger.sums()
    shown = page.locator(".figures dd").all_inner_texts()
    assert shown[0].startswith(f"{sums.tokens_in:,}") and shown[1].startswith(
        f"{sums.tokens_sent:,}"
    )
    cells = [
        row.split("\t") for row in page.locator("table").first.locator("tbody tr").all_inner_texts()
    ]
    assert sum(int(row[2].replace(",", "")) for row in cells) == sums.tokens_in
    assert sum(int(row[5].replace(",", "")) for row in cells) == sums.prefilled
    assert page.get_by_role("img", name="Tokens of each day").locator("g").count() == 30
    page.get_by_role("link", name="7 days").click()
    page.wait_for_url("**/savings?days=7")


def test_the_list_stays_up_to_date_and_keeps_the_place(editable: Site, open_page: Open) -> None:
    for number in range(60):
        editable.memory.remember(f"text {number}", source="a")
    page = open_page(editable)
    page.clock.install()
    page.reload()
    box = page.locator(".item input").nth(25)
    box.check()
    link = page.locator(".item a.title").nth(24)
    link.focus()
    link.scroll_into_view_if_needed()
    page.evaluate("window.scrollTo(0, 900)")
    name = link.inner_text()
    before = link.bounding_box()
    editable.memory.remember("something new")
    editable.memory.remember("something newer")
    page.clock.run_for(LOOK * 1000)
    page.get_by_role("link", name="something newer").wait_for()
    assert page.locator(":focus").inner_text() == name
    after = page.locator(":focus").bounding_box()
    assert before and after and abs(before["y"] - after["y"]) <= 1
    assert page.locator(".item input:checked").count() == 1
    assert page.locator("[data-live-status]").inner_text() == "2 are new"
    page.get_by_role("button", name="Live").click()
    editable.memory.remember("while it is paused")
    page.clock.run_for(LOOK * 3000)
    assert not page.get_by_role("link", name="while it is paused").count()
    page.get_by_role("button", name="Live").click()
    page.get_by_role("link", name="while it is paused").wait_for()
    editable.memory.forget(where={"source": "a"})
    page.clock.run_for(LOOK * 1000)
    page.locator(".sum", has_text="3 memories").wait_for()
    assert page.locator(".item").count() == 3


def test_memories_are_deleted_after_they_were_counted(editable: Site, open_page: Open) -> None:
    memory = editable.memory
    kept = memory.remember("kept", source="keep")
    for number in range(4):
        memory.remember(f"text {number}", source="a")
    page = open_page(editable)
    page.get_by_label("Choose text 3").check()
    page.get_by_label("Choose text 1").check()
    page.get_by_role("button", name="Delete chosen…").click()
    assert page.get_by_role("heading", name="Delete 2 memories?").is_visible()
    page.get_by_role("link", name="Keep them").click()
    assert memory.status().memories == 5
    page.get_by_role("link", name="text 0").click()
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Delete 1").click()
    assert page.locator(".notice").inner_text() == "1 memory was deleted."
    page.get_by_label("Source").select_option("a")
    page.get_by_role("link", name="Delete all 3 that match…").click()
    memory.forget(next(memory.list({"source": "a"})).handle)  # meanwhile, somebody else
    page.get_by_role("button", name="Delete 3").click()
    assert "has changed since it was counted" in page.get_by_role("alert").inner_text()
    memory.remember("text 9", source="a")  # what comes later stays
    page.get_by_role("button", name="Delete 2").click()
    page.locator(".notice", has_text="2 memories were deleted").wait_for()
    assert [one.source for one in memory.list()] == ["keep", "a"] and memory.has(kept)


def test_it_works_without_the_script_and_by_keyboard(editable: Site, open_page: Open) -> None:
    for number in range(3):
        editable.memory.remember(f"text {number}", source=f"source {number}")
    page = open_page(editable, java_script_enabled=False)
    page.get_by_label("Source").select_option("source 1")
    page.get_by_role("button", name="Search").click()
    assert page.locator(".item").count() == 1
    page.get_by_role("link", name="text 1").click()
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Delete 1").click()
    assert editable.memory.status().memories == 2
    page = open_page(editable)
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.keyboard.press("Enter")
    seen = []
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.name || document.activeElement.innerText")
        )
    expected = ["Live", "q", "source", "session", "after", "before", "Search", "Delete chosen…"]
    assert [one for one in dict.fromkeys(seen) if one in expected] == expected, seen
    assert "handle" in seen and "text 2" in seen


@pytest.mark.parametrize("path", ["/", "/inspector/savings", "/inspector/conversations"])
def test_an_empty_memory_says_what_to_do(editable: Site, open_page: Open, path: str) -> None:
    page = open_page(editable, path)
    assert page.locator(".empty code").count() and not serious(page) and overflow(page) <= 0
