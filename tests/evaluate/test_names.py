from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import sized

from clara_mlx.evaluate.corpus.names import (
    FIRST_NAMES,
    LAST_NAMES,
    PSEUDO_WORDS,
    WORDS,
    Names,
    held_out,
)

SEEDS = st.integers(0, 2**32)


def both(seed: int = 0) -> tuple[Names, Names]:
    return Names(random.Random(seed), "train"), Names(random.Random(seed), "test")


def test_the_split_never_moves() -> None:
    """Pinned: another hash would put words that a trained model has seen into the test split."""
    assert [word for word in ("advice", "badge", "bagel", "zoom") if held_out(word)] == [
        "advice",
        "bagel",
    ]
    assert [value for value in range(20, 50) if held_out(str(value))] == [26, 28, 37, 39, 40, 41]
    assert held_out("Gamma") == held_out("gamma")


def test_words_are_many_and_split() -> None:
    assert len(WORDS) == len(set(WORDS)) >= 1500
    assert all(re.fullmatch("[a-z]{3,}", word) for word in (*WORDS, *FIRST_NAMES, *LAST_NAMES))
    assert not {*WORDS} & {*FIRST_NAMES, *LAST_NAMES}
    share = sum(map(held_out, WORDS)) / len(WORDS)
    assert 0.13 < share < 0.17


@settings(deadline=None, max_examples=sized(100, 2000))
@given(SEEDS)
def test_no_draw_belongs_to_both_splits(seed: int) -> None:
    for names in both(seed):
        for draw in (names.word, names.seconds, names.version, names.date, names.clock):
            assert names.belongs(draw())
        assert names.belongs(names.hex(7))
        assert names.belongs(names.decimal(0, 100, 1))
        assert all(names.belongs(part) for part in names.person())
        assert all(names.belongs(part) for part in names.snake(1, 4).split("_"))
        assert all(names.belongs(part.lower()) for part in names.kebab(1, 4).split("-"))
        for number in (
            names.number(0, 5000),
            names.count(),
            names.line(),
            names.addend(1234, 3) + 1234,
        ):
            assert number < 20 or names.belongs(str(number))


def test_long_hashes_are_split_by_their_first_seven_digits() -> None:
    for names in both():
        for _ in range(50):
            commit = names.hex(40)
            assert re.fullmatch("[0-9a-f]{40}", commit)
            assert names.belongs(commit[:7])


def test_a_quarter_of_the_parts_are_pseudo_words() -> None:
    for names in both(1):
        listed = {*WORDS}
        pseudo = sum(names.word() not in listed for _ in range(8000)) / 8000
        assert abs(pseudo - PSEUDO_WORDS) < 0.03


@pytest.mark.parametrize(
    ("draw", "pattern"),
    [
        ("snake", "[a-z][a-z0-9]*(_[a-z][a-z0-9]*)?"),
        ("kebab", "[a-z][a-z0-9]*(-[a-z][a-z0-9]*)?"),
        ("constant", "[A-Z][A-Z0-9]*(_[A-Z][A-Z0-9]*)?"),
        ("camel", "([A-Z][a-z0-9]*){1,2}"),
        ("mixed", "[a-z][a-z0-9]*[A-Z][a-z0-9]*"),
        ("seconds", r"\d{1,2}\.\d\d"),
        ("version", r"[0-5]\.\d+\.\d+"),
        ("date", r"202[3-6]-\d\d-\d\d"),
        ("clock", r"\d\d:\d\d:\d\d"),
        ("user", "[a-z]+"),
    ],
)
def test_the_forms_of_names(draw: str, pattern: str) -> None:
    for names in both(2):
        for _ in range(200):
            assert re.fullmatch(pattern, getattr(names, draw)())


def test_ranges() -> None:
    for names in both(3):
        numbers = [names.number(3, 70) for _ in range(500)]
        assert 3 <= min(numbers) < 10
        assert 50 < max(numbers) <= 70
        assert {names.count(100) for _ in range(500)} <= set(range(1, 101))
        assert min(names.line() for _ in range(500)) >= 2
        assert re.fullmatch(r"([a-z0-9_]+/)*[a-z0-9_]+\.py", names.path("py"))
