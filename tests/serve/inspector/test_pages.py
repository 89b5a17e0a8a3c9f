"""What the pages show, without a browser: texts made visible, originals in pages, facts' fates."""

from __future__ import annotations

import html
import json
import re
import statistics
import time
from pathlib import Path

import httpx2
import pytest
from gateway import Upstream, gateway
from hostile_texts import HOSTILE, characters
from hypothesis import given
from hypothesis import strategies as st
from inspected import SESSION, TOKEN, Site, caching, conversation, site_of, work
from real_outputs import PYTEST

from clara_mlx.context import Budget
from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.charts import WIDTH, Amount, bar, draw, round_up
from clara_mlx.serve.inspector.fates import follow, tally
from clara_mlx.serve.inspector.listing import Asked
from clara_mlx.serve.inspector.original import PAGE_CHARACTERS, lines_of, page_count, page_span
from clara_mlx.serve.inspector.visible import plain, visible


@given(characters)
def test_any_text_is_seen_and_does_nothing(text: str) -> None:
    shown = str(visible(text))
    tags = re.sub(r'<span class="mark" title="[^"<>]*">([^<>]*)</span>', r"\1", shown)
    assert "<" not in tags and ">" not in tags
    hidden = "\x00\x1b\x07\x9b\u202e\u2066\u200b\ufeff\r\ud800"
    assert not set(hidden) & set(shown) and not set(hidden) & set(plain(text))
    plainly = "".join(one for one in text if one.isalnum())
    assert [one for one in html.unescape(tags) if one in set(plainly)] or not plainly


@pytest.mark.parametrize("text", [*HOSTILE.values(), PYTEST, "a\tb\n  c"])
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    tags = re.sub(r'<span class="mark".*?</span>', "", str(visible(text)))
    kept = html.unescape(tags)
    assert [one for one in text if one in "\t\n " or one.isalnum()][:50] == (
        [one for one in kept if one in "\t\n " or one.isalnum()][:50]
    )


def test_many_marks_in_a_row_are_counted() -> None:
    assert str(visible("a" + "\x00" * 5_000 + "b")).endswith("and 4,992 more</span>b")
    assert "a code for terminals" in visible("\x1b[1;31mx")
    assert "right-to-left override (U+202E)" in visible("\u202e")


@given(st.lists(st.sampled_from(range(7)), max_size=12))
def test_the_pages_of_an_original_are_the_original(parts: list[int]) -> None:
    lines = [
        "x" * 700 + "\n",
        "\n",
        "y" * 40_000,
        "FAILED a.py::b\n",
        "é" * 3000,
        "\r\n",
        "\n" * 99,
    ]
    text = "".join(lines[part] for part in parts)
    written: str | None = None
    for number in range(1, page_count(text) + 1):
        start, end = page_span(text, number)
        assert end - start <= PAGE_CHARACTERS + 2_000
        for line in lines_of(text, start, end, []):
            written = "" if written is None else written + "\n" * (not line.begun_before)
            written += "".join(piece.text for piece in line.pieces)
            assert line.number == written.count("\n") + 1
    assert (written or "") == text.removesuffix("\n")


def test_each_fact_has_its_fate() -> None:
    text = PYTEST + "\n" * 20 + "src/late.py:99: error\n"
    block = "[clara m-1: output]\noutcome: 1 failed, 3 passed, 1 skipped in 0.62s"
    near = len(PYTEST)
    facts = follow(text, 0, len(text), block, near)
    fates = {fact.text: fact.fate for fact in facts}
    assert fates["0.62s"] == "shown" and fates["src/late.py:99"] == "behind"
    assert fates["tests/test_price.py:7"] == "near"
    assert all(text[fact.start : fact.end] == fact.text for fact in facts if fact.fate == "behind")
    assert set(tally(follow(text, 0, len(text), None, 0))) == {"shown"}
    # A number that is only a part of another one is not shown.
    (only,) = (f for f in follow("1 failed in 0.10s\n", 0, 20, "11 passed", 0) if f.text == "1")
    assert only.fate == "behind"


def test_addresses_say_what_is_asked() -> None:
    asked = Asked.read({"q": " a&b ", "source": "x/y", "page": "3", "junk": "z"})
    assert asked.words == "a&b" and asked.page == 3
    assert asked.address(page=4) == "/?q=a%26b&source=x%2Fy&page=4"
    assert Asked().address() == "/" and Asked.read({"page": "-1"}).page == 1
    where = Asked(after="2026-11-29", before="2026-11-29").where
    assert where["before"] - where["after"] == 86_400


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))))
def test_a_chart_stays_in_its_frame(numbers: list[tuple[int, int, int]]) -> None:
    amounts = [Amount(*one) for one in numbers]
    chart = draw(amounts, [""] * len(amounts), ("", ""), [True] * len(amounts))
    for column in chart.columns:
        for part in column.parts:
            assert part.x >= -0.02 and part.x + part.width <= WIDTH + 0.02 and part.y >= -0.02
    for amount in amounts:
        assert sum(part.width for part in bar(amount, chart.top)) <= WIDTH + 0.02
    assert round_up(0) == 1 and round_up(41_000) == 50_000 and round_up(80_000) == 80_000


def test_a_page_that_is_known_is_not_sent_again(site: Site) -> None:
    with httpx2.Client(base_url=site.url, trust_env=False, headers={"x-api-key": TOKEN}) as client:
        first = client.get("/")
        again = client.get("/", headers={"if-none-match": first.headers["etag"]})
        assert first.status_code == 200 and again.status_code == 304 and not again.content


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/inspector/memory?handle=m-000000000000", 404),
        ("/inspector/memory", 404),
        ("/inspector/original?handle=..%2F..%2Fetc", 404),
        ("/inspector/conversation?session=nobody", 404),
        ("/inspector/conversation?before=1", 404),
        ("/?before=2026-13-01", 400),
        ("/?after=9999999999-01-01", 400),
        ("/?source=%00&session=%ED%A0%80&page=99999999999999", 200),
        ("/?q=" + "x" * 3000, 200),
        ("/?q=%22%20OR%20NEAR(%20*", 200),
        ("/inspector/savings?days=-7", 200),
        ("/inspector/conversations?page=999999", 200),
    ],
)
def test_odd_addresses_are_answered_with_a_page(site: Site, path: str, status: int) -> None:
    with httpx2.Client(base_url=site.url, trust_env=False, headers={"x-api-key": TOKEN}) as client:
        answer = client.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("text/") and "</html>" in answer.text
        assert str(site.memory.path.parent) not in answer.text


@pytest.mark.parametrize("name", ["entry.py", "..%2Fentry.py", "../entry.py", "", "x" * 999])
def test_only_the_files_of_the_pages_are_given_away(site: Site, name: str) -> None:
    with httpx2.Client(base_url=site.url, trust_env=False) as client:
        answer = client.get(f"/inspector/static/{name}")
        assert answer.status_code in (401, 404) and "import" not in answer.text


def test_the_pages_add_up_to_what_the_gateway_counted(tmp_path: Path) -> None:
    """What a page says, the metrics, and what the reasoner itself said of each request agree."""
    upstream = Upstream(caching("done"))
    budget = Budget(window=6_000, reserve=500)
    with upstream.running() as url, gateway(tmp_path, url, budget=budget) as gate:
        requests = work(gate, conversation(12), SESSION)
        requests += work(gate, conversation(3, first=40), "another")
        metrics = gate.http.get("/metrics").text
        pages = {
            path: gate.http.get(path).text
            for path in ("/inspector/savings", f"/inspector/conversation?session={SESSION}")
        }
        (sums,) = gate.memory.ledger.sums(where={"session": SESSION})
        rounds = gate.memory.ledger.rounds({"session": SESSION})
    counted = dict(re.findall(r'clara_prompt_tokens_total\{what="(\w+)"\} (\d+)', metrics))
    said = sum(len(json.dumps(body["messages"])) // 4 for body in upstream.requests)
    assert said == int(counted["sent"])
    without, sent, read, compactions, _ = re.findall(
        r"<dd>([\d,]+)<small>", pages["/inspector/savings"]
    )
    assert number(without) == int(counted["in"]) and number(sent) == said
    assert number(read) == said - int(counted["cached_reported"])
    assert f"tokens in {requests} requests" in pages["/inspector/savings"]
    # One of them was compacted, and its timeline says why, for what, and what that cost.
    page = html.unescape(pages[f"/inspector/conversation?session={SESSION}"])
    compacted = [one for one in rounds if one.before is not None]
    assert compacted and number(compactions) == sums.compactions == len(compacted)
    for one in compacted:
        assert f"{one.before:,} → {one.after:,} tokens: {one.reason}" in page
        assert f"{one.lost:,} tokens that the server had were read again" in page or not one.lost
        assert one.why in page and set(one.compacted) <= set(re.findall(r"handle=(m-\w+)", page))
    assert page.count('class="round ') + page.count('class="round"') == len(rounds)


@pytest.mark.alone
def test_a_page_of_ten_thousand_memories_comes_at_once(tmp_path: Path) -> None:
    """Under 200 ms each, the whole way; the median of several, as other programs run, too."""
    with Memory.open(tmp_path / "large.db", compress=False) as memory:
        for start in range(0, 10_000, 1_000):
            memory.remember_many(
                [
                    {
                        "text": f"run {number}\n{PYTEST}",
                        "source": f"tool {number % 40}",
                        "session": f"session {number % 300}",
                        "metadata": {"command": f"pytest -k part{number}"},
                        "handle": f"m-{number:012x}",
                    }
                    for number in range(start, start + 1_000)
                ],
                synced=False,
            )
        paths = ["/", "/?page=200", "/?source=tool+7", "/?q=part777", "/inspector/conversations"]
        paths += ["/inspector/memory?handle=m-000000000777", "/inspector/savings"]
        with (
            site_of(memory, edit=True) as site,
            httpx2.Client(
                base_url=site.url, trust_env=False, headers={"x-api-key": TOKEN}
            ) as client,
        ):
            for path in paths:
                seconds = []
                for _ in range(6):
                    begun = time.perf_counter()
                    answer = client.get(path)
                    seconds.append(time.perf_counter() - begun)
                    assert answer.status_code == 200
                assert statistics.median(seconds) < 0.2, (path, seconds)


def number(written: str) -> int:
    return int(written.replace(",", ""))
