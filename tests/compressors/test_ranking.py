"""Which lines of a text fit a question: rare words, looks, shapes, and the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.compressors import looks
from clara_mlx.compressors.ranking import best_lines, lines_sharing_words
from clara_mlx.context.lines import split_into_lines

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
    bonuses = np.zeros(len(LINES))
    bonuses[5] = 2.0
    assert best_lines(LINES, "request 41", 100, bonuses)[0] == 5


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


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=6_000), st.text(max_size=80), st.integers(1, 2_000))
def test_any_text_and_any_question(text: str, question: str, characters: int) -> None:
    lines = split_into_lines(text).texts
    chosen = best_lines(lines, question, characters)
    assert len({lines[i].strip() for i in chosen}) == len(chosen)
    assert sum(len(lines[i]) + 1 for i in chosen[1:]) <= characters


def test_another_process_chooses_the_same() -> None:
    """Sets of words have another order there."""
    code = (
        "import sys, json; from clara_mlx.compressors.ranking import best_lines; "
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


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("which restarts?", "the pod was restarted by its node"),
        ("why did it panic?", "thread 'main' panicked at the door"),
        ("queued messages", "const all = this.getQueuedMessages();"),
        ("HTTP server", "started HTTPServer on 8080"),
        ("flush quota", "def flush_quota(self):"),
        ("STRASSE", "Stra\u00dfe 5"),
        ("port", "\uff50\uff4f\uff52\uff54 8080"),  # full-width letters
        (
            "\u6784\u5efa\u4e3a\u4ec0\u4e48\u5931\u8d25",
            "[10:02] \u6784\u5efa\u5931\u8d25\uff1a\u7f3a\u5c11\u6587\u4ef6",
        ),
    ],
)
def test_words_are_found_in_all_their_forms(question: str, line: str) -> None:
    quiet = [f"a quiet line, number {i}, of the report" for i in range(30)]
    assert lines_sharing_words([*quiet, line, *quiet], question)[0] == 30
    assert best_lines([*quiet, line, *quiet], question, 200)[0] == 30


def test_a_piece_of_another_word_is_no_form_of_it() -> None:
    assert lines_sharing_words(["the transport of imports", "aportion"], "port") == []


def test_equal_lines_are_given_once() -> None:
    chosen = best_lines([*LINES, *LINES], "Which exception was raised?", 3_000)
    told = [([*LINES, *LINES])[i] for i in chosen]
    assert len(set(told)) == len(told)


def test_lines_in_sight_are_left_out_and_count_for_their_neighbours() -> None:
    question = "Which exception was raised?"
    chosen = best_lines(LINES, question, 300, shown={LINES[13]})
    assert 13 not in chosen and {12, 14} & set(chosen[:2])


@given(
    st.lists(st.sampled_from(["an Error", "E   x", "we got 3", "begot", "fine", ""]), max_size=9)
)
def test_lines_of_trouble(lines: list[str]) -> None:
    trouble = {i for i, line in enumerate(lines) if line in ("an Error", "E   x", "we got 3")}
    assert looks.lines_of_trouble(lines) == trouble
