"""Whatever order a server sends pieces of an answer in, the events are a message of Anthropic's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from messages_api import check_message, check_stream, events_of
from sizes import sized

from clara_mlx.serve.apis.messages import read_request
from clara_mlx.serve.apis.messages_stream import Writer
from clara_mlx.serve.preparing import Prompt, Tools
from clara_mlx.serve.reply import Reply
from clara_mlx.serve.runs import Run

ASKED: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "thinking": {"type": "adaptive"},
    "stream": True,
}
PROMPT = Prompt([], Tools([], frozenset()), tokens=9, exact=True, tokens_in=9)

words = st.text(st.sampled_from('a\n {"}\\é\u2028\ud800'), min_size=1, max_size=4)
calls = st.builds(
    lambda index, name, arguments, id: {
        "index": index,
        "function": {"name": name, "arguments": arguments},
        **({"id": id} if id else {}),
    },
    st.integers(0, 3),
    st.sampled_from([None, "run", "look"]),
    words | st.sampled_from(["", "{}", '{"a": 1}', '{"a": ', "1}"]),
    st.sampled_from([None, "a", "b"]),
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": words,
        "reasoning_content": words,
        "tool_calls": st.lists(calls, min_size=1, max_size=2),
    },
)
rounds = st.lists(st.lists(deltas, max_size=8), min_size=1, max_size=3)


def joined(content: list[dict[str, Any]], kind: str) -> str:
    return "".join(block[kind] for block in content if block["type"] == kind)


@settings(max_examples=sized(50, 5000), deadline=None)
@given(rounds)
def test_events_in_any_order_are_blocks_in_order(sent: list[list[dict[str, Any]]]) -> None:
    request = read_request(ASKED, None)
    run, run_of_whole = Run(), Run()
    writer = Writer(request, run)
    whole = Writer(replace(request, stream=False), run_of_whole)
    said, called, taken = "", [], frozenset[str]()
    for one_round in sent:
        reply = Reply(frozenset(), taken=taken)
        for one in (writer, whole):
            one.begin_round(PROMPT)
        for delta in one_round:
            piece = {"choices": [{"index": 0, "delta": delta}]}
            seen = reply.take_chunk(piece)
            for one in (writer, whole):
                one.write("m", piece, json.loads(json.dumps(seen)))
        said += reply.content
        taken |= {call.id for call in reply.calls}
        named = sorted(reply.client_calls, key=lambda call: call.place or 0)  # as they got names
        called += [(call.id, call.name, call.arguments) for call in named]
    for one in (writer, whole):
        one.finish(reply)

    events = events_of(b"".join(run.pieces).decode())
    check_stream(events)
    message = json.loads(b"".join(run_of_whole.pieces))
    check_message(message)
    # Nothing is lost but white space, and each call has its own arguments.
    assert writer.text == whole.text == joined(message["content"], "text")
    assert "".join(writer.text.split()) == "".join(said.split())
    begun = [e["content_block"] for e in events if e["type"] == "content_block_start"]
    assert [(b["id"], b["name"]) for b in begun if b["type"] == "tool_use"] == [
        (id, name) for id, name, _ in called
    ]
    assert [block["type"] for block in begun] == [block["type"] for block in message["content"]]
    parts: dict[int, str] = {}
    for event in events:
        if event.get("delta", {}).get("type") == "input_json_delta":
            parts[event["index"]] = parts.get(event["index"], "") + event["delta"]["partial_json"]
    places = [index for index, block in enumerate(begun) if block["type"] == "tool_use"]
    for place, (_, _, arguments) in zip(places, called, strict=True):
        given = parts.get(place, "")
        assert given == arguments or (arguments.startswith(given) and json.loads(given) is not None)
