"""Which lines of a text fit a question: rare words, looks, shapes, and the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from time import thread_time
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.context.lines import (
    best_lines,
    lines_near,
    lines_sharing_words,
    split_into_lines,
)

LOG = [
    f"2026-01-02 10:{i:02d}:00 INFO worker-{i % 7}: request {i} done in {i}7 ms" for i in range(60)
]
TELLING = {
    11: "Traceback (most recent call last):",
    12: '  File "src/ledger.py", line 218, in flush_quota',
    13: "ValueError: quota 3 is out of range",
    31: "Successfully built 4f2a9c1d7e",
    47: "==== 2 failed, 31 passed in 3.07s ====",
}
LINES = [TELLING.get(i, line) for i, line in enumerate(LOG)]


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("What happened to request 41?", 41),
        ("Which exception was raised?", 13),
        ("In which file is the error?", 12),
        ("How many tests failed?", 47),
        ("What is the image id?", 31),
        ("In which function? flushQuota", 12),
    ],
)
def test_the_line_with_the_answer_is_among_the_first(question: str, line: int) -> None:
    assert line in best_lines(LINES, question, 300)[:3]


def test_no_more_than_asked_for_and_best_first() -> None:
    chosen = best_lines(LINES, "request 41", 1_000)
    assert chosen[0] == 41
    assert sum(len(LINES[i]) + 1 for i in chosen) <= 1_000
    assert len(set(chosen)) == len(chosen)
    assert best_lines(["error " * 50, "y"], "error", 100)[0] == 0  # the best is never left out
    assert best_lines([], "anything", 100) == []


def test_the_best_lines_come_with_those_around_them() -> None:
    yaml = [
        f"  service-{i}:\n    image: app-{i}:1.0\n    ports:\n      - '{i}80:80'" for i in range(40)
    ]
    lines = "\n".join(yaml).split("\n")
    chosen = best_lines(lines, "Which port has service-23?", 600)
    assert {92, 93, 94, 95} <= set(chosen)  # its name, and the three lines below


def test_without_a_match_the_odd_lines_come_first() -> None:
    quiet = [line for i, line in enumerate(LOG) if i not in TELLING]
    assert best_lines([*quiet[:20], "and yet: it moves", *quiet[20:]], "zebra", 600)[0] == 20


def test_a_question_of_thousands_of_words_is_answered() -> None:
    """A note's question is a user's whole message; as one pattern it would take minutes."""
    padding = " ".join(f"padding{i}" for i in range(5_000))
    assert best_lines(LINES * 100, f"{padding} request 41 {padding}", 300)[0] == 41
    assert lines_sharing_words(LINES, f"{padding} 4f2a9c1d7e")[0] == 31


def test_what_else_speaks_for_a_line() -> None:
    assert best_lines(LINES, "request 41", 100, {5: 2.0})[0] == 5


def test_a_real_output_among_others() -> None:
    """Captured outputs of eight tools, one after the other: the probe's line is soon there."""
    text = resources.files("clara_mlx.evaluate").joinpath("captured.jsonl").read_text("utf-8")
    outputs: dict[str, list[dict[str, object]]] = {}
    for row in map(json.loads, text.splitlines()):
        if row["probes"]:
            outputs.setdefault(row["tool"], []).append(row)
    tools = sorted(outputs)
    asked = there = 0
    for number in range(80):
        rows = [outputs[tool][number % len(outputs[tool])] for tool in tools[number % 5 :][:8]]
        lines = [line for row in rows for line in str(row["text"]).splitlines() if line.strip()]
        probe = rows[number % len(rows)]["probes"][0]  # type: ignore[index]
        chosen = best_lines(lines, probe["question"], 1_500)
        asked += 1
        there += any(probe["answer"] in lines[i] for i in chosen)
    assert there >= 0.9 * asked


def test_lines_that_share_rare_words() -> None:
    assert lines_sharing_words(LINES, "worker 3 built 4f2a9c1d7e")[0] == 31
    assert lines_sharing_words(LINES, "zebra") == []


def test_long_lines_are_looked_at_in_parts() -> None:
    text = "short\n" + "a" * 3_500 + "\n\nlast"
    parts = split_into_lines(text)
    assert [(one.number, one.before, len(one.text)) for one in parts] == [
        (1, 0, 5), (2, 0, 1_000), (2, 1_000, 1_000), (2, 2_000, 1_000), (2, 3_000, 500),
        (3, 0, 0), (4, 0, 4),
    ]  # fmt: skip
    assert all(text[one.start : one.start + len(one.text)] == one.text for one in parts)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=6_000), st.text(max_size=80), st.integers(1, 2_000))
def test_any_text_and_any_question(text: str, question: str, characters: int) -> None:
    parts = split_into_lines(text)
    lines: dict[int, str] = {}
    for one in parts:
        lines[one.number] = lines.get(one.number, "") + one.text
    assert "\n".join(lines.values()) == text
    chosen = best_lines([one.text for one in parts], question, characters)
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(range(len(parts)))
    assert sum(len(parts[i].text) + 1 for i in chosen[1:]) <= characters


def test_another_process_chooses_the_same() -> None:
    """Sets of words have another order there."""
    code = (
        "import sys, json; from clara_mlx.context.lines import best_lines; "
        "question = 'which request of worker 3 failed'; "
        "print(json.dumps(best_lines(json.load(sys.stdin), question, 2000)))"
    )
    chosen = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(LINES),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(chosen) == 1


@given(
    st.text(st.sampled_from("ab \n"), max_size=80),
    st.lists(st.tuples(st.integers(-5, 80), st.integers(0, 30)), max_size=4),
)
def test_lines_near_some_places_are_those_of_the_whole_text(
    text: str, places: list[tuple[int, int]]
) -> None:
    spans = [(start, start + length) for start, length in places]
    for long, part in ((3_000, 1_000), (7, 3)):
        with mock.patch.multiple("clara_mlx.context.lines", _LONG=long, _PART=part):
            everything = split_into_lines(text)
            assert "".join(line.text for line in everything) == text.replace("\n", "")
            assert [line for line in everything if line.before == 0] == [
                (number, line.start, 0, line.text)
                for number, line in enumerate((one for one in everything if not one.before), 1)
            ]
            assert lines_near(text, spans) == [
                line
                for line in everything
                if any(first <= line.start <= last for first, last in spans)
            ]


@given(
    st.lists(
        st.text(st.sampled_from("aAsS\u03b2\u03c3\u03c2\u03a3\u0130i_ "), min_size=1, max_size=12),
        max_size=6,
    )
)
def test_a_search_for_words_finds_what_a_look_at_each_line_does(some: list[str]) -> None:
    for question in some:
        with mock.patch("clara_mlx.context.lines._MOST_WORDS_SEARCHED", 0):
            looked_at = lines_sharing_words(some, question)
        assert lines_sharing_words(some, question) == looked_at


def test_of_a_long_text_only_what_is_near_is_looked_at() -> None:
    """A gigabyte's worth of lines is not made to show ten of them."""
    started = thread_time()
    (line,) = lines_near("\n" * 8_000_000, [(7_000_000, 7_000_000)])
    assert line == (7_000_001, 7_000_000, 0, "")
    assert thread_time() - started < 1
