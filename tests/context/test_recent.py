"""What is known of a conversation saves work and changes nothing."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sizes import sized
from trajectories import SMALL, call, report, start, step, trajectory

import clara_mlx.context.messages
from clara_mlx.context import Context, ContextOverflow, Estimate, Prepared
from clara_mlx.context.messages import Message, chains
from clara_mlx.context.recent import Recent
from clara_mlx.context.table import Edit
from clara_mlx.memory import Memory

# Requests of one random history; each changes one of a few conversations and sends it.
REQUESTS = sized(32, 300)


class Clients:
    """Conversations that grow, go back, are edited, and go on beside each other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = 0
        # Two of one name and with the same first messages, and one of another name.
        self._conversations: list[tuple[str, list[Message]]] = [
            ("one", start()),
            ("one", start()),
            ("two", start("Something else.")),
        ]

    def next(self) -> tuple[str, list[Message]]:
        """A conversation as its client sends it next, parsed anew, and its name."""
        name, messages = self._random.choice(self._conversations)
        act = self._random.random()
        if act < 0.08:
            del messages[self._random.randrange(2, len(messages) + 1) :]
        elif act < 0.16 and len(messages) > 4:
            index = self._random.randrange(2, len(messages))
            messages[index] = {**messages[index], "content": f"edited {self._random.random()}"}
        elif act < 0.24:
            messages[0] = {**messages[0], "content": f"It is {self._random.random()}."}
        elif act < 0.3:
            messages.append({"role": "user", "content": f"And {self._random.random()}?"})
        elif act < 0.35:
            messages.append({"role": "system", "content": "Remember the rules."})
        elif act < 0.4 and len(messages) > 2:
            messages[-1] = {**messages[-1], "reasoning_content": "That says nothing."}
        for _ in range(self._random.randrange(3)):
            self._number += 1
            messages += self._step()
        return name, json.loads(json.dumps(messages))

    def _step(self) -> list[Message]:
        outputs = [
            report(self._number, self._random.choice((2, 60)))
            for _ in range(self._random.choice((1, 1, 2)))
        ]
        made = step(self._number, outputs)
        if self._random.random() < 0.2:  # arguments that are parsed, with numbers that are equal
            odd = call("odd", "bash")
            odd["function"]["arguments"] = {"n": self._random.choice((1, True, 1.0))}
            made[0]["tool_calls"][0] = {**odd, "id": made[1]["tool_call_id"]}
        if self._random.random() < 0.2:
            made += [{"role": "assistant", "content": report(-self._number, 20)}]
        return made


def send(context: Context, name: str, messages: list[Message], **given: Any) -> Any:
    """Everything that a request gives, so that it can be compared."""
    try:
        prepared: Prepared = context.prepare(messages, session=name, **given)
    except ContextOverflow as error:
        return error.tokens
    return [json.dumps(prepared.messages), replace(prepared, messages=[])]


@pytest.mark.parametrize("seed", range(sized(2, 12)))
def test_what_is_known_changes_nothing(seed: int, tmp_path: Path) -> None:
    """One process sends all requests; for others, every request is the first after a restart."""
    clients = Clients(seed)
    chance = random.Random(seed)
    with Memory.open(tmp_path / "a.db") as known, Memory.open(tmp_path / "b.db") as fresh:
        context = Context(known, budget=SMALL)
        other = Context(known, budget=SMALL)  # has the same file, as another process would
        compactions = 0
        for _ in range(REQUESTS):
            name, messages = clients.next()
            here = other if chance.random() < 0.2 else context
            there = Context(fresh, budget=SMALL)
            if chance.random() < 0.7:
                assert here.observe(messages, name) == there.observe(messages, name)
            if chance.random() < 0.5:
                here.draft_blocks(name)
            if chance.random() < 0.05:
                assert here.undo(messages, name) == there.undo(messages, name)
            if chance.random() < 0.1:
                ends = chains(messages, name)
                assert here.handles_of_blocks(ends) == there.handles_of_blocks(ends)
            given = {"compact": chance.choice(("auto", "auto", "auto", "now", "never"))}
            before = copy.deepcopy(messages)
            sent = send(here, name, messages, **given)
            assert sent == send(there, name, messages, **given)
            assert messages == before
            compactions += isinstance(sent, list) and bool(sent[1].compacted)
        assert compactions > 1


def test_forgetting_is_noticed(memory: Memory, tmp_path: Path) -> None:
    """Also if another process forgets: no block of what is gone is sent any more."""
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(20) for message in added]
    compacted = context.prepare(messages, session="s").compacted
    assert len(compacted) > 2
    with Memory.open(tmp_path / "memory.db") as other:
        other.forget(compacted[0])
    sent = json.dumps(context.prepare(messages, session="s", compact="never").messages)
    assert compacted[0] not in sent
    memory.forget(compacted[1])
    sent = json.dumps(context.prepare(messages, session="s", compact="never").messages)
    assert compacted[1] not in sent
    assert not set(compacted[:2]).intersection(context.observe(messages, "s"))


def test_edits_of_another_process_are_sent(memory: Memory) -> None:
    here, there = Context(memory, budget=SMALL), Context(memory, budget=SMALL)
    messages = [message for added in trajectory(8) for message in added]
    whole = here.prepare(messages, session="s", compact="never").messages
    shorter = there.prepare(messages, session="s", compact="now").messages
    assert whole == messages != shorter
    assert here.prepare(messages, session="s").messages == shorter


def test_a_caller_may_change_what_it_gave_and_got(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(20) for message in added]
    once = context.prepare(messages, session="s").messages
    kept = copy.deepcopy(once)
    for message in (*messages, *once):
        message["content"] = "changed"
    messages = [message for added in trajectory(20) for message in added]
    assert context.prepare(messages, session="s").messages == kept


def test_true_is_not_one(memory: Memory) -> None:
    """Python takes them for equal; to a reasoner they are two different calls."""
    recent: Recent[None] = Recent()

    def conversation(value: Any) -> list[Message]:
        odd = call("c", "f")
        odd["function"]["arguments"] = {"x": value}
        return [*start(), {"role": "assistant", "content": "", "tool_calls": [odd]}]

    for value in (1, True, 1.0, 1):
        known = recent.look(conversation(value), "s")
        recent.keep(known, None)
        assert list(known.chains) == chains(conversation(value), "s")


def test_conversations_of_one_name_are_known_beside_each_other() -> None:
    recent: Recent[str] = Recent()
    for name in ("a", "b"):
        messages = [*start(), *step(1, [name]), *step(2, [name])]
        recent.keep(recent.look(messages, "s"), name)
    for name in ("a", "b"):
        messages = [*start(), *step(1, [name]), *step(2, [name]), *step(3, [name])]
        known = recent.look(messages, "s")
        assert (known.found, known.same) == (name, 6)
    assert recent.look(start(), "another").found is None


# -- growth --------------------------------------------------------------------------------------


class Work:
    """What requests cost, in things done with messages and texts, whatever the machine."""

    def __init__(self, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hashed = self.counted = self.rows = self.asked = 0
        canonical = clara_mlx.context.messages._canonical_bytes
        read = memory.file.read
        estimate = Estimate.text

        def hash_it(message: Message) -> bytes:
            self.hashed += 1
            return canonical(message)

        def read_rows(sql: str, parameters: Any = ()) -> list[Any]:
            found = read(sql, parameters)
            self.rows += len(found)
            self.asked += sum(len(one) for one in parameters if isinstance(one, (str, bytes)))
            return found

        def count_it(counter: Estimate, text: str) -> int:
            self.counted += len(text)
            return estimate(counter, text)

        monkeypatch.setattr(clara_mlx.context.messages, "_canonical_bytes", hash_it)
        monkeypatch.setattr(memory.file, "read", read_rows)
        monkeypatch.setattr(Estimate, "text", count_it)

    def take(self) -> tuple[int, int, int, int]:
        """What was done since this was asked last."""
        done = self.hashed, self.counted, self.rows, self.asked
        self.hashed = self.counted = self.rows = self.asked = 0
        return done


def test_the_work_of_a_request_does_not_grow_with_the_history(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(memory, budget=replace(SMALL, window=5_000))
    work = Work(memory, monkeypatch)
    messages: list[Message] = []
    done: list[tuple[int, int, int, int]] = []
    compacted: list[bool] = []
    for added in trajectory(sized(72, 400), lines=12):
        messages += added
        given = json.loads(json.dumps(messages))
        work.take()
        context.observe(given)
        compacted.append(bool(context.prepare(given).compacted))
        done.append(work.take())
    quarter = len(done) // 4
    early, late = slice(quarter, 2 * quarter), slice(-quarter, None)
    assert sum(compacted[early]) > 1 and sum(compacted[late]) > 1
    for figure in range(4):
        most = max(one[figure] for one in done[early])
        assert max(one[figure] for one in done[late]) <= 1.25 * most, figure


def test_only_what_is_sent_is_compared_with_the_file(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(40) for message in added]
    context.prepare(messages)
    read: list[list[Edit]] = []
    edits = context.freezer.table.edits

    def read_edits(ends: Any) -> list[Edit]:
        read.append(edits(ends))
        return read[-1]

    monkeypatch.setattr(context.freezer.table, "edits", read_edits)
    context.prepare([*messages, *step(41, ["short"])])
    assert read and not any(read)
