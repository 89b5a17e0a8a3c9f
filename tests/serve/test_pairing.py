"""Calls and results in histories that clients have shortened, or put something into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gateway import Upstream, gateway, says
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.serve.apis.chat import read_request
from clara_mlx.serve.pairing import pair_calls_with_results

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SHOT = [{"type": "text", "text": "shot:"}, IMAGE]
LOST = "not in the conversation any more"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def calls(*ids: str) -> dict[str, Any]:
    function = {"name": "run", "arguments": "{}"}
    made = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": "", "tool_calls": made}


def result(id: str, content: Any = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def outline(messages: list[dict[str, Any]]) -> list[Any]:
    """Each message in short: a role, the ids of calls, or the id and the text of a result."""
    return [
        [call["id"] for call in m["tool_calls"]]
        if "tool_calls" in m
        else (m["tool_call_id"], m["content"])
        if m["role"] == "tool"
        else m["role"]
        for m in messages
    ]


@pytest.mark.parametrize("between", ["user", "system"])
def test_a_late_result_moves_up_to_its_call(between: str) -> None:
    note = {"role": between, "content": "by the way"}
    found = pair_calls_with_results([user("go"), calls("1", "2"), result("2"), note, result("1")])
    assert outline(found) == ["user", ["1", "2"], ("2", "done"), ("1", "done"), between]


def test_calls_under_one_id_get_their_results_in_order() -> None:
    given = [user("go"), calls("c", "c", "c-2"), result("c", "a"), result("c", "b")]
    found = outline(pair_calls_with_results([*given, result("c-2", "z"), result("c", "more")]))
    assert found[:5] == ["user", ["c", "c-3", "c-2"], ("c", "a"), ("c-3", "b"), ("c-2", "z")]
    assert found[5:] == [["c"], ("c", "more")]  # one too many: it has a call of its own


def test_one_id_for_all_turns_means_the_newest_call() -> None:
    given = [user("go"), calls("c"), calls("c"), result("c", "b"), calls("c"), result("c", "d")]
    found = outline(pair_calls_with_results(given))
    assert found[1:3] == [["c"], ("c", f"(the result of this call is {LOST})")]
    assert found[3:] == [["c"], ("c", "b"), ["c"], ("c", "d")]


def test_a_regular_history_is_the_same() -> None:
    given = [user("go"), calls("1", "2"), result("1"), result("2", SHOT), user("and?")]
    assert pair_calls_with_results(given) == given


IDS = st.sampled_from("ab")
MESSAGES = st.one_of(
    st.just(user("x")),
    st.lists(IDS, min_size=1, max_size=3).map(lambda ids: calls(*ids)),
    IDS.map(result),
)


@given(st.lists(MESSAGES, max_size=12))
def test_every_call_has_one_result_and_no_result_is_lost(messages: list[dict[str, Any]]) -> None:
    numbered = [{**m, "content": f"{n}"} for n, m in enumerate(messages)]
    found = pair_calls_with_results(numbered)
    waiting: list[str] = []
    for message in found:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert len(set(waiting)) == len(waiting)
    assert not waiting
    contents = [message["content"] for message in found]
    assert all(contents.count(message["content"]) == 1 for message in numbered)
    # A placeholder says the truth: there are fewer results than calls.
    lost = sum(LOST in content for content in contents)
    made = sum(len(m.get("tool_calls", ())) for m in found)
    assert lost == made - sum(m["role"] == "tool" for m in numbered)


@pytest.mark.parametrize(
    "history",
    [
        [calls("1"), user("look"), result("1", SHOT)],
        [result("1", SHOT)],
        [calls("1"), result("1"), result("1", SHOT)],
        [calls("1", "1"), result("1"), result("1", SHOT)],
    ],
    ids=["late", "orphan", "repeated", "one id"],
)
def test_images_of_any_result_are_kept(history: list[dict[str, Any]]) -> None:
    messages = [user("go"), *history, user("what is it?")]
    request = read_request({"messages": messages}, None)
    assert request.has_images
    assert [m["content"] for m in request.messages if m["role"] == "tool"].count(SHOT) == 1
    assert LOST not in str(request.messages)


def test_an_image_of_a_late_result_is_sent_or_named(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    messages = [user("go"), calls("1"), user("look"), result("1", SHOT)]
    with upstream.running() as url:
        with gateway(tmp_path / "a", url, remote={"images": True}) as gate:
            gate.chat(messages)
        with gateway(tmp_path / "b", url) as gate:
            gate.chat(messages)
    sent, told = (request["messages"] for request in upstream.requests)
    assert sent[2]["content"] == SHOT and sent[3] == user("look")
    assert "an image" in str(told[2]["content"]) and "image_url" not in str(told)
