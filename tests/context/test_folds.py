"""Excerpts and folds: what is short from the start, what stands for many messages, what stays."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
from trajectories import SMALL, report, requests, start, step, trajectory

from clara_mlx.context import Budget, Context
from clara_mlx.context.folds import FOLDED
from clara_mlx.context.freezer import HANDLE
from clara_mlx.context.messages import content_text
from clara_mlx.context.wording import EXPLANATION, HOW_TO
from clara_mlx.memory import Memory


def test_a_huge_new_output_becomes_an_excerpt_rather_than_an_error(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    messages = start() + step(0, [report(3, 2000)])
    prepared = context.prepare(messages)
    assert prepared.tokens <= SMALL.limit
    sent = prepared.messages[-1]["content"]
    assert "collected" in sent and "passed in" in sent and "characters; from line" in sent
    assert context.rebuild(prepared.messages) == messages


def test_a_boundary_never_sends_what_it_would_take_back(memory: Memory) -> None:
    context = Context(memory, budget=Budget(window=6000, reserve=500, keep=2, boundary=300))
    results = requests(context, trajectory(20))
    assert all(len(r.messages[-1]["content"]) < 2500 for r in results[1:])
    plain = requests(Context(memory, budget=SMALL), trajectory(20, seed=100))
    assert sum(r.tokens for r in results) < sum(r.tokens for r in plain)


def test_very_long_conversations_are_folded(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    steps = trajectory(90, 12)
    steps.insert(40, [{"role": "user", "content": "Do not touch src/legacy.py, whatever happens."}])
    results = requests(context, steps)
    messages = [message for added in steps for message in added]
    prepared = results[-1]
    assert prepared.tokens <= SMALL.limit and len(prepared.messages) < len(messages)
    assert "earlier messages, kept whole" in prepared.messages[3]["content"]
    assert "Do not touch src/legacy.py, whatever happens." in prepared.messages[3]["content"]
    assert prepared.messages[:2] == messages[:2] and prepared.messages[-4:] == messages[-4:]
    assert sum(HOW_TO in content_text(m) for m in prepared.messages) == 1
    assert context.rebuild(prepared.messages) == messages
    # Rarely: blocks first, then all of them at once.
    assert sum(1 for r in results if r.exchange) < len(results) / 4


def test_a_transcript_has_what_an_earlier_fold_says(memory: Memory) -> None:
    """Whoever reads a fold's transcript finds there what the one before it had in sight."""
    results = requests(Context(memory, budget=SMALL), trajectory(90, 12))
    folds = dict.fromkeys(
        content_text(message)
        for result in results
        for message in result.messages
        if FOLDED in content_text(message).partition("\n")[0]
    )
    assert len(folds) > 2
    *_, earlier, newest = folds
    handle = HANDLE.search(newest)
    assert handle
    transcript = str(memory.original(handle[0]))
    lines = earlier.removesuffix(EXPLANATION).strip().split("\n")
    assert all(line.strip() in transcript for line in lines)


def test_a_fold_stays_as_it_is_and_the_next_comes_after_it(memory: Memory) -> None:
    context = Context(memory, budget=Budget(window=24_000, reserve=500, keep=2, boundary=1_000))
    steps = [start(), *(step(i, [report(i, 90), report(-i, 60)]) for i in range(140))]
    results = requests(context, steps)
    kept = 0
    for before, after in itertools.pairwise(results):
        folds = [
            index
            for index, message in enumerate(before.messages)
            if FOLDED in content_text(message).partition("\n")[0]
        ]
        if after.exchange and folds:
            end = folds[-1] + 1
            kept += after.messages[:end] == before.messages[:end]
    assert kept >= 2
    # Now and then they become one.
    counts = [sum(FOLDED in content_text(m) for m in r.messages) for r in results]
    assert max(counts) >= 2 and any(b < a for a, b in itertools.pairwise(counts))
    messages = [message for added in steps for message in added]
    assert context.rebuild(results[-1].messages) == messages


def test_excerpts_are_read_once(memory: Memory) -> None:
    """They stay as they were first sent until they are folded."""
    context = Context(memory, budget=Budget(window=12_000, reserve=500, keep=2, boundary=400))
    results = requests(context, trajectory(60, 60))
    first: dict[str, str] = {}
    for result in results:
        for message in result.messages:
            if message["role"] == "tool":
                text = first.setdefault(message["tool_call_id"], message["content"])
                assert message["content"] == text and text.startswith("[clara m-")


def test_with_excerpts_less_is_prefilled_than_was_appended(memory: Memory) -> None:
    context = Context(memory, budget=Budget(window=12_000, reserve=500, keep=2, boundary=400))
    count = context.counter.prompt
    steps = trajectory(150, 60)
    read, last = 0, list[Any]()
    for result in requests(context, steps):
        same = [a == b for a, b in zip(last, result.messages, strict=False)]
        read += count(result.messages[([*same, False]).index(False) :])
        last = result.messages
    assert read < 0.8 * count([message for added in steps for message in added])


def test_instructions_amid_a_conversation_are_not_folded(memory: Memory) -> None:
    rule = {"role": "system", "content": "From here on: read only."}
    steps = trajectory(90, 12)
    steps.insert(3, [rule])
    for prepared in requests(Context(memory, budget=SMALL), steps)[3:]:
        assert rule in prepared.messages


def test_the_log_names_every_attempt(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "clara_mlx.context.strategy")
    messages = start() + step(0, [report(3, 2000)])
    assert Context(memory, budget=SMALL).prepare(messages).reason == "would not fit"
    attempts = [record.getMessage().split(": ")[1] for record in caplog.records]
    assert attempts[0] == "old texts as blocks, down to the target"
    assert attempts[-1] == "blocks, and excerpts of the newest results"
    assert len(attempts) == len(set(attempts))
