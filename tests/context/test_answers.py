"""ask_memory: an answer, and the exact lines that fit the question, from one original or all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trajectories import LINES, report

from clara_mlx.compressors.question import is_thought
from clara_mlx.context import Budget, Context, answers, tools
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


def _conversation(output: str, question: str) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": output},
    ]


def test_what_the_asker_has_in_sight_is_not_told_again(memory: Memory) -> None:
    handle = memory.remember("\n".join([*LINES[:30], "the kernel is in src/kernel.py"]))
    memory.remember("the kernel was built in 3.2 s")
    told = answers.ask(memory, "where is the kernel?", shown="so the kernel is in src/kernel.py.")
    assert "src/kernel.py" not in told and "built in 3.2 s" in told
    everything = "\n".join(memory.text(one.handle) for one in memory.list())
    told = answers.ask(memory, "where is the kernel?", shown=everything)
    assert told.startswith("Nothing else is remembered") and handle not in told


def test_what_was_last_sent_of_the_only_conversation_is_in_sight(memory: Memory) -> None:
    question = {"question": "Where is the kernel?"}
    memory.remember("the kernel is in src/kernel.py\nthe kernel is 3 MB", session="mine")
    context = Context(memory, budget=Budget(window=100_000))
    context.prepare(_conversation("the kernel is in src/kernel.py", "Build it."), session="mine")
    told = tools.call(memory, "ask_memory", question)
    assert "src/kernel.py" not in told and "3 MB" in told
    # Nobody knows which conversation asks if there are two, unless it is named.
    context.prepare(_conversation("nothing", "And another one."), session="other")
    assert "src/kernel.py" in tools.call(memory, "ask_memory", question)
    mine = {"session": "mine"}
    assert "src/kernel.py" not in tools.call(memory, "ask_memory", question, where=mine)
    assert "src/kernel.py" in tools.call(memory, "ask_memory", question, where=mine, shown="")


def test_lines_inside_json_are_lines(memory: Memory) -> None:
    """Many tools give what was printed as a string of a JSON object."""
    printed = "\n".join([*LINES[:200], "\x1b[31mE   the kernel refused\x1b[0m", *LINES[200:400]])
    handle = memory.remember(json.dumps({"returncode": 1, "output": printed}))
    told = answers.ask(memory, "What did the kernel refuse?")
    line = next(one for one in told.split("\n") if one.endswith("E   the kernel refused"))
    start = int(line.partition("from character ")[2].partition(":")[0])
    page = tools.call(memory, "expand", {"handle": handle, "start_character": start})
    assert page.split("\n")[1].startswith("E   the kernel refused")


def test_a_thought_gets_what_stands_together(memory: Memory) -> None:
    source = [f"    value_{i} = compute_{i}(request, {i})" for i in range(60)]
    body = ["    lock = ledger.acquire()", "    return lock.spent"]
    source[20:20] = ["def flush_quota(ledger):", *body]
    memory.remember("\n".join(source), metadata={"command": "cat src/ledger.py"})
    for number in range(30):
        memory.remember("\n".join(f"{one} of file {number}" for one in LINES[:30]))
    thought = (
        "THOUGHT: The reproduction script shows that the quota is flushed twice. Now let me look "
        "at how flush_quota handles the ledger before I fix the second call in the worker."
    )
    told = answers.ask(memory, thought)
    assert all(line in told for line in body)


def test_a_sentence_that_asks_nothing_is_a_thought_and_a_few_names_are_not() -> None:
    plan = "Now add the missing quota check at the end of the ledger module:"
    assert is_thought(plan)
    for says in ("Update the docs:", "Now the imports.", "\u66f4\u65b0\u6587\u6863\uff1a"):
        assert is_thought(says)
    for mark in "?\uff1f\u061f\u037e":
        assert not is_thought(f"Which quota check is missing at the end of the ledger{mark}")
    assert not is_thought("KeyError colour_7f3a")
    assert not is_thought("DATABASE_PASSWORD")
    assert not is_thought("")
