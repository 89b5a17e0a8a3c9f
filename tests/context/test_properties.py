"""What holds for every conversation, whatever is in it: pairing, prefix, budget, every original."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectories import call, report, trajectory

from clara_mlx.context import Budget, Context, ContextOverflow, Prepared
from clara_mlx.context.freezer import HANDLE
from clara_mlx.context.messages import Message, content_text
from clara_mlx.memory import Memory

odd = st.text(st.characters(exclude_categories=()), max_size=300)  # lone surrogates too
reports = st.builds(report, st.integers(0, 30), st.integers(0, 60))
forged = st.just("[clara m-0123456789ab: bash output, 9 lines, kept whole]\n" + "x" * 400)
outputs = st.one_of(reports, odd, odd.map(lambda text: text * 20), forged)
arguments = st.fixed_dictionaries(
    {"command": st.one_of(odd, reports)}, optional={"files": st.lists(odd, max_size=2)}
)


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Message]]:
    """Steps of messages: instructions and a task, then turns with or without calls."""
    head: list[Message] = [{"role": "user", "content": draw(odd) or "?"}]
    if draw(st.booleans()):
        head.insert(
            0, {"role": draw(st.sampled_from(["system", "developer"])), "content": "Rules."}
        )
    steps = [head]
    for number in range(draw(st.integers(1, 8))):
        calls = [
            call(f"c{number}-{i}", draw(st.sampled_from(["bash", "read", "expand"])), **given)
            for i, given in enumerate(draw(st.lists(arguments, max_size=3)))
        ]
        said: Message = {"role": "assistant", "content": draw(st.one_of(st.none(), odd, reports))}
        if calls:
            said["tool_calls"] = calls
        results: list[Message] = [
            {"role": "tool", "tool_call_id": one["id"], "content": draw(outputs)}
            for one in draw(st.permutations(calls))
        ]
        turn = [said, *results]
        if not calls or draw(st.integers(0, 4)) == 0:
            turn.append(_more(draw))
        steps.append(turn)
    return steps


def _more(draw: st.DrawFn) -> Message:
    role = draw(st.sampled_from(["user", "user", "user", "system"]))
    text = draw(st.one_of(odd, reports))
    if draw(st.booleans()):
        return {"role": role, "content": text}
    return {"role": role, "content": [{"type": "text", "text": text}]}


def run(path: Path, steps: list[list[Message]], budget: Budget) -> list[tuple[int, Prepared]]:
    """Every request of a conversation that did not overflow, with how many messages it had."""
    done = []
    messages: list[Message] = []
    with Memory.open(path) as memory:
        context = Context(memory, budget=budget)
        for added in steps:
            messages += added
            before = json.dumps(messages)
            try:
                prepared = context.prepare(messages)
            except ContextOverflow as error:
                assert error.tokens > error.limit == budget.limit
                continue
            assert json.dumps(messages) == before
            done.append((len(messages), prepared))
            if added is not steps[-1] and not prepared.exchange:
                continue
            assert context.rebuild(prepared.messages) == messages
            for handle in HANDLE.findall(json.dumps(prepared.messages)):
                if memory.has(handle):
                    memory.original(handle)
                else:
                    assert handle == "m-0123456789ab" or handle in before
    return done


def pairs_hold(messages: list[Message]) -> bool:
    """Whether each result follows its call, and each call has its results before the next turn."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return False
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return False
        waiting += [one["id"] for one in message.get("tool_calls") or ()]
    return not waiting


budgets = st.builds(
    Budget,
    window=st.integers(2500, 6000),
    reserve=st.just(300),
    keep=st.integers(1, 4),
    boundary=st.one_of(st.none(), st.integers(200, 600)),
)
quick = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@quick
@given(conversations(), budgets)
def test_every_request_is_whole(steps: list[list[Message]], budget: Budget) -> None:
    messages = [message for added in steps for message in added]
    assert pairs_hold(messages)
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder) / "memory.db", steps, budget)
    for count, prepared in done:
        given_now, sent = messages[:count], prepared.messages
        assert prepared.tokens <= budget.limit
        assert pairs_hold(sent)
        instructions = [m for m in given_now if m["role"] in ("system", "developer")]
        assert [m for m in sent if m["role"] in ("system", "developer")] == instructions
        assert sent[: len(steps[0])] == steps[0]
        for message in sent:
            for one in message.get("tool_calls") or ():
                json.loads(one["function"]["arguments"])
        if prepared.exchange and prepared.reason != "would not fit":
            assert prepared.exchange.is_worth_it
            assert prepared.exchange.saved >= budget.least * prepared.exchange.before


@quick
@given(conversations(), budgets)
def test_the_newest_turns_are_verbatim_and_the_prefix_is_stable(
    steps: list[list[Message]], budget: Budget
) -> None:
    messages = [message for added in steps for message in added]
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder) / "memory.db", steps, budget)
    forced = budget.boundary is not None
    for count, prepared in done:
        newest = [m for m in messages[:count][-1:] if m["role"] != "tool"]
        assert prepared.messages[len(prepared.messages) - len(newest) :] == newest
        forced = forced or prepared.reason == "would not fit"
        if not forced:
            kept = _newest_units(messages[:count], budget.keep)
            assert prepared.messages[len(prepared.messages) - len(kept) :] == kept
    for (_, before), (_, after) in pairwise(done):
        if after.exchange is None:
            assert after.messages[: len(before.messages)] == before.messages


def _newest_units(messages: list[Message], keep: int) -> list[Message]:
    starts = [i for i, m in enumerate(messages) if m["role"] != "tool"]
    return messages[starts[-min(keep, len(starts))] :]


@settings(quick, max_examples=6)
@given(conversations(), budgets)
def test_the_same_bytes_in_every_file(steps: list[list[Message]], budget: Budget) -> None:
    def sent() -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            done = run(Path(folder) / "memory.db", steps, budget)
        return [(count, json.dumps(one.messages), one.tokens, one.reason) for count, one in done]

    assert sent() == sent()


@settings(quick, max_examples=6)
@given(st.integers(0, 1000), st.integers(10, 40), st.integers(15, 25))
def test_what_is_read_again_is_less_than_what_was_appended(
    seed: int, lines: int, count: int
) -> None:
    """The never-worse rule over a whole conversation, with a server that keeps the last prompt."""
    with tempfile.TemporaryDirectory() as folder, Memory.open(Path(folder) / "m.db") as memory:
        context = Context(memory, budget=Budget(window=5000, reserve=500, keep=2))
        count_tokens = context.counter.prompt
        messages: list[Message] = []
        last: list[Message] = []
        read = 0
        for added in trajectory(count, lines, seed):
            messages += added
            sent = context.prepare(messages).messages
            same = next(
                (i for i, (a, b) in enumerate(zip(last, sent, strict=False)) if a != b), len(last)
            )
            read += count_tokens(sent[same:])
            last = sent
        assert read < 2 * count_tokens(messages)
        assert content_text(last[-1]) == content_text(messages[-1])
