# ruff: noqa: RUF001
"""Search by words in PostgreSQL: the same hits in the same order as in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clara_mlx.store import care, fulltext, search, terms, words
from clara_mlx.store.originals import Originals
from clara_mlx.store.postgres import parts, vectors, word_search
from clara_mlx.store.postgres.store import PostgresStore
from clara_mlx.store.postgres.word_search import PostgresWordSearch
from clara_mlx.store.store import Store
from clara_mlx.store.terms import Term
from tests.support import postgres, real_outputs
from tests.support.sizes import sized

CHUNK = 200  # characters

TEXTS = {
    **{
        name.lower(): text
        for name, text in vars(real_outputs).items()
        if name.isupper() and isinstance(text, str)
    },
    "chinese": "错误：无法连接到数据库服务器，请检查网络设置。\n连接超时",
    "russian": "ошибка: не удалось подключиться к серверам базы данных\nсервер перезапущен",
    "names": "getUserName failed in tests/test_io.py::test_load\ncommit 3f2a91bc7d is bad",
    "plain": "the pod restarts again; restarting takes a minute",
}

QUESTIONS = [
    *("Which test failed, and why?", "Where is the ValueError raised?", "KeyError bolt"),
    *("os imported but unused", "what is the return type error in price.py", "restarted pods"),
    *("tests/test_io.py::test_load", "user name", "3f2a91b", "数据库", "连", "сервера", "серверам"),
    *("zzz", "what is it", "run names all", "the of in", "load port settings ValueError"),
]


def fill(store: Originals) -> None:
    for name, text in TEXTS.items():
        spans = [(at, min(len(text), at + CHUNK), None) for at in range(0, len(text), CHUNK)]
        command = {"command": f"run {name} --all"}
        store.remember(text.encode(), text, spans, handle=name, source=name[:3], metadata=command)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, PostgresStore]]:
    with postgres.new_database() as url:
        stores = Store(tmp_path_factory.mktemp("words") / "memory.db"), PostgresStore(url)
        for store in stores:
            fill(store)
        yield stores
        for store in stores:
            store.close()


@pytest.fixture
def team(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    yield store
    store.close()


def hits(store: Originals, query: str, where: Mapping[str, Any] | None = None) -> list[Any]:
    return [
        (hit.handle, hit.start, hit.matched_line, hit.matched, pytest.approx(hit.score))
        for hit in search.search(store, None, None, query, 10, where)
    ]


@pytest.mark.parametrize("query", QUESTIONS)
def test_both_find_the_same(both: tuple[Store, PostgresStore], query: str) -> None:
    file, team = both
    found = hits(file, query)
    assert hits(team, query) == found
    assert found or query == "zzz"


@pytest.mark.parametrize(
    "where", [{"source": "pyt"}, {"handle": ["ruff", "mypy"]}, {"command": "run names --all"}]
)
def test_both_find_the_same_within_a_filter(
    both: tuple[Store, PostgresStore], where: dict[str, Any]
) -> None:
    file, team = both
    for query in QUESTIONS:
        assert hits(team, query, where) == hits(file, query, where)


@given(st.lists(st.sampled_from(" ".join(TEXTS.values()).split()), min_size=1, max_size=8))
@settings(
    max_examples=sized(15, 300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
def test_both_find_the_same_for_any_words(
    both: tuple[Store, PostgresStore], asked: list[str]
) -> None:
    file, team = both
    query = " ".join(asked)
    assert hits(team, query) == hits(file, query)


def test_candidates_of_rare_words_come_first(
    both: tuple[Store, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, team = both
    monkeypatch.setattr(fulltext, "CANDIDATES", 1)
    found = fulltext.search(team, "the error in test_parse_price", 30)
    assert len({id for id, _ in found}) == len(found) > 3


# -- texts that are too long for one row -----------------------------------------------------------


def remember(store: Originals, text: str) -> str:
    return store.remember(text.encode(), text, [(0, len(text), None)])


def count(store: PostgresStore, *asked: Term) -> list[float]:
    return PostgresWordSearch(store).count([(term,) for term in asked], 100)


@pytest.mark.parametrize(
    "text",
    [
        "again " * 1_000 + "needle in hay",
        " ".join(f"w{number}" for number in range(20_000)) + " needle in hay",
        " ".join(f"{number:0900d}" for number in range(400)) + " needle in hay",
    ],
    ids=["one word often", "many words", "long words"],
)
def test_nothing_of_a_long_text_is_lost(team: PostgresStore, text: str) -> None:
    remember(team, text)
    remember(team, "hay in needle")
    (rows,) = team.read("SELECT count(*), sum(length) FROM chunk_text WHERE id = 1")
    columns = words.columns(text)
    assert rows[0] > 1
    assert rows[1] == sum(len(column.split()) for column in columns)
    found = count(team, terms.word("needle"), Term(("needle", "in", "hay")), terms.word("lost"))
    assert found == [2, 1, 0]
    assert care.verify(team).problems == []


def test_words_in_a_row_are_found_wherever_a_long_text_is_divided(team: PostgresStore) -> None:
    many = [f"w{number}" for number in range(vectors.MOST_POSITIONS + 40)]
    remember(team, " ".join(many))
    at = vectors.MOST_POSITIONS
    rows = [Term(tuple(many[start : start + 4])) for start in range(at - 30, at + 30)]
    assert count(team, *rows) == [1] * len(rows)


def test_a_word_of_any_length_is_found_whole_and_by_its_beginning(team: PostgresStore) -> None:
    one, other = "ab12" * 1_000, "ab12" * 1_000 + "c"
    remember(team, one)
    remember(team, other)
    assert count(team, terms.word(one), terms.word(other), terms.word(one[:-1])) == [1, 1, 0]
    beginnings = [terms.word(one[:size], is_beginning=True) for size in (1, 6, 3_000)]
    assert count(team, *beginnings) == [2, 2, 2]


def test_common_words_are_estimated(team: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        remember(team, f"common line {number}" + " rare" * (number == 7))
    search = PostgresWordSearch(team)
    common, rare = search.count([(terms.word("common"),), (terms.word("rare"),)], 10)
    assert common == pytest.approx(40, rel=0.2)
    assert rare == 1
    # The estimate is known now, so that nothing is counted again.
    monkeypatch.setattr(word_search._Index, "_read_counts", lambda *_: {})
    assert PostgresWordSearch(team).count([(terms.word("common"),)], 10) == [common]


def test_forgotten_words_are_gone(team: PostgresStore) -> None:
    handle = remember(team, "a secret word")
    remember(team, "another text")
    team.forget({"handle": handle})
    assert count(team, terms.word("secret"), terms.word("another")) == [0, 1]
    assert team.read("SELECT count(*) FROM chunk_text")[0][0] == 1


def test_parts_of_words_are_found_once_they_are_indexed(team: PostgresStore) -> None:
    wanted = remember(team, "the kubeconfiguration was reloaded by the gateway")
    for number in range(5):
        remember(team, f"another text of the gateway, {number}")
    assert hits(team, "econfigurat") == []
    parts.index(team)
    parts.index(team)  # again
    assert [hit[0] for hit in hits(team, "econfigurat")] == [wanted]
    assert next(hit[0] for hit in hits(team, "econfigurat gateway")) == wanted
    assert hits(team, "econfiguratx") == hits(team, "eco") == []
    assert team.damage(quick=False) == []
    parts.drop(team)
    assert hits(team, "econfigurat") == []
