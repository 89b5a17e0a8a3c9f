"""Baselines read exactly as many positions as the latents take, and the right lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sizes import sized

from clara_mlx import Clara
from clara_mlx.evaluate.contexts import CONTEXTS, Contexts

TEXT = """collected 12 items
tests/test_io.py ....
FAILED tests/test_parser.py::test_empty - ValueError: no tokens
3 passed in 0.12s"""


@pytest.fixture(scope="module")
def contexts(clara: Callable[..., Clara]) -> Contexts:
    return Contexts(clara("c16", "e2e").tokenizer)


def test_head_and_tail_fill_the_budget(clara: Callable[..., Clara], contexts: Contexts) -> None:
    ids = clara("c16", "e2e").tokenizer.encode(TEXT)
    assert len(ids) > 20
    assert contexts.ids("text", TEXT, "?", 5) == ids
    assert contexts.ids("head", TEXT, "?", 5) == ids[:5]
    assert contexts.ids("tail", TEXT, "?", 5) == ids[-5:]
    assert contexts.ids("nothing", TEXT, "?", 5) == []
    for way in ("head", "tail", "bm25"):
        assert contexts.ids(way, TEXT, "?", 1000) == ids


def test_the_best_line_comes_first(clara: Callable[..., Clara], contexts: Contexts) -> None:
    tokenizer = clara("c16", "e2e").tokenizer
    line = TEXT.split("\n")[2]
    size = len(tokenizer.encode(line))
    question = "Which exception did test_empty raise?"
    assert contexts.ids("bm25", TEXT, question, size) == tokenizer.encode(line)
    # A line that does not fit is cut, and the budget is used up to the last token that fits.
    cut = contexts.ids("bm25", TEXT, question, size - 3)
    assert cut == tokenizer.encode(line)[: size - 3]
    # More room: the next best ("test" of tests/test_io.py) comes before it, as in the text.
    both = "\n".join(TEXT.split("\n")[1:3])
    room = len(tokenizer.encode(both))
    assert contexts.ids("bm25", TEXT, question, room) == tokenizer.encode(both)


def test_without_a_match_lines_come_in_order(
    clara: Callable[..., Clara], contexts: Contexts
) -> None:
    tokenizer = clara("c16", "e2e").tokenizer
    first = tokenizer.encode(TEXT.split("\n")[0])
    for question in ("zzz?", "???", ""):
        assert contexts.ids("bm25", TEXT, question, len(first)) == first


@settings(max_examples=sized(60, 600), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=st.text(st.sampled_from("ab_/.\n \u00e9\ud800"), max_size=80),
    question=st.text(st.sampled_from("ab_/.\" *?'\ud800"), max_size=12),
    budget=st.integers(1, 30),
)
def test_no_budget_is_exceeded(contexts: Contexts, text: str, question: str, budget: int) -> None:
    for way in CONTEXTS:
        ids = contexts.ids(way, text, question, budget)
        assert way == "text" or len(ids) <= budget
