"""Notes: what is brought back to the newest message, once, and the same ever after."""

from __future__ import annotations

import json
from typing import Any

import pytest
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


def test_a_note_is_made_from_the_given_texts_alone(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model must not answer from texts of a conversation that happens to have the same name."""
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(18) for message in added]
    session = context.prepare(messages).session
    messages.append({"role": "user", "content": "Which line of which file raised for case 0?"})
    question = report(0, 60).splitlines()[-3]
    wheres: list[Any] = []
    recall = memory.recall

    def watched(query: str, k: int, where: Any, **options: Any) -> Any:
        wheres.append(where)
        return recall(query, k, where, **options)

    monkeypatch.setattr(memory, "recall", watched)
    every = context.observe(messages, session)
    lost = next(handle for handle in every if memory.original(handle) == report(0, 60))
    own = [handle for handle in every if handle != lost]
    assert context.prepare(messages, question=question, among=own).note != ""
    assert wheres and all(where["handle"] == own for where in wheres)
    told = context.prepare([*messages[:-1], {"role": "user", "content": "x"}], question=question)
    assert told.note and f"[{lost}: " in told.note  # which the other one had not been given
    assert f"[{lost}: " not in str(context.prepare(messages, question=question).note)
