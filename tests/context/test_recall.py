"""Notes: what is brought back to the newest message, once, and the same ever after."""

from __future__ import annotations

import json

from trajectories import SMALL, report, step, trajectory

from clara_mlx.context import Context, Estimate
from clara_mlx.memory import Memory


def test_a_note_is_brought_back_once_and_replayed(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    steps = trajectory(18)
    messages = [message for added in steps for message in added]
    context.prepare(messages)
    messages.append({"role": "user", "content": "Which line of which file raised for case 0?"})
    question = report(0, 60).splitlines()[-3]  # src/...py:...: ValueError
    first = context.prepare(messages, question=question)
    assert first.note and question in first.note and first.note.startswith("[clara recalls ")
    assert first.messages[-1]["content"] == f"{messages[-1]['content']}\n\n{first.note}"
    retry = context.prepare(messages, question="something else entirely")
    assert retry.messages == first.messages
    messages += step(13, [report(13, 3)])
    later = context.prepare(messages)
    assert later.messages[: len(first.messages)] == first.messages
    assert context.rebuild(later.messages) == messages
    assert Estimate().text(first.note) <= SMALL.note


def test_nothing_is_brought_back_that_is_shown(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(2) for message in added]
    messages.append({"role": "user", "content": "go on"})
    assert context.prepare(messages, question=report(0, 60)).note is None
    messages = [message for added in trajectory(18) for message in added]
    messages.append({"role": "user", "content": "go on"})
    context.prepare(messages)
    newest = report(17, 60).splitlines()
    note = context.prepare(messages, question=newest[-3]).note
    assert note is None or newest[-1] not in note


def test_a_note_goes_with_the_memory_it_quotes(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(18) for message in added]
    context.prepare(messages)
    messages.append({"role": "user", "content": "?"})
    first = context.prepare(messages, question=report(0, 60).splitlines()[-3])
    assert first.note
    memory.forget(where={"session": first.session})
    (left,) = memory.file.read("SELECT count(*) FROM blocks")
    assert left[0] == 0
    assert first.note not in json.dumps(context.prepare(messages).messages)
