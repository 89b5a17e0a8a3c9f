"""The segments of a rendered prompt have the tokens of the whole, whatever the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from counting_folders import TOOLS, tokenizer_folder
from hostile_texts import anything
from hypothesis import given
from tokenizers import AddedToken, Tokenizer
from tokenizers_of_all_kinds import KINDS, readable, tokenizer
from trajectories import trajectory

from clara_mlx.context import ChatTemplate
from clara_mlx.context.segments import cut, cutting_pattern


@pytest.mark.parametrize("kind", KINDS)
@given(text=anything)
def test_tokens_of_segments_add_up(kind: str, text: str) -> None:
    backend = Tokenizer.from_str(tokenizer(kind).full.to_str())
    pattern = cutting_pattern(backend.get_added_tokens_decoder().values())
    assert pattern is not None
    text = readable(text)
    segments = cut(text, pattern)
    assert "".join(segments) == text
    counts = [len(backend.encode(one, add_special_tokens=False).ids) for one in segments]
    assert sum(counts) == len(backend.encode(text, add_special_tokens=False).ids)


def test_no_cut_where_tokens_share_characters() -> None:
    def token(content: str, **flags: Any) -> AddedToken:
        return AddedToken(content, normalized=False, **flags)

    for other in ("<|end|><x>", "x<|end|>", "y<|"):
        pattern = cutting_pattern([token("<|end|>"), token(other)])
        assert pattern is None or pattern.fullmatch("<|end|>") is None
    assert cutting_pattern([token("<|end|>", lstrip=True)]) is None
    pattern = cutting_pattern([token("<|end|>"), token("<mask>", lstrip=True)])
    assert pattern is not None and pattern.pattern == "<\\|end\\|>"
    assert cutting_pattern([]) is None


def test_a_prompt_is_counted_as_a_whole_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text of a conversation is read by the tokenizer once, however often it is sent."""
    counter = ChatTemplate(tokenizer_folder(tmp_path))
    whole = ChatTemplate(tokenizer_folder(tmp_path))
    whole._cuts = None
    read: list[str] = []
    count = counter._counts._count

    def read_it(text: str) -> int:
        read.append(text)
        return count(text)

    monkeypatch.setattr(counter._counts, "_count", read_it)
    messages: list[dict[str, Any]] = []
    for added in trajectory(12, lines=8):
        messages += added
        tools = TOOLS if len(messages) % 2 else None
        assert counter.prompt(messages, tools) == whole.prompt(messages, tools)
    assert len("".join(read)) < 2 * len(json.dumps(messages))


def test_a_tokenizer_that_does_more_than_it_says_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = ChatTemplate(tokenizer_folder(tmp_path))
    right = counter.prompt([{"role": "user", "content": "one"}])
    monkeypatch.setattr(counter._counts, "_count", lambda text: 1)
    assert counter.prompt([{"role": "user", "content": "two"}]) == right
    assert counter.prompt([{"role": "user", "content": "three or four"}]) > right
