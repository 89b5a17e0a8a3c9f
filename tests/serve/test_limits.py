"""What a client or an endpoint sends is read within limits, so that nobody else has to wait."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Upstream, gateway, says
from hypothesis import given
from hypothesis import strategies as st
from sizes import sized

from clara_mlx.serve.json_values import (
    DEEPEST,
    MOST_VALUES,
    BadJson,
    TooMuchJson,
    check_size,
    read_answer,
    read_value,
)

CHAT = "/v1/chat/completions"
REMEMBER = "/v1/memory/remember"
JSON = {"content-type": "application/json"}
MCP = JSON | {"accept": "application/json, text/event-stream"}
USER = {"role": "user", "content": "hi"}
TEXT = {"type": "text", "text": ""}
CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    path = tmp_path_factory.mktemp("limits")
    with Upstream(says("ok")).running() as url, gateway(path, url) as made:
        yield made
        assert made.chat("hello").choices[0].message.content == "ok"


awkward = st.text('"\\[]{},:a\n\u4e2d')
values = st.recursive(
    st.none() | st.booleans() | st.integers() | awkward,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(awkward, inner, max_size=4),
    max_leaves=20,
)


def number_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(number_of, inner))


@given(values)
def test_values_are_counted_whatever_their_strings(value: Any) -> None:
    content = json.dumps(value, ensure_ascii=False).encode()
    number = number_of(value)
    if number > 1:
        with pytest.raises(TooMuchJson):
            check_size(content, number - 1)
    # An empty list counts as two.
    assert read_value(content, 2 * number) == value


@pytest.mark.alone
@pytest.mark.parametrize(
    "unit", ["[],", "{},", '"",', '""', '"a":1,', '\\"', '"\\"', "\\", ",", "[", "[{", '"[', '{"']
)
def test_counting_takes_no_longer_than_reading(unit: str) -> None:
    content = (unit * sized(4 << 20, 32 << 20)).encode()[: sized(4 << 20, 32 << 20)]
    for text in (content, b'["' + content):
        begun = time.thread_time()
        with pytest.raises(BadJson):
            read_value(text)
        assert time.thread_time() - begun < sized(2, 10)


def test_levels_are_limited() -> None:
    for level, fits in ((DEEPEST, True), (DEEPEST + 1, False), (5000, False), (500_000, False)):
        for begin, end in ((b"[", b"]"), (b'{"a":', b"}")):
            content = begin * level + (b"" if begin == b"[" else b"1") + end * level
            if fits:
                read_value(content)
                continue
            with pytest.raises(BadJson, match=r"levels|values"):
                read_value(content)


@pytest.mark.parametrize(
    ("text", "says_where"),
    [
        ('{"seed": 1e400}', "at seed"),
        ('{"logit_bias": {"50256": -1e999}}', "at logit_bias.50256"),
        ('{"messages": [{}, {"x": [0, 1e400]}]}', r"at messages\[1\].x\[1\]"),
        ('{"a": Infinity}', "Infinity is not a JSON number"),
        ('{"a": [NaN]}', "NaN is not a JSON number"),
    ],
)
def test_numbers_that_json_does_not_have_are_refused(
    gate: Gateway, text: str, says_where: str
) -> None:
    with pytest.raises(BadJson, match=says_where):
        read_value(text.encode())
    content = text[:-1].encode() + b', "messages": [{"role": "user", "content": "hi"}]}'
    answer = gate.http.post(CHAT, content=content, headers=JSON)
    assert answer.status_code == 400
    # An endpoint may send them; nobody is sent them.
    json.dumps(read_answer(text.encode()), allow_nan=False)


def test_logarithms_of_what_is_ruled_out() -> None:
    assert read_answer(b"[-Infinity, -1e999, NaN, 1e999, 0.5]") == [
        -9999.0,
        -9999.0,
        None,
        None,
        0.5,
    ]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (REMEMBER, b'{"text": [' + b"[]," * MOST_VALUES + b"[]]}"),
        (CHAT, b'{"messages": [' + b"{}," * MOST_VALUES + b"{}]}"),
        (CHAT, b"{" + b",".join(b'"%d":1' % i for i in range(MOST_VALUES + 1)) + b"}"),
        ("/mcp", b'{"a": [' + b"[]," * MOST_VALUES + b"[]]}"),
    ],
)
def test_too_many_values_are_refused(gate: Gateway, path: str, content: bytes) -> None:
    answer = gate.http.post(path, content=content, headers=MCP)
    assert answer.status_code == 413, answer.text
    assert f"more than {MOST_VALUES:,} JSON values" in answer.json()["error"]["message"]


def test_each_route_has_its_limit(gate: Gateway) -> None:
    text = "x" * (9 << 20)
    for path, body in (
        (REMEMBER, {"text": text}),
        ("/mcp", {"jsonrpc": "2.0", "id": 1, "method": text}),
        ("/v1/memory/recall", {"query": text[: 2 << 20]}),
        ("/v1/memory/forget", {"handle": text[: 2 << 20]}),
        ("/v1/memory/ask", {"question": text[: 2 << 20]}),
    ):
        assert gate.http.post(path, json=body, headers=MCP).status_code == 413, path
    answer = gate.http.post(CHAT, json={"messages": [{"role": "user", "content": text}]})
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert gate.http.post(REMEMBER, json={"text": text[: 7 << 20]}).status_code == 200


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("messages", {"messages": [USER] * 10_001}),
        ("messages", {"messages": [{**USER, "content": [TEXT] * 10_001}]}),
        ("messages", {"messages": [USER, {"role": "assistant", "tool_calls": [CALL] * 10_001}]}),
        ("tools", {"messages": [USER], "tools": [{"function": {"name": "f"}}] * 2_001}),
    ],
)
def test_long_lists_are_refused_in_words(gate: Gateway, param: str, body: Any) -> None:
    answer = gate.http.post(CHAT, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param and "at most" in answer.text


@pytest.mark.parametrize("depth", [90, 300, 950, 970, 5000])
def test_deep_arguments_are_sent_or_refused(gate: Gateway, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    body = (
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": '
        '[{"id": "1", "function": {"name": "f", "arguments": %s}}]}]}'
    )
    answer = gate.http.post(CHAT, content=(body % deep).encode(), headers=JSON)
    assert answer.status_code == (200 if depth < DEEPEST else 400), answer.text
    # In a string they are only a text.
    answer = gate.http.post(CHAT, content=(body % json.dumps(deep)).encode(), headers=JSON)
    assert answer.status_code == 200, answer.text


def test_what_the_mcp_sdk_reads_arrives_in_time(tmp_path: Path) -> None:
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, body_seconds=0.3) as gate,
    ):

        def slow() -> Iterator[bytes]:
            yield b'{"jsonrpc": '
            time.sleep(1)
            yield b'"2.0"}'

        assert gate.http.post("/mcp", content=slow(), headers=MCP).status_code == 408
