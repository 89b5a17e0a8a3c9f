"""LLMLingua-2's `shorten`: budgets that are met, names that stay whole, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import sized
from token_classifiers import KINDS

from clara_mlx.compressors.compressor import ESTIMATE
from clara_mlx.compressors.llmlingua2.llmlingua2 import LlmLingua2, Shortened
from clara_mlx.errors import ClaraError
from clara_mlx.tool_outputs.identifiers import occurrences

Load = Callable[..., LlmLingua2]

OUTPUT = (
    "============ test session starts ============\n"
    "collected 28 items in the folder of the shop\n"
    "FAILED tests/shop/test_prices.py::test_rounding[eur] - AssertionError: 12.50 != 12.49\n"
    "src/app/main.py:42: error: Incompatible return value type (got 'str', expected 'int')\n"
    "    value = parse_header(line)  # the value of the line is what we want\n"
    "see also src/app/main.py:42 and /opt/shop/prices.toml, which everyone agreed on\n"
    "==== 1 failed, 27 passed, 3 skipped in 4.51s ====\n"
)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, llmlingua2: Load) -> LlmLingua2:
    return llmlingua2(request.param)


def in_order(parts: list[str], text: str) -> bool:
    """Whether parts stand in a text one after the other."""
    start = 0
    for part in parts:
        start = text.find(part, start)
        if start < 0:
            return False
        start += len(part)
    return True


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4, 0.7, 0.95])
def test_the_budget_is_met_and_never_exceeded(model: LlmLingua2, rate: float) -> None:
    budget = int(rate * len(model.tokenizer.encode(OUTPUT)))
    shortened = model.shorten(OUTPUT, rate=rate)
    assert shortened.tokens == len(model.tokenizer.encode(shortened)) <= budget
    # Without protection there are single tokens to fill the budget up with.
    plain = model.shorten(OUTPUT, rate=rate, protect=False)
    assert budget - 1 <= plain.tokens <= budget
    assert model.shorten(OUTPUT, target_tokens=budget) == shortened


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 7, 20, 50])
def test_the_budget_may_be_counted_by_anything(model: LlmLingua2, budget: int) -> None:
    shortened = model.shorten(OUTPUT, budget, ESTIMATE)
    assert len(ESTIMATE.encode(shortened)) <= budget
    assert shortened or budget < 2


def test_a_text_within_its_budget_is_returned_as_it_is(model: LlmLingua2) -> None:
    text = "  two\r\n\r\nlines \x1b[31mred\x1b[0m \n"
    for shortened in (model.shorten(text, rate=1), model.shorten(text, target_tokens=10_000)):
        assert shortened == text
        assert shortened.kept == ((0, len(text)),)
        assert not shortened.dropped
    assert model.shorten("", rate=0.5) == ""


def test_identifiers_are_whole_or_not_there(model: LlmLingua2) -> None:
    names = {one.text for one in occurrences(OUTPUT)}
    assert {"src/app/main.py:42", "/opt/shop/prices.toml"} < names
    for rate in (0.2, 0.35, 0.5, 0.65):
        words = set(model.shorten(OUTPUT, rate=rate).split())
        cut = [w for w in words if any(w in name and w != name for name in names) and "/" in w]
        assert not cut
    without = model.shorten(OUTPUT, rate=0.5, protect=False)
    assert not all(name in without for name in names)  # what it is for
    assert all(name in model.shorten(OUTPUT, rate=0.8) for name in names)


def test_lines_stay_lines(model: LlmLingua2) -> None:
    lines = OUTPUT.splitlines()
    for line in model.shorten(OUTPUT, rate=0.6).splitlines():
        assert any(in_order(line.split(), original) for original in lines)
    assert "\n" not in model.shorten(OUTPUT, rate=0.6, protect=False)


def test_what_was_kept_and_dropped_is_known(model: LlmLingua2) -> None:
    text = "\x1b[1m" + OUTPUT.replace("error", "\x1b[31merror\x1b[0m")
    shortened = model.shorten(text, rate=0.4)
    assert isinstance(shortened, Shortened)
    assert shortened.original == text
    spans = sorted([*shortened.kept, *shortened.dropped])
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    covered = {i for start, end in spans for i in range(start, end)}
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)
    assert "\x1b" not in shortened
    plain = [text[a:b].replace("\x1b[31m", "").replace("\x1b[0m", "") for a, b in shortened.kept]
    assert in_order(plain, shortened)


def test_forced_strings_and_digits_come_first(model: LlmLingua2) -> None:
    shortened = model.shorten(OUTPUT, rate=0.3, force_tokens=["everyone agreed", "\n"])
    assert "everyone agreed" in shortened
    assert shortened.count("\n") == OUTPUT.count("\n")
    digits = model.shorten(OUTPUT, rate=0.75, keep_digits=True, protect=False)
    assert all(number in digits for number in ("12.50", "12.49", "28", "27", "4.51"))


def test_special_tokens_in_a_text_are_plain_characters(model: LlmLingua2) -> None:
    text = "the <s> tag </s> of [SEP] and [CLS] in a <mask> or [MASK] " * 3
    special = ("<s>", "</s>", "<mask>", "[SEP]", "[CLS]", "[MASK]")
    ids = {model.tokenizer.full.token_to_id(token) for token in special}
    assert not (ids - {None}) & set(model.tokenizer.encode(text))
    covered = "".join(text[word.start : word.end] for word in model.words(text))
    assert covered == "".join(text.split())


def test_words_have_their_places_in_texts_of_any_length(model: LlmLingua2) -> None:
    text = OUTPUT * 8
    words = model.words(text)
    assert len(model.tokenizer.encode(text)) > 1024
    assert all(a.end <= b.start for a, b in pairwise(words))
    assert "".join(text[w.start : w.end] for w in words) == "".join(text.split())
    assert all(0 < word.probability < 1 for word in words)


@settings(max_examples=sized(15, 300), deadline=None)
@given(text=st.text(max_size=120), budget=st.integers(0, 40))
def test_any_text_has_a_budget(llmlingua2: Load, text: str, budget: int) -> None:
    model = llmlingua2("bert")
    shortened = model.shorten(text, target_tokens=budget)
    assert len(model.tokenizer.encode(shortened)) <= budget
    assert all(0 <= start < end <= len(text) for start, end in shortened.kept if text)


def test_eight_bits_rate_words_much_the_same(llmlingua2: Load) -> None:
    for kind in KINDS:
        exact = llmlingua2(kind).words(OUTPUT)
        quantised = llmlingua2(kind, "-q", "8", "--group-size", "32").words(OUTPUT)
        assert [(w.start, w.end) for w in exact] == [(w.start, w.end) for w in quantised]
        pairs = zip(exact, quantised, strict=True)
        assert max(abs(a.probability - b.probability) for a, b in pairs) < 0.1


def test_a_sentence_without_spaces_is_no_name(llmlingua2: Load) -> None:
    text = "海口市疾病预防控制中心专家介绍" * 2
    shortened = llmlingua2("bert").shorten(text, rate=0.5)
    assert 0 < len(shortened) < len(text)


def test_settings_are_checked(llmlingua2: Load) -> None:
    model = llmlingua2("bert")
    for wrong in ({}, {"rate": 0.5, "target_tokens": 3}, {"rate": 1.5}, {"target_tokens": -1}):
        with pytest.raises(ClaraError):
            model.shorten(OUTPUT, **wrong)
    assert model.fingerprint != llmlingua2("xlm-roberta").fingerprint
