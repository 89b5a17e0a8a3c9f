"""Text search by rare words first: beside a search without limits, on source files."""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from time import thread_time

import pytest

from clara_mlx.store import asked, fulltext
from clara_mlx.store.store import Store

CHUNK = 700  # characters


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Chunks of the standard library's source."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    pieces = []
    for file in sorted(folder.glob("[a-p]*.py")):
        text = file.read_text()
        pieces += [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)]
    return pieces[:3000]


@pytest.fixture(scope="module")
def store(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("text") / "memory.db")
    for number in range(0, len(texts), 10):
        some = texts[number : number + 10]
        ends = [sum(map(len, some[: i + 1])) for i in range(len(some))]
        spans = [(end - len(text), end, None) for text, end in zip(some, ends, strict=True)]
        whole = "".join(some)
        opened.remember(whole.encode(), whole, spans, source=f"s{number // 10 % 10}")
    yield opened
    opened.close()


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    """Limits as low as if there were many more chunks; bench/words.py has those."""
    monkeypatch.setattr(fulltext, "CANDIDATES", len(texts) // 6)
    monkeypatch.setattr(fulltext, "POSTINGS", len(texts) * 5 // 2)


def questions(texts: list[str], count: int) -> Iterator[str]:
    """Words in a row, a few among filler, single names with filler."""
    rng = random.Random(5)
    filler = ["how", "do", "find", "where", "the", "which", "is", "in", "of", "to", "a", "when"]
    while count:
        found = re.findall(r"[A-Za-z_][\w.]*", rng.choice(texts))
        if len(found) < 30:
            continue
        count -= 1
        start = rng.randrange(len(found) - 8)
        yield " ".join(
            (
                found[start : start + 8],
                rng.sample(found, 3) + rng.sample(filler, 5),
                [rng.choice(found), *rng.sample(filler, 3)],
            )[count % 3]
        )


def test_the_best_are_those_of_a_search_without_limits(
    store: Store, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*questions(texts, 90)]
    expected = [{id for id, _ in fulltext.search(store, query, 10)} for query in asked]
    monkeypatch.setattr(fulltext, "CANDIDATES", len(texts) // 6)
    monkeypatch.setattr(fulltext, "POSTINGS", len(texts) * 5 // 2)
    found = [{id for id, _ in fulltext.search(store, query, 10)} for query in asked]
    shared = sum(len(some & others) for some, others in zip(found, expected, strict=True))
    assert shared / sum(map(len, expected)) > 0.9


def test_nothing_is_found_without_words(store: Store) -> None:
    assert fulltext.search(store, "", 20) == fulltext.search(store, "?!", 20) == []


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("query", ["isocalendar the", "the self return", "zzz the", "the", "a_b"])
@pytest.mark.parametrize("source", [None, "s3"])
def test_k_come_back_whenever_k_exist(store: Store, query: str, source: str | None) -> None:
    where = {"source": source} if source else None
    rows = store.read(
        "SELECT count(*) FROM chunk_text WHERE chunk_text MATCH ? AND rowid IN "
        "(SELECT ch.id FROM chunks ch JOIN memories m ON m.content_id = ch.content_id "
        "WHERE m.source = ? OR ? IS NULL)",
        (asked.query(query), source, source),
    )
    for k in (1, 10, 40, 5000):
        found = fulltext.search(store, query, k, where)
        assert min(k, rows[0][0]) <= len(found) <= k
        assert len({id for id, _ in found}) == len(found)
        assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)


@pytest.mark.usefixtures("small_limits")
def test_the_chunk_with_the_rare_word_is_first(store: Store, texts: list[str]) -> None:
    (id,) = [i for i, text in enumerate(texts, 1) if "_parse_optional(self, arg" in text]
    found = fulltext.search(store, "where is the def _parse_optional self arg string", 10)
    assert id in [id for id, _ in found[:3]]


@pytest.mark.alone
def test_a_query_of_a_hundred_thousand_words_takes_no_longer_than_one_of_some_hundred(
    store: Store,
) -> None:
    for query in (" ".join(f"w{i}" for i in range(100_000)), "a." * 300_000, "aB" * 300_000):
        assert len(asked.read(query).terms()) <= asked.MOST_TERMS
        started = thread_time()
        fulltext.search(store, query, 5)
        assert thread_time() - started < 2
