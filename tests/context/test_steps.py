"""What a conversation keeps: short texts, arguments, what the agent found; in folds and to ask."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from trajectories import call, report, requests, start, step

from clara_mlx.context import Budget, Context, tools
from clara_mlx.context.folds import FOLDED
from clara_mlx.context.messages import Message, content_text
from clara_mlx.memory import Memory

TIGHT = Budget(window=9_000, reserve=1_000, keep=2)
SAID = "1 failed: test_reads_tabs in 0.31s (seed 8812)"


def one_step(name: str, tool: str, result: str, said: str = "", **arguments: Any) -> list[Message]:
    """A call and its result."""
    return [
        {"role": "assistant", "content": said, "tool_calls": [call(name, tool, **arguments)]},
        {"role": "tool", "tool_call_id": name, "content": result},
    ]


def long_work(count: int = 40) -> list[Message]:
    """A short result and a file that was written, then much else."""
    written = "\n".join(f"def field_{i}(): return {i}" for i in range(40))
    return [
        *start(),
        *one_step("a", "bash", SAID, "Tabs are read by Lexer.advance.", command="pytest -q"),
        *one_step("b", "write", "ok", path="src/field_parser.py", content=written),
        *(
            m
            for n in range(count)
            for m in one_step(f"c{n}", "bash", report(n, 30), command=f"x{n}")
        ),
    ]


def turns(messages: list[Message]) -> list[str]:
    """The roles that strict templates count."""
    return [
        m["role"]
        for m in messages
        if m["role"] in ("user", "assistant") and not m.get("tool_calls")
    ]


def alternate(messages: list[Message]) -> bool:
    return all(a != b for a, b in pairwise(turns(messages)))


def fold_of(messages: list[Message]) -> str:
    return next(text for text in map(content_text, messages) if FOLDED in text.partition("\n")[0])


def test_a_fold_tells_of_short_results_and_of_files_that_were_written(memory: Memory) -> None:
    context = Context(memory, budget=TIGHT)
    messages = long_work(24)
    sent = context.prepare(messages).messages
    fold = fold_of(sent)
    assert "pytest -q" in fold and SAID in fold and "src/field_parser.py" in fold
    assert context.rebuild(sent) == messages


def test_what_falls_out_of_a_fold_stays_reachable(memory: Memory) -> None:
    context = Context(memory, budget=Budget(window=4_000, reserve=500, keep=2))
    messages = long_work(90)
    fold = fold_of(context.prepare(messages).messages)
    handle = fold[len("[clara ") :].partition(":")[0]
    assert " lines only there]" in fold.partition("\n")[0]
    page = tools.call(memory, "expand", {"handle": handle})
    assert page.count("\n") > 100 and "next: start_line=" in page.partition("\n")[0]
    assert SAID in page and "src/field_parser.py" in page


def test_short_texts_arguments_and_findings_are_searched(memory: Memory) -> None:
    context = Context(memory, budget=TIGHT)
    messages = long_work()
    context.observe(messages)
    for question, answer in (
        ("Which test failed in pytest -q?", "test_reads_tabs"),
        ("What does field_37 return?", "def field_37(): return 37"),
        ("What reads tabs?", "Lexer.advance"),
    ):
        # Another session asks: in this one, nothing that is in sight is told again.
        told = tools.call(memory, "ask_memory", {"question": question})
        assert answer in told, question


def test_the_memorys_own_calls_are_not_kept(memory: Memory) -> None:
    context = Context(memory)
    kept = memory.remember("a text that is kept")
    messages = [*start("go"), *one_step("a", "expand", "a text that is kept", handle=kept)]
    context.observe(messages)
    assert [one.handle for one in memory.list()] == [kept]


def test_a_step_is_kept_when_it_is_over(memory: Memory) -> None:
    context = Context(memory)
    messages = [*start("go"), *one_step("a", "bash", SAID, command="pytest -q tests/io")]
    assert context.observe(messages[:-1]) == []
    (handle,) = context.observe(messages)
    assert str(memory.original(handle)).split("\n") == [
        "called bash:",
        "pytest -q tests/io",
        f"gave: {SAID}",
    ]
    assert context.handles(messages, "s", range(len(messages)))[-1] != ()


def test_a_large_call_of_the_agents_own_becomes_an_excerpt(memory: Memory) -> None:
    context = Context(memory, budget=Budget(window=16_384, reserve=2_048))
    written = "\n".join(f"value_{i} = compute({i}) + offset_{i}" for i in range(2_000))
    messages = [*start(), *one_step("w", "write", "ok", path="src/values.py", content=written)]
    prepared = context.prepare(messages)
    assert prepared.tokens <= 14_336
    (one,) = prepared.messages[2]["tool_calls"]
    arguments = json.loads(one["function"]["arguments"])
    assert arguments["path"] == "src/values.py"
    assert "value_0 = " in arguments["content"] and "value_1999 = " in arguments["content"]
    assert context.rebuild(prepared.messages) == messages


@pytest.mark.parametrize("every", [1, 3, 7, 1_000])
def test_roles_alternate_where_the_clients_did(memory: Memory, every: int) -> None:
    """Agents that answer now and then, and the user goes on."""
    steps = [start()]
    for number in range(60):
        steps.append(step(number, [report(number, 20)]))
        if number % every == every - 1:
            steps.append([{"role": "assistant", "content": f"Done with {number}."}])
            steps[-1].append({"role": "user", "content": f"Go on after {number}."})
    steps.append(
        [{"role": "assistant", "content": "All done."}, {"role": "user", "content": "OK?"}]
    )
    results = requests(Context(memory, budget=TIGHT), steps)
    assert any(FOLDED in content_text(m) for m in results[-1].messages)
    assert all(alternate(result.messages) for result in results)


def test_plain_chat_alternates_too(memory: Memory) -> None:
    steps = [start()]
    for number in range(60):
        said = {"role": "assistant", "content": f"{number}: " + report(number, 12)}
        steps.append([said, {"role": "user", "content": f"And {number}?"}])
    results = requests(Context(memory, budget=TIGHT), steps)
    assert any(FOLDED in content_text(m) for m in results[-1].messages)
    assert all(alternate(result.messages) for result in results)
    assert not any(m.get("tool_calls") for m in results[-1].messages)
