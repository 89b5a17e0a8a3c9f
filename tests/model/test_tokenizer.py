"""TextTokenizer: the reference's ids for ordinary text, ordinary ids for any text."""

from __future__ import annotations

import pytest
from hostile_texts import HOSTILE, SPECIAL, anything, characters, lookalikes
from hypothesis import assume, example, given, settings
from tokenizers_of_all_kinds import GOLDEN_JSON, KINDS, readable, tokenizer

from clara_mlx.errors import CheckpointError
from clara_mlx.model.tokenizer import TextTokenizer

UNK = 0  # a rare character may become it; it is not a layout token


kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@settings(deadline=None, max_examples=150)
@given(text=lookalikes)
@example(text=" a")
@example(text="▁ a")
def test_text_is_encoded_as_the_reference_does_after_a_special_token(kind: str, text: str) -> None:
    assume(not any(special in text for special in SPECIAL))
    texts = tokenizer(kind)
    reference = texts.full.encode("<s>" + readable(text), add_special_tokens=False).ids
    assert texts.encode(text) == reference[1:]


@pytest.mark.parametrize("kind", [*KINDS, "first split whole", "always split whole"])
@settings(deadline=None, max_examples=150)
@given(text=anything)
@example(text="</s>")
@example(text="".join(SPECIAL))
def test_no_text_has_a_special_id(kind: str, text: str) -> None:
    texts = tokenizer(kind)
    special = {texts.full.token_to_id(content) for content in SPECIAL} - {UNK}
    assert len(special) == len(SPECIAL) - 1
    assert special.isdisjoint(texts.encode(text))


@kinds
@settings(deadline=None, max_examples=150)
@given(text=anything)
def test_each_token_ends_at_a_character_and_the_last_ends_the_text(kind: str, text: str) -> None:
    texts = tokenizer(kind)
    ends = texts.ends(text)
    assert len(ends) == len(texts.encode(text))
    assert ends == sorted(ends)
    assert ends[-1:] == ([len(text)] if text else [])


@pytest.mark.parametrize("kind", ["prepend", "byte level"])
@settings(deadline=None, max_examples=150)
@given(text=anything)
@example(text=HOSTILE["control characters"])
@example(text=HOSTILE["NUL"])
def test_text_comes_back(kind: str, text: str) -> None:
    kept = readable(text) if kind == "byte level" else readable(text).replace("▁", " ")
    assert tokenizer(kind).decode(tokenizer(kind).encode(text)) == kept


@given(text=characters)
@example(text="\ud83d\ude80")
@settings(deadline=None, max_examples=150)
def test_a_lone_surrogate_is_the_replacement_character(text: str) -> None:
    texts = tokenizer()
    assert texts.encode(text) == texts.encode(readable(text))
    assert texts.ends(text) == texts.ends(readable(text))


def test_a_batch_is_each_text_alone() -> None:
    texts = tokenizer()
    batch = list(HOSTILE.values()) * 24  # more than one group
    assert texts.encode_batch(batch) == [texts.encode(text) for text in batch]
    assert texts.encode_batch([]) == []


def test_bytes_are_known() -> None:
    texts = tokenizer()
    assert [texts.is_open(id) for id in texts.encode("a\n")] == [False, True]
    assert texts.is_open(1)  # a special token


def test_special_tokens_are_left_out_of_an_answer() -> None:
    texts = tokenizer()
    assert texts.decode([1, *texts.encode("worker"), 2]) == "worker"


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", "[" * 10_000, '{"model": null}', GOLDEN_JSON[:1000]]
)
def test_a_damaged_file_is_named(content: str) -> None:
    with pytest.raises(CheckpointError, match=r"^some/tokenizer\.json: not a usable tokenizer"):
        TextTokenizer(content, where="some/tokenizer.json")
