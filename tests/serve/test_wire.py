"""What goes over the wire: events however they are cut, histories however they are broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.serve import sse
from clara_mlx.serve.apis.chat import read_request
from clara_mlx.serve.reply import Reply
from clara_mlx.serve.request import has_images


def events(pieces: list[bytes]) -> list[Any]:
    async def feed() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collect() -> list[Any]:
        return [event async for event in sse.read_events(feed())]

    return asyncio.run(collect())


@given(
    values=st.lists(st.text(max_size=30), max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_events_survive_any_cut(values: list[str], cuts: list[int], end: bytes) -> None:
    raw = b": keepalive 1/2" + end + end
    for value in values:
        # Some servers escape nothing: U+2028 and multi-byte characters come as they are.
        data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        raw += b"event: x" + end + b"data: " + data + end + end
    places = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
    found = events([raw[a:b] for a, b in pairwise(places)])
    assert found[0] == sse.Comment("keepalive 1/2")
    expected = [v.encode("utf-8", "replace").decode() for v in values]
    assert [json.loads(event) for event in found[1:]] == expected


def test_events_of_odd_servers() -> None:
    assert events([b"data:x\ndata: y\n\n", b"id: 1\nretry: 5\n\n", b"data: last"]) == [
        "x\ny",
        "last",
    ]
    with pytest.raises(sse.TooLong):
        events([b"x" * (9 << 20), b"y" * (9 << 20)])
    assert sse.encode_event({"a": "\ud800"}) == b'data: {"a":"\\ud800"}\n\n'


ids = st.sampled_from(["a", "b", "c"])
calls = st.lists(ids, max_size=3, unique=True).map(
    lambda names: [
        {"id": n, "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in names
    ]
)
short = st.text(max_size=3)
roles = st.sampled_from(["user", "system", "developer"])
plain = st.fixed_dictionaries({"role": roles, "content": short})
result = st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": ids, "content": short})
assistant = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | short, "tool_calls": calls}
)
histories = st.lists(plain | result | assistant, min_size=1, max_size=10)


@given(histories)
def test_every_call_has_its_results_right_behind_it(history: list[dict[str, Any]]) -> None:
    request = read_request({"messages": history}, None)
    waiting: list[str] = []
    for message in request.messages:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
        else:
            assert not waiting
            waiting = [call["id"] for call in message.get("tool_calls", [])]
    assert not waiting
    # Nothing is lost, and a history in order is left as it is.
    said = "".join(m["content"] for m in request.messages)
    assert all((m["content"] or "") in said for m in history)
    again = read_request({"messages": request.messages}, None)
    assert again.messages == request.messages


def test_the_key_names_the_request() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "temperature": 0.5}
    assert read_request(body, "s").key == read_request(dict(reversed(body.items())), "s").key
    assert read_request(body, "s").key != read_request(body, "t").key
    assert read_request(body, "s").key != read_request(body | {"temperature": 0.6}, "s").key


def test_looking_for_images_reads_no_text() -> None:
    """It may be done on the event loop, for which all others wait."""

    class Text(str):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("each character is looked at")

    part = {"type": "text", "text": "x"}
    for content, images in [(Text("x"), False), ([part], False), ([part, {"type": "y"}], True)]:
        assert has_images([{"role": "user", "content": content}]) == images


@given(
    st.lists(st.tuples(st.sampled_from(["own", "theirs"]), st.text(min_size=1)), max_size=4),
    st.integers(1, 5),
)
def test_calls_come_out_as_they_went_in(given_calls: list[tuple[str, str]], step: int) -> None:
    said = Reply(frozenset(("own",)))
    seen: dict[int, dict[str, str]] = {}
    for index, (name, arguments) in enumerate(given_calls):
        head = {"index": index, "id": "same", "function": {"name": name, "arguments": ""}}
        rest = [
            {"index": index, "function": {"arguments": arguments[i : i + step]}}
            for i in range(0, len(arguments), step)
        ]
        for delta in [head, *rest]:
            shown = said.take_chunk({"choices": [{"delta": {"tool_calls": [delta]}}]}) or {}
            for call in shown.get("tool_calls", []):
                one = seen.setdefault(call["index"], {"arguments": ""})
                one |= {"id": call["id"]} if "id" in call else {}
                one["arguments"] += call["function"]["arguments"]
    theirs = [arguments for name, arguments in given_calls if name == "theirs"]
    assert [seen[index]["arguments"] for index in range(len(seen))] == theirs
    assert len({one["id"] for one in seen.values()}) == len(theirs)
    assert [call.arguments for call in said.calls] == [arguments for _, arguments in given_calls]
