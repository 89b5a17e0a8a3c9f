"""A conversation sees what it has had, and nothing of one that only began like it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Upstream, gateway, says
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import sized
from starlette.datastructures import Headers

from clara_mlx.context.messages import message_digest
from clara_mlx.serve.callers import IDENTIFIERS, Name, is_random, name_conversation, read_caller
from clara_mlx.serve.conversations import Courses, landmarks, proof
from clara_mlx.serve.errors import ApiError

Message = dict[str, Any]
OPENING: Message = {"role": "user", "content": "Hello, please fix the failing test."}


class Client:
    """A client and the gateway's answers to it; each message brings one handle, its digest."""

    def __init__(self, courses: Courses, random: random.Random) -> None:
        self.courses = courses
        self.random = random
        self.messages: list[Message] = [OPENING]
        self.states: list[list[Message]] = []  # what the client could go back to
        self.had: set[str] = set()  # handles of all that was ever sent, or came as an answer
        self.past: dict[str, set[str]] = {}  # by the handle of an answer, what came before it

    def ask(self, text: str = "") -> set[str]:
        """Send the conversation and take the answer; gives the handles that were seen."""
        course = self.courses.follow(
            "c-1", landmarks(self.messages), lambda new: [(handle(self.messages[i]),) for i in new]
        )
        answer = self.answer(text)
        self.courses.add_answer("c-1", course, answer, [handle(answer)])
        self.had |= handles([*self.messages, answer])
        self.past[handle(answer)] = handles([*self.messages, answer]).union(
            *(self.past.get(handle(m), ()) for m in self.messages)
        )
        self.messages = [*self.messages, answer]
        return set(course.handles)

    def answer(self, text: str) -> Message:
        id = f"call_{self.random.getrandbits(96):024x}1"
        call = {"id": id, "type": "function", "function": {"name": "run", "arguments": "{}"}}
        return {"role": "assistant", "content": text, "tool_calls": [call]}

    def result(self, text: str) -> None:
        id = self.messages[-1]["tool_calls"][0]["id"]
        self.messages.append({"role": "tool", "tool_call_id": id, "content": text})


class Numbered(Client):
    """A client whose server numbers the calls, so that ids prove nothing."""

    def answer(self, text: str) -> Message:
        call = {"id": "call_0", "type": "function", "function": {"name": "run", "arguments": "{}"}}
        return {"role": "assistant", "content": text, "tool_calls": [call]}


def handle(message: Message) -> str:
    return message_digest(message).hex()


def handles(messages: list[Message]) -> set[str]:
    return {handle(message) for message in messages}


#: What clients do between two requests. Short texts are drawn from few, so that conversations that
#: have nothing to do with each other say the same.
SHORT = st.sampled_from(["ok", "yes", "go on", "OK\n1 passed\n"])
ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["go on", "retry", "edit", "drop the middle", "clear a result", "secret", "go back"]
        ),
        SHORT,
        st.integers(0, 10**6),
    ),
    max_size=14,
)


def do(client: Client, act: str, text: str, number: int) -> set[str]:
    """One act and the request after it; gives what was seen."""
    messages = client.messages
    client.states.append(messages)
    if act == "go back":  # to another branch, perhaps
        messages = client.messages = client.states[number % len(client.states)]
    if act == "retry" and len(messages) > 1:
        client.messages = messages[:-1]
        return client.ask(text)
    if act == "edit" and len(messages) > 3:
        client.messages = messages[:-2]
    elif act == "drop the middle" and len(messages) > 4:
        # The first message stays, and at least one answer with its result.
        answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        client.messages = [messages[0], *messages[answers[number % len(answers)] :]]
    elif act == "clear a result":
        results = [i for i, m in enumerate(messages) if m["role"] == "tool"]
        if results:
            client.messages = list(messages)
            cleared = {**messages[results[0]], "content": "[old result cleared]"}
            client.messages[results[0]] = cleared
    if client.messages[-1]["role"] == "assistant":
        client.result(f"secret {client.random.getrandbits(64)}" if act == "secret" else text)
    return client.ask(text)


@given(ACTS)
@settings(max_examples=sized(200, 5000), deadline=None)
def test_a_conversation_that_continues_is_recognised(acts: list[tuple[str, str, int]]) -> None:
    client = Client(Courses(), random.Random(0))
    client.ask()
    for act, text, number in acts:
        past = dict(client.past)
        seen = do(client, act, text, number)
        sent = client.messages[:-1]
        # What it sends, and all that came before an answer which is still there, dropped or not.
        assert handles(sent).union(*(past.get(handle(m), ()) for m in sent)) <= seen


@given(st.lists(st.tuples(st.integers(0, 2), ACTS), max_size=8), st.booleans())
@settings(max_examples=sized(200, 5000), deadline=None)
def test_natural_twins_never_share(
    turns: list[tuple[int, list[tuple[str, str, int]]]], numbered: bool
) -> None:
    courses = Courses()
    kind = Numbered if numbered else Client
    twins = [kind(courses, random.Random(i)) for i in range(3)]
    canned = "I can't help with that. " * 20
    for twin, acts in turns:
        client = twins[twin]
        client.ask(canned)
        for act, text, number in acts:
            seen = do(client, act, text if number % 3 else canned, number)
            assert seen <= client.had


def test_long_answers_prove_what_calls_without_random_ids_do_not() -> None:
    courses = Courses()
    alice = Numbered(courses, random.Random(0))
    secret = handle({"role": "tool", "tool_call_id": "call_0", "content": "secret"})
    for number, text in enumerate(("ok", "secret", "ok", "ok", "ok")):
        alice.ask(f"Answer {number}: " + "many words " * 30)
        alice.result(text)
    whole = alice.messages
    for kept, seen in ((3, True), (2, False)):
        alice.messages = [OPENING, *whole[-2 * kept :]]
        assert (secret in alice.ask("ok")) == seen
        alice.messages = whole  # and back again


def test_an_answer_that_the_client_rewrites_is_no_obstacle() -> None:
    client = Client(Courses(), random.Random(0))
    client.ask("  with blanks around  ")
    client.messages[-1] = {**client.messages[-1], "content": "with blanks around"}
    client.result("first")
    client.ask("  and again ")
    first = handle(client.messages[2])
    client.messages = [OPENING, {**client.messages[-1], "content": "and again"}]
    client.result("second")
    # The only answer that is left is not the one that was given: nothing proves what was before.
    assert first not in client.ask("now")


def test_a_conversation_keeps_one_course() -> None:
    client = Client(Courses(), random.Random(0))
    for _ in range(40):
        client.ask()
        client.result("ok")
    assert client.courses.messages == 80


def test_what_is_kept_is_bounded() -> None:
    courses = Courses(most_messages=50)
    for number in range(100):
        messages = [{"role": "user", "content": str(n)} for n in range(number % 30 + 1)]
        name = f"c-{number % 7}"
        course = courses.follow(name, landmarks(messages), lambda new: [("m-1",) for _ in new])
        courses.add_answer(name, course, {"role": "assistant", "content": str(number)}, ())
        assert courses.messages <= 50
    # One that is larger than all may be is followed, but not kept.
    long = [{"role": "user", "content": str(n)} for n in range(60)]
    assert len(courses.follow("c-x", landmarks(long), lambda new: [() for _ in new]).steps) == 60
    assert courses.messages == 0


def test_a_search_is_never_limited_to_too_many_texts() -> None:
    messages = [{"role": "user", "content": str(n)} for n in range(300)]
    course = Courses().follow(
        "c-1",
        landmarks(messages),
        lambda new: [tuple(f"m-{i}-{n}" for n in range(100)) for i in new],
    )
    assert len(course.handles) == 20_000 and course.handles[-1] == "m-299-99"


def test_many_twins_leave_the_newest_courses() -> None:
    courses = Courses()
    for number in range(40):
        messages = [OPENING, {"role": "user", "content": str(number)}]
        courses.follow("c-1", landmarks(messages), lambda new: [() for _ in new])
    assert courses.messages == 2 * 16


@pytest.mark.parametrize(
    ("message", "proves"),
    [
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "call_0"}]}, "none"),
        ({"role": "assistant", "tool_calls": [{"id": "functions.run_command:0"}]}, "none"),
        ({"role": "assistant", "tool_calls": [{"id": "call_abcdefghij0123456789KLMN"}]}, "all"),
        (
            {"role": "assistant", "tool_calls": [{"id": "3f2c5b5e-2a0c-4a52-9a4e-3d4c8a0b1c2d"}]},
            "all",
        ),
        ({"role": "assistant", "content": "word " * 50}, "some"),
        ({"role": "user", "content": "word " * 50}, "none"),
        ({"role": "tool", "tool_call_id": "call_abcdefghij0123456789KLMN", "content": ""}, "none"),
    ],
)
def test_what_a_message_proves(message: Message, proves: str) -> None:
    assert proof(message) == proves


# -- names -----------------------------------------------------------------------------------------

UUID = "3f2c5b5e-2a0c-4a52-9a4e-3d4c8a0b1c2d"


def name(headers: dict[str, str] | None = None, *tokens: str, **body: Any) -> Name:
    caller = read_caller(Headers(headers or {}), tokens)
    return name_conversation(caller, body, [OPENING])


def test_without_anything_else_the_name_is_that_of_the_first_message() -> None:
    # Written down, because conversations in existing files have it.
    assert name() == Name("c-350fbbc792c74f23", certain=False)
    assert name({"user-agent": "x", "cookie": "y"}) == name()


def test_an_explicit_name_stays_as_it_is() -> None:
    headers = {"x-clara-session": "mine", "authorization": "Bearer 1", "session-id": UUID}
    assert name(headers, user="me") == Name("mine", certain=True)
    with pytest.raises(ApiError):
        name({"x-clara-session": "not a name"})


def test_keys_and_persons_tell_callers_apart() -> None:
    ways: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({}, {}),
        ({"authorization": "Bearer alice"}, {}),
        ({"authorization": "Bearer bob"}, {}),
        ({"x-api-key": "alice"}, {}),
        ({}, {"user": "alice"}),
        ({}, {"user": "bob"}),
        ({}, {"prompt_cache_key": "alice"}),
        ({}, {"prompt_cache_key": UUID}),
        ({}, {"metadata": {"user_id": "alice"}}),
        ({}, {"metadata": {"user_id": UUID}}),
        ({"x-session-affinity": UUID}, {}),
        ({"x-session-id": "default"}, {}),
        ({"x-session-id": "c0ffee" * 8}, {}),  # perhaps a hash of what twins have in common
    ]
    names = [name(headers, **body) for headers, body in ways]
    assert len(set(names)) == len(ways) and not any(one.certain for one in names)
    assert names == [name(headers, **body) for headers, body in ways]
    # The gateway's own token is the same for all of its namespace.
    assert name({"authorization": "Bearer gateway"}, "gateway") == name()
    assert name({"x-api-key": "gateway"}, "gateway") == name()
    both = {"authorization": "Bearer gateway", "x-api-key": "ann"}
    assert name(both, "gateway") == name({"x-api-key": "ann"}) != name()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-claude-code-session-id": UUID}, {}),
        ({"session-id": UUID}, {}),
        ({"session_id": UUID, "authorization": "Bearer renewed"}, {"prompt_cache_key": "x"}),
        ({"x-session-id": UUID, "x-session-affinity": "other"}, {}),
        ({"x-openwebui-chat-id": UUID}, {"user": "me"}),
        ({}, {"session_id": UUID}),
        ({}, {"metadata": {"session_id": UUID}}),
        ({}, {"metadata": {"user_id": f"user_{'0a' * 32}_account__session_{UUID}"}}),
        ({}, {"metadata": {"user_id": f'{{"device_id": "x", "session_id": "{UUID}"}}'}}),
    ],
)
def test_a_random_id_of_a_session_is_the_name(headers: dict[str, str], body: Any) -> None:
    assert name(headers, **body) == Name(UUID, certain=True)


@pytest.mark.parametrize(
    "value",
    [None, 1, [], {}, {"user_id": {}}, {"user_id": "{" * 5000}, {"user_id": "{}"}, {"user_id": ""}],
)
def test_odd_metadata_names_nothing(value: Any) -> None:
    assert not name(metadata=value).certain


def test_what_is_random() -> None:
    assert is_random(UUID) and is_random(UUID.upper())
    assert is_random("ses_5f2ac93b1ffeXyZ0Ab3dEf9GhI")
    for text in ("", "1", "default", "user-john-smith-conversation-1", "0" * 64, "ab12" * 16):
        assert not is_random(text), text
    assert not is_random("6ba7b810-9dad-51d1-80b4-00c04fd430c8")  # made of a name


def test_each_identifier_has_its_reason() -> None:
    assert len({one.place for one in IDENTIFIERS}) == len(IDENTIFIERS)
    assert all(one.reason for one in IDENTIFIERS)


def test_the_log_says_what_cures_a_first_message_that_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": "{}"}}
    rest: list[Message] = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "user", "content": "and?"},
    ]

    def told(gate: Gateway, *firsts: str, **headers: str) -> int:
        """How often the log names the header, when the first message is each of these."""
        caplog.clear()
        for first in firsts:
            gate.chat([{"role": "user", "content": first}, *rest], extra_headers=headers)
        return caplog.text.count("send the header x-clara-session")

    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        assert told(gate, "do it", "do it") == 0
        assert told(gate, "It is 12:01. Do it.", "It is 12:02. Do it.", "It is 12:03.") == 1
        rest[2] = {"role": "user", "content": "and now?"}
        assert told(gate, "It is 12:01.", "It is 12:02.", **{"x-clara-session": "mine"}) == 0
