"""What is sent is taken by every template that takes the client's own messages."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from chat_templates import TEMPLATES, Counters, takes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sizes import sized
from trajectories import call, report

from clara_mlx.context import Budget, Context, ContextOverflow
from clara_mlx.context.fold_form import ANSWER, AS_USER, CALLED, FORMS
from clara_mlx.context.folds import FOLDED
from clara_mlx.context.instructions import place_instructions
from clara_mlx.context.messages import Message, content_text
from clara_mlx.memory import Memory

WINDOW = 2_500

#: Those that refuse most; the nightly run takes all.
CHOSEN = sized(("mistral-v0.3", "gemma", "qwen3.6", "gpt-oss"), tuple(TEMPLATES))


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> Counters:
    return Counters(tmp_path_factory.mktemp("templates"))


def rounds(number: int, calls: int, said: str = "", lines: int = 6) -> list[Message]:
    """A message with calls, and their results; ids are such as Mistral's templates want."""
    ids = [f"c{number:05}{i:03}" for i in range(calls)]
    return [
        {
            "role": "assistant",
            "content": said,
            "tool_calls": [call(id, "bash", command=f"pytest -k {id}") for id in ids],
        },
        *(
            {"role": "tool", "tool_call_id": id, "content": report(number + i, lines)}
            for i, id in enumerate(ids)
        ),
    ]


def tool_turn(number: int, lines: int = 6) -> list[Message]:
    """A user's message, a call, its result and a final answer."""
    asked = {"role": "user", "content": f"Do {number}."}
    return [asked, *rounds(number, 1, lines=lines), {"role": "assistant", "content": "Done."}]


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Message]]:
    """What each request of a conversation adds, of one of several kinds."""
    kind = draw(st.sampled_from(["plain", "tools", "work", "system", "users", "odd"]))
    steps: list[list[Message]] = []
    waiting: list[Message] = [{"role": "system", "content": "Rules."}] * draw(st.integers(0, 1))
    for number in range(draw(st.integers(3, 8))):
        text = draw(st.sampled_from(["Go on.", report(number, 3), report(number, 12)]))
        waiting.append({"role": "user", "content": text})
        if kind in ("users", "odd") and draw(st.booleans()):
            waiting.append({"role": "user", "content": f"And note {number}."})
        if kind in ("system", "odd") and draw(st.booleans()):
            waiting.append({"role": "system", "content": f"Reminder {number}."})
        steps.append(waiting)
        waiting = []
        for turn in range(0 if kind == "plain" else draw(st.integers(0, 5))):
            said = draw(st.sampled_from(["", "<think>Hm.</think>Now the tests.", "Thoughts only."]))
            waiting += rounds(100 * number + 10 * turn, draw(st.integers(1, 3)), said)
            if kind in ("system", "odd") and draw(st.integers(0, 3)) == 0:
                waiting.append({"role": "system", "content": f"Reminder {number}.{turn}."})
            steps.append(waiting)
            waiting = []
        if kind != "odd" or draw(st.booleans()):
            answer = draw(st.sampled_from(["Done.", "<think>So</think>It is done.", report(7, 9)]))
            waiting.append({"role": "assistant", "content": answer})
        if kind in ("system", "odd") and draw(st.integers(0, 3)) == 0:
            waiting.append({"role": "system", "content": f"Reminder after {number}."})
    return steps


@settings(
    max_examples=sized(4, 400),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=conversations(), keep=st.integers(1, 3), data=st.data())
def test_every_template_takes_what_is_sent(
    by_name: Counters, steps: list[list[Message]], keep: int, data: st.DataObject
) -> None:
    """With the reasoner's own template, and without knowing any, which must do for all."""
    name = data.draw(st.sampled_from([None, *CHOSEN]))
    counter = by_name[name] if name else None
    asked = [name] if name else CHOSEN
    budget = Budget(WINDOW, 300, keep=keep)
    messages: list[Message] = []
    with tempfile.TemporaryDirectory() as folder, Memory.open(Path(folder) / "m.db") as memory:
        context = Context(memory, counter, budget)
        for added in steps:
            messages += added
            try:
                sent = context.prepare(messages).messages
            except ContextOverflow:
                continue
            if sent == messages:
                continue
            for one in asked:
                assert takes(by_name[one], sent) or not takes(by_name[one], messages), one


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sized(("mistral-v0.3", "gemma", None), (*TEMPLATES, None)))
def test_a_fold_in_a_form_that_is_refused_is_sent_in_another(
    by_name: Counters, memory: Memory, name: str | None, form: str
) -> None:
    """One that an earlier version, or another reasoner, has left in the memory's file."""
    plain = name in ("mistral-v0.1", "gemma", "deepseek-v3", "phi-3.5")  # which take no calls
    counter = by_name[name or "mistral-v0.3"]
    messages: list[Message] = []
    for number in range(16):
        turn = tool_turn(number)
        messages += [turn[0], {**turn[-1], "content": report(number, 6)}] if plain else turn
    asked = [*messages, {"role": "user", "content": "And now?"}]
    budget = Budget(WINDOW, 300)
    sent = Context(memory, counter if name else None, budget).prepare(asked).messages
    assert any(FOLDED in content_text(one) for one in sent) and takes(counter, sent)
    with memory.file.write() as connection:
        for fold in (ANSWER, CALLED, AS_USER):
            connection.execute(
                "UPDATE edits SET part = ? || substr(part, instr(part, '.')) WHERE part LIKE ?",
                (form, f"{fold}.%"),
            )
    for _ in range(2):  # also after one more restart
        context = Context(memory, counter if name else None, budget)
        again = context.prepare(asked)
        assert takes(counter, again.messages)
        assert again.messages == context.prepare(asked).messages
        assert context.rebuild(again.messages) == asked


@pytest.mark.parametrize("name", ["gpt-oss", None])
def test_tags_that_a_tool_printed_refuse_no_fold(
    by_name: Counters, memory: Memory, name: str | None
) -> None:
    """Nor do they cut one: Qwen3 shows what follows an assistant's last ``</think>``."""
    tags = "<|channel|>analysis<|message|> and <|channel|>final<|message|> </think>"
    messages: list[Message] = []
    for number in range(30):
        messages += tool_turn(number)
        messages[-2]["content"] = f"{number} {tags}"
    messages.append({"role": "user", "content": "And now?"})
    counter = by_name[name] if name else None
    sent = Context(memory, counter, Budget(2_200, 300)).prepare(messages).messages
    fold = next(one for one in sent if FOLDED in content_text(one))
    assert "</think>" not in content_text(fold)
    assert takes(by_name["gpt-oss"], messages) and takes(by_name["gpt-oss"], sent)


def test_what_a_template_refuses_of_a_client_is_left_to_the_server(
    by_name: Counters, memory: Memory
) -> None:
    messages = [one for number in range(30) for one in tool_turn(number)]
    messages += [{"role": "assistant", "content": "Once more."}]
    counter = by_name["mistral-v0.3"]
    prepared = Context(memory, counter, Budget(WINDOW, 300)).prepare(messages)
    assert not takes(counter, messages) and not prepared.exact
    assert prepared.tokens <= WINDOW - 300


def place(*roles: str) -> list[str]:
    """Roles after late instructions were placed, with the texts."""
    messages: list[dict[str, Any]] = [
        {"role": role, "content": role[0] + str(i)} for i, role in enumerate(roles)
    ]
    before = json.dumps(messages)
    placed = place_instructions(messages, alternating=True)
    assert json.dumps(messages) == before
    return [f"{one['role']}: {one['content']}" for one in placed]


def test_late_instructions_keep_roles_alternating() -> None:
    s, u, a, t = "system", "user", "assistant", "tool"
    assert place(s, u, a) == ["system: s0", "user: u1", "assistant: a2"]
    assert place(u, s, a) == ["user: u0\n\ns1", "assistant: a2"]
    assert place(u, a, s, u) == ["user: u0", "assistant: a1", "user: s2\n\nu3"]
    assert place(u, a, s, s, a) == ["user: u0", "assistant: a1", "user: s2\n\ns3", "assistant: a4"]
    assert place(u, a, t, s, a)[2:] == ["tool: t2\n\n[system message]\ns3", "assistant: a4"]
    assert place(u, a, t, s)[2:] == ["tool: t2\n\n[system message]\ns3"]
    lenient = place_instructions(
        [{"role": one, "content": ""} for one in (u, s)], alternating=False
    )
    assert [one["role"] for one in lenient] == [u, u]


def test_late_instructions_in_lists_of_parts() -> None:
    part = [{"type": "text", "text": "look"}]
    system, user = {"role": "system", "content": "s"}, {"role": "user", "content": part}
    first, second = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
    (_, _, last) = place_instructions([first, second, system, user], alternating=True)
    assert last["content"] == [{"type": "text", "text": "s\n\n"}, *part]
    (joined,) = place_instructions([user, system], alternating=True)
    assert joined["content"] == [*part, {"type": "text", "text": "\n\ns"}]
