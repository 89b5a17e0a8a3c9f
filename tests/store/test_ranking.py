"""What ranks: lines with the question's words, the command that printed them, no small words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clara_mlx.store import descriptions, fulltext, search
from clara_mlx.store.asked import read
from clara_mlx.store.calibration import Calibration
from clara_mlx.store.latent_index import LatentIndex
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.ranking import Ranker, rarity
from clara_mlx.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "m.db")


def remember(store: Store, text: str, size: int = 0, **about: Any) -> str:
    step = size or len(text)
    spans = [(i, min(len(text), i + step), None) for i in range(0, len(text), step)]
    return store.remember(text.encode(), text, spans, **about)


def handles(store: Store, query: str, k: int = 5) -> list[str]:
    return [hit.handle for hit in search.search(store, None, None, query, k, None)]


def test_words_that_only_ask_do_not_rank(store: Store) -> None:
    remember(store, "which who what how where: a page about questions, and how they are asked")
    wanted = remember(store, "12 passed, 1 failed\nthe slowest was test_ledger")
    for filler in range(20):
        remember(store, f"module {filler} is built and passed on, nothing failed here")
    assert handles(store, "Which of the tests was the slowest, and how?")[0] == wanted


def test_an_exact_word_ranks_above_its_forms_and_those_above_a_part(store: Store) -> None:
    part = remember(store, "setRestartPolicy of the pod")
    form = remember(store, "the pod restarts again")
    exact = remember(store, "the pod restart again")
    assert handles(store, "restart") == [exact, form, part]


def test_one_line_with_all_words_ranks_above_lines_with_one_each(store: Store) -> None:
    words = ["orders", "timeout", "gateway"]
    apart = remember(store, "\n".join(f"{word} was seen in a line of its own" for word in words))
    together = remember(
        store, "nothing\nthe orders gateway had a timeout\nnothing else at all here"
    )
    assert handles(store, "orders gateway timeout") == [together, apart]


def test_words_that_follow_one_another_rank_above_the_same_apart(store: Store) -> None:
    apart = remember(store, "leak of a thing; the memory was full, definitely")
    row = remember(store, "a thing was full; the memory leak, definitely")
    assert handles(store, "memory leak") == [row, apart]


@pytest.mark.parametrize(
    "query", ["kubectl", "what did kubectl get say?", "kubectl pods", "outputs of kubernetes"]
)
def test_a_command_finds_its_output(store: Store, query: str) -> None:
    for number in range(9):
        remember(store, f"row {number} of pods and other outputs", metadata={"command": "ls -l"})
    wanted = remember(
        store, "web-1 Running 4", source="kubernetes", metadata={"command": "kubectl get pods -A"}
    )
    assert handles(store, query)[0] == wanted


def test_the_command_of_the_latest_memory_that_matches_counts(store: Store) -> None:
    text = "the same output again"
    first = remember(store, text, session="a", metadata={"command": "make lint"})
    second = remember(store, text, session="b", metadata={"command": "npm test"})
    for query, session, expected in (
        ("lint", "a", [first]),
        ("lint", "b", []),
        ("npm", "b", [second]),
    ):
        found = search.search(store, None, None, query, 5, {"session": session})
        assert [hit.handle for hit in found] == expected
    store.forget({"session": "a"})
    assert handles(store, "lint") == []


def test_a_description_is_bounded_and_may_be_anything(store: Store) -> None:
    handle = remember(
        store, "x", metadata={"a": "y" * 50_000, "b": 7, "c": ["z"], "d": "ÜBER 日本"}
    )
    assert handles(store, "y" * 50_000) == []
    other = remember(store, "x2", metadata={"d": "ÜBER 日本"})
    assert handles(store, "über") == handles(store, "日本") == [other]
    assert len(descriptions.describe(None, {"a": "y" * 50_000})) < 2_000
    assert store.has(handle)


def test_the_words_of_a_forgotten_description_leave_the_file(store: Store) -> None:
    text = "content that stays, as another memory has it"
    gone = remember(store, text, metadata={"command": "curl swordfish.example"})
    stays = remember(store, text, metadata={"command": "curl elsewhere.example"})
    store.forget({"handle": gone})
    assert handles(store, "swordfish") == [] and handles(store, "elsewhere") == [stays]
    store.close()
    files = [*store.path.parent.iterdir()]
    assert not any(b"swordfish" in file.read_bytes() for file in files if file.is_file())


def test_a_hit_says_which_line_fits(store: Store) -> None:
    text = (
        "".join(f"line {i} of the log\n" for i in range(1, 200)) + "disk \x1b[31mquota\x1b[0m hit\n"
    )
    remember(store, text, 500)
    (hit, *_) = search.search(store, None, None, "Which quota was hit?", 3, None)
    assert hit.matched_line == 200 and hit.matched == "disk quota hit"
    assert hit.text in text and hit.line <= 200 <= hit.line + hit.text.count("\n")
    assert 0.9 < hit.score < 1 and hit.share == hit.score


def test_the_line_within_json_is_shown_and_the_stored_one_counted(store: Store) -> None:
    remember(store, '{"ok": true}\n{"code": 1, "output": "one\\ntwo quotas\\nthree"}\n')
    (hit,) = search.search(store, None, None, "quotas", 3, None)
    assert (hit.matched_line, hit.matched) == (2, "two quotas")


def test_scores_are_shares_of_the_query(store: Store) -> None:
    for number in range(30):
        remember(store, f"filler {number}")
    remember(store, "alpha beta gamma delta")
    shares = [
        search.search(store, None, None, query, 1, None)[0].score
        for query in ("alpha beta gamma delta", "alpha beta zzz1 zzz2", "alpha zzz1 zzz2 zzz3")
    ]
    assert 0.9 < shares[0] < 1 and 0.3 < shares[1] < 0.7 and 0.1 < shares[2] < 0.35


def test_a_rarity_is_positive_and_falls() -> None:
    values = [rarity(count, 1000) for count in (1, 2, 10, 500, 1000, 2000)]
    assert values == sorted(values, reverse=True) and values[-1] > 0
    assert Ranker(read("?"), [], []).fit("anything").score == 0


# -- both searches ---------------------------------------------------------------------------------


@pytest.fixture
def fused(store: Store) -> tuple[LatentIndex, list[int], np.ndarray[Any, Any]]:
    """Twenty texts, of which the first fits the query by its words, the second by its latents."""
    for number in range(20):
        remember(store, "the ledger closed early" if number == 0 else f"text number {number}")
    table = LatentTable.open(store, "a model", 2, 64, "fp16")
    rng = np.random.default_rng(3)
    latents = rng.standard_normal((20, 2, 64)).astype(np.float32)
    query = rng.standard_normal((2, 64)).astype(np.float32)
    latents[1] = 0.6 * query + 0.8 * latents[1]
    ids = [row[0] for row in store.read("SELECT id FROM chunks ORDER BY id")]
    table.put(ids, latents, [])
    return LatentIndex(table), ids, query


@pytest.mark.parametrize(
    ("query", "usual", "first"),
    [
        ("ledger closed", 0.05, "words"),  # all words are found
        ("ledger closed", 0.9, "words"),  # and latents say nothing
        ("ledger and ten unheard words: a1 b2 c3 d4 e5 f6 g7 h8 i9", 0.05, "latents"),
        ("unheard words", 0.05, "latents"),
        ("unheard words", 0.9, "latents"),  # there is nothing else
    ],
)
def test_each_search_leads_where_it_knows_more(
    store: Store,
    fused: tuple[LatentIndex, list[int], np.ndarray[Any, Any]],
    query: str,
    usual: float,
    first: str,
) -> None:
    index, ids, encoded = fused
    hits = search.search(
        store, index, encoded, query, 5, None, calibration=Calibration(usual, 0.05)
    )
    assert hits[0].chunk_id == ids[0 if first == "words" else 1]
    assert len(hits) == 5 and all(0 <= hit.score < 1 for hit in hits)
    if first == "words":
        text = fulltext.search(store, query, 1)[0][1]
        assert hits[0].score >= text
