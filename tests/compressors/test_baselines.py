"""The compressors that cost nothing keep to a budget, and keep what they are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from house import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sizes import sized

from clara_mlx.compressors import registry
from clara_mlx.compressors.compressor import ESTIMATE, TextualCompressor, Tokens, is_textual
from clara_mlx.compressors.fitting import GAP, beginning, count

NAMES = ("extractive", "bm25", "head-tail")

LOG = "\n".join(
    [
        *(f"tests/test_{name}.py::test_it PASSED" for name in ("io", "cli", "store", "words")),
        "E   ValueError: no tokens in ledger.toml",
        "src/parser/reader.py:41: ValueError",
        *(f"tests/test_{name}.py::test_again PASSED" for name in ("a", "b", "c", "d")),
        "FAILED tests/test_parser.py::test_empty - ValueError: no tokens in ledger.toml",
        "1 failed, 8 passed in 0.12s",
    ]
)


def textual(name: str) -> TextualCompressor:
    compressor = registry.open_compressor(name)
    assert is_textual(compressor)
    assert compressor.name == name
    return compressor


@pytest.mark.parametrize("name", [*NAMES, "verbatim"])
def test_what_fits_is_left_as_it_is(name: str) -> None:
    assert textual(name).shorten(LOG, count(LOG, ESTIMATE), ESTIMATE) == LOG


def test_verbatim_is_the_whole_text() -> None:
    assert textual("verbatim").shorten(LOG, 3, ESTIMATE) == LOG


def test_head_and_tail_are_the_ends() -> None:
    short = textual("head-tail").shorten(LOG, 40, ESTIMATE)
    head, gap, tail = short.partition(GAP)
    assert gap and LOG.startswith(head) and LOG.endswith(tail)
    assert 30 < count(short, ESTIMATE) <= 40
    assert abs(len(head) - len(tail)) < 9


@pytest.mark.parametrize("name", ["bm25", "extractive"])
def test_the_lines_of_an_answer_are_kept(name: str) -> None:
    question = "Which exception did test_empty raise?"
    short = textual(name).shorten(LOG, 40, ESTIMATE, question=question)
    assert "FAILED tests/test_parser.py::test_empty - ValueError" in short


def test_the_block_says_how_it_went_and_what_it_names() -> None:
    short = textual("extractive").shorten(LOG, 60, ESTIMATE)
    assert "1 failed, 8 passed in 0.12s" in short
    assert "src/parser/reader.py" in short


@pytest.mark.parametrize("name", NAMES)
def test_real_outputs_keep_to_their_budget(name: str, clara: Callable[..., Any]) -> None:
    compressor = textual(name)
    tokenizer = clara("c16", "e2e").tokenizer
    captured = (ROOT / "clara_mlx/evaluate/captured.jsonl").read_text().splitlines()
    for line in captured[:: sized(12, 1)]:
        output = json.loads(line)["text"]
        whole = count(output, tokenizer)
        for ratio in (2, 8):
            budget = whole // ratio
            short = compressor.shorten(output, budget, tokenizer, question="What went wrong?")
            assert count(short, tokenizer) <= budget
            assert short or budget < 2  # something is always said where there is room


class Characters:
    """Every character is a token."""

    def encode(self, text: str, /) -> list[int]:
        return [ord(letter) for letter in text]

    def ends(self, text: str, /) -> list[int]:
        return list(range(1, len(text) + 1))


@settings(max_examples=sized(60, 600), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=st.text(st.sampled_from("ab_/.\n \u00e9\ud800\x1b[:1"), max_size=90),
    question=st.none() | st.text(st.sampled_from("ab_/.\" *?'\ud800"), max_size=12),
    budget=st.integers(0, 40),
    tokens=st.sampled_from([ESTIMATE, Characters()]),
)
def test_no_budget_is_exceeded(
    text: str, question: str | None, budget: int, tokens: Tokens
) -> None:
    for name in NAMES:
        short = textual(name).shorten(text, budget, tokens, question=question)
        assert count(short, tokens) <= budget
    kept = beginning(text, budget, tokens)
    assert text.startswith(kept)
    assert count(kept, tokens) == min(budget, count(text, tokens))
