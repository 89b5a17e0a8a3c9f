"""Lines of a text as a reader sees it, and the place of each in the original."""

from __future__ import annotations

import json
from itertools import accumulate
from time import thread_time

from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.context.lines import Numbering, Passage, passages_near, split_into_lines


def test_long_lines_are_looked_at_in_parts() -> None:
    text = "short\n" + "a" * 3_500 + "\n\nlast"
    lines = split_into_lines(text)
    assert [*map(len, lines.texts)] == [5, 1_000, 1_000, 1_000, 500, 0, 4]
    assert lines.starts.tolist() == [0, 6, 1_006, 2_006, 3_006, 3_507, 3_508]


@given(st.text(max_size=300))
def test_lines_are_those_of_the_text(text: str) -> None:
    lines = split_into_lines(text)
    assert lines.texts == text.split("\n")
    lengths = (len(line) + 1 for line in lines.texts[:-1])
    assert lines.starts.tolist() == [*accumulate(lengths, initial=0)]


@given(st.text(st.sampled_from("ab \n"), max_size=80), st.integers(0, 80), st.integers(0, 30))
def test_a_passage_knows_its_places(text: str, start: int, length: int) -> None:
    passage = Passage(text)
    end = start + length
    touched = [
        index
        for index in range(len(passage.lines.texts))
        if passage.span(index)[1] > start and passage.span(index)[0] < end
    ]
    assert list(passage.lines_in(start, end)) == touched


def test_a_line_of_a_text_inside_json_has_its_place() -> None:
    text = json.dumps({"code": 1, "output": "\x1b[31mfirst\x1b[0m\nE   second line\nthird"})
    passage = Passage(text)
    (index,) = [i for i, one in enumerate(passage.lines.texts) if one.endswith("second line")]
    start, end = passage.span(index)
    assert text[start:end] == "E   second line"
    assert Numbering(text).at(start) == (1, text.index("E   second"))


@given(
    st.text(st.sampled_from("ab \n"), max_size=80),
    st.lists(st.tuples(st.integers(-5, 80), st.integers(1, 30)), max_size=4),
)
def test_passages_near_some_places_are_whole_lines_and_none_twice(
    text: str, places: list[tuple[int, int]]
) -> None:
    spans = [(start, start + length) for start, length in places]
    found: list[tuple[int, int]] = []
    for passage in passages_near(text, spans):
        for index, line in enumerate(passage.lines.texts):
            start, end = passage.span(index)
            assert text[start:end] == line
            found.append((start, end))
    whole = Passage(text)
    every = [whole.span(index) for index in range(len(whole.lines.texts))]
    near = [
        (start, end)
        for start, end in every
        if start < end and any(end > first and start < last for first, last in spans)
    ]
    assert set(near) <= set(found) <= set(every)
    assert len(set(found)) == len(found)


@given(st.text(st.sampled_from("ab\n"), max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_lines_are_numbered_in_any_order(text: str, places: list[int]) -> None:
    numbering = Numbering(text)
    for place in (min(place, len(text)) for place in places):
        before = text[:place].split("\n")
        assert numbering.at(place) == (len(before), len(before[-1]))


def test_of_a_long_text_only_what_is_near_is_looked_at() -> None:
    """A gigabyte's worth of lines is not made to show ten of them."""
    started = thread_time()
    text = "x\n" * 8_000_000
    (passage,) = passages_near(text, [(14_000_000, 14_000_001)])
    assert Numbering(text).at(passage.span(0)[0]) == (7_000_001, 0)
    assert thread_time() - started < 1
