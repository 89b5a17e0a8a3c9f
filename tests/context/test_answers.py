"""ask_memory: an answer, and the exact lines that fit the question, from one original or all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trajectories import LINES, report

from clara_mlx.context import answers, tools
from clara_mlx.memory import Memory


def test_a_question_inside_one_handle(memory: Memory) -> None:
    handle = memory.remember("\n".join(LINES), session="mine")
    other = memory.remember("a flush that no step did", session="mine")
    text = tools.call(memory, "ask_memory", {"question": "which flush?", "handle": handle})
    assert "\n57: 57: the flush of step 57\n" in text and other not in text
    assert text.startswith(f"[{handle}: ") and "of 500 lines]" in text
    told = tools.call(memory, "ask_memory", {"question": "which?", "handle": "m-0123456789ab"})
    assert "no memory 'm-0123456789ab'" in told


def test_lines_are_exact_and_numbered_as_expand_numbers_them(memory: Memory) -> None:
    handle = memory.remember(report(3, 400))
    text = answers.ask(memory, "Which exception was raised, and where?", handle=handle)
    lines = report(3, 400).split("\n")
    for told in text.split("\n")[1:]:
        number, _, line = told.partition(": ")
        assert lines[int(number) - 1] == line
    assert {lines[-4], lines[-3], lines[-2]} <= {t.partition(": ")[2] for t in text.split("\n")}


def test_a_line_is_whole_although_a_chunk_cuts_it(tmp_path: Path, clara: Any) -> None:
    line = "E   ValueError: " + " ".join(f"part_{i}" for i in range(60))
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e"), floor=-1.0) as memory:
        handle = memory.remember("\n".join([*LINES[:40], line, *LINES[40:60]]))
        memory.flush(60)
        assert all(line not in hit.text for hit in memory.recall("part_3", 20))
        assert line in answers.ask(memory, "Which ValueError has part_3?", handle=handle)
        assert line in answers.ask(memory, "Which ValueError has part_3?")


def test_several_originals_share_the_answer(memory: Memory) -> None:
    first = memory.remember("\n".join([*LINES[:30], "the kernel is in src/kernel.py"]))
    second = memory.remember("\n".join([*LINES[60:90], "the kernel was built in 3.2 s"]))
    text = answers.ask(memory, "where is the kernel?")
    assert f"[{first}: " in text and f"[{second}: " in text
    assert "31: the kernel is in src/kernel.py" in text


def test_a_question_may_name_the_command(memory: Memory) -> None:
    """What it printed need not have a word of it."""
    for number in range(40):
        command = {"command": f"cd app/part-{number}; pytest -x"}
        memory.remember(f"{number % 7} failed, {number} passed", metadata=command)
    command = {"command": "cd app/kestrel; pytest -x"}
    handle = memory.remember("2 failed, 918 passed in 3.1s", metadata=command, session="mine")
    told = answers.ask(memory, "How many passed? (cd app/kestrel; pytest -x)")
    assert told.startswith(f"[{handle}: 1 of 1 lines]\n1: 2 failed, 918 passed")
    told = answers.ask(memory, "How many passed? (cd app/kestrel; pytest -x)", {"session": "other"})
    assert handle not in told
    memory.forget(handle)
    assert handle not in answers.ask(memory, "How many passed in app/kestrel?")


@pytest.mark.parametrize(
    "text",
    [
        "x" * 500_000,
        "a\n" * 90_000,
        "\n" * 5_000,
        '{"a": ' * 40_000,
        "\n".join(f"line {i} of a long log" for i in range(90_000)),
    ],
    ids=["one line", "letters", "blank", "json", "log"],
)
def test_results_are_bounded(memory: Memory, text: str) -> None:
    handle = memory.remember(text)
    for question in ("line 89,123?", "x", "a", "which error?"):
        told = answers.ask(memory, question, handle=handle)
        assert told.startswith(f"[{handle}: ") and len(told) <= 2 * answers.ANSWER_CHARACTERS
        assert len(answers.ask(memory, question)) <= 2 * answers.ANSWER_CHARACTERS


def test_of_a_very_long_text_lines_near_hits_are_found(memory: Memory) -> None:
    log = [f"line {i}: worker {i % 9} is idle, as before" for i in range(40_000)]
    log[31_007] = "line 31007: kestrel refused the connection"
    handle = memory.remember("\n".join(log))
    told = answers.ask(memory, "what did kestrel do?", handle=handle)
    assert "31008: line 31007: kestrel refused the connection" in told


def test_a_part_of_a_very_long_line_says_where_it_is(memory: Memory) -> None:
    pairs = [f'"key_{i}": "value {i}"' for i in range(900)]
    handle = memory.remember("{" + ", ".join(pairs) + "}")
    told = answers.ask(memory, "what is key_700?", handle=handle)
    assert '"key_700": "value 700"' in told and "1, from character " in told


def test_without_a_model_it_gives_the_lines(memory: Memory) -> None:
    handle = memory.remember("\n".join(LINES), session="mine")
    memory.remember("the flush of another session", session="other")
    where = {"session": "mine"}
    text = tools.call(memory, "ask_memory", {"question": "flush of step 57"}, where=where)
    assert text.startswith(f"[{handle}: ") and LINES[56] in text
    assert "another session" not in text


def test_with_a_model_it_gives_an_answer_and_the_lines(tmp_path: Path, clara: Any) -> None:
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e"), floor=-1.0) as memory:
        handle = memory.remember("\n".join(LINES[:40]))
        memory.flush(60)
        text = tools.call(memory, "ask_memory", {"question": "which step flushed?"})
    assert text.startswith("answer: ") and f"\n[{handle}: " in text


def test_the_lines_that_the_model_was_given_are_there(tmp_path: Path, clara: Any) -> None:
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e"), floor=-1.0) as memory:
        memory.remember("\n".join(LINES))
        memory.flush(60)
        best = memory.ask("zebra", 5).evidence[0]
        told = answers.ask(memory, "zebra")
    assert best.text.strip("\n").split("\n")[1] in told


def test_lines_that_words_find_are_given_whatever_the_model_thinks(
    tmp_path: Path, clara: Any
) -> None:
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e"), floor=2.0) as memory:
        handle = memory.remember("the kernel is in src/kernel.py")
        memory.flush(60)
        assert memory.ask("Where is the kernel?").evidence == []
        told = answers.ask(memory, "Where is the kernel?")
    assert told == f"[{handle}: 1 of 1 lines]\n1: the kernel is in src/kernel.py"


def test_bytes_are_shown_as_far_as_they_are_text(memory: Memory) -> None:
    handle = memory.remember(b"first\n\xff\xfe the kernel\nlast")
    assert "2: \ufffd\ufffd the kernel" in answers.ask(memory, "kernel?", handle=handle)
