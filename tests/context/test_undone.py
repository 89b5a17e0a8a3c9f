"""A compaction is undone: the conversation is sent as it came, until it would not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trajectories import requests, start, step, trajectory

from clara_mlx.context import Budget, Context
from clara_mlx.context.folds import FOLDED
from clara_mlx.context.undone import UnknownSession
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

SMALL = Budget(window=9_000, reserve=500, keep=2, trigger=0.6, target=0.3)
LARGE = Budget(window=900_000, reserve=500)


def conversation(steps: int, lines: int = 20) -> list[Any]:
    return [message for added in trajectory(steps, lines) for message in added]


@pytest.mark.parametrize("by_another", [False, True])
def test_the_next_request_is_as_it_came(tmp_path: Path, by_another: bool) -> None:
    """Also if another process undoes it, and notes and what the memory's tools gave go, too."""
    path = tmp_path / "memory.db"
    with Memory.open(path) as memory:
        context = Context(memory, budget=SMALL)
        steps = [*trajectory(12, 20), step(12, ["expanded\n" + "line of old text\n" * 40])]
        steps[-1][0]["tool_calls"][0]["function"] = {
            "name": "expand",
            "arguments": json.dumps({"handle": "m-0123456789ab"}),
        }
        steps += [trajectory(4, 20, seed=40)[n] for n in range(1, 5)]
        messages = [message for added in steps for message in added]
        sent = requests(context, steps, session="s")[-1]
        asked = [*messages, {"role": "user", "content": "Which socket failed in the ledger?"}]
        noted = context.prepare(asked, session="s", question="socket ledger test failed")
        assert sent.messages != messages and noted.messages != asked
        if by_another:
            with Memory.open(path) as other:
                undone = Context(other).undo_session("s")
        else:
            undone = context.undo_session("s")
        assert undone > 2
        for budget in (LARGE, SMALL):
            again = context.prepare(asked, session="s", budget=budget)
            if again.exchange is None:
                assert again.messages == asked
        assert Context(memory, budget=LARGE).prepare(asked, session="s").tokens > 0
        for handle in sent.compacted:
            memory.original(handle)
        assert context.rebuild(sent.messages) == messages


def test_it_is_compacted_again_only_if_it_would_not_fit(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    messages = conversation(17)
    first = context.prepare(messages, session="s")
    assert first.exchange
    whole = first.exchange.before
    assert SMALL.trigger * SMALL.limit < whole <= SMALL.limit
    context.undo_session("s")
    again = context.prepare(messages, session="s")
    assert again.messages == messages and again.reason == "not asked for"
    messages += [*step(90, [f"{n} other words\n" * 600 for n in range(2)])]
    assert context.prepare(messages, session="s").tokens <= SMALL.limit


def test_it_is_then_compacted_in_place_if_that_is_enough(memory: Memory) -> None:
    context = Context(memory, budget=Budget(window=9_000, reserve=500, keep=2))
    messages = conversation(24, 60)
    folded = context.prepare(messages, session="s").messages
    assert any(FOLDED in str(message["content"]) for message in folded)
    context.undo_session("s")
    in_place = context.prepare(messages, session="s")
    assert len(in_place.messages) == len(messages) and in_place.tokens <= 8_500
    messages += conversation(90)[2:]
    assert context.prepare(messages, session="s").tokens <= 8_500, "a fold, if nothing else does"


def test_only_that_conversation_is_undone(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    messages = conversation(20)
    for session in ("a", "b"):
        context.prepare(messages, session=session)
    before = context.prepare(messages, session="b").messages
    hidden = [*start()[1:], {"role": "assistant", "content": "seen"}]
    context.hidden_rounds.keep(hidden[:1], hidden[1], hidden, "a")
    assert context.undo_session("a") > 0
    assert context.prepare(messages, session="b").messages == before
    assert context.hidden_rounds.put_back(hidden, "a") == [hidden[0], *hidden]
    assert context.undo_session("a") == 0
    with pytest.raises(UnknownSession, match="nothing of a conversation named 'c'") as error:
        context.undo_session("c")
    assert isinstance(error.value, ClaraError)
