"""Hypothesis strategies for requests that are nearly right: valid ones with parts exchanged."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from hostile_texts import anything
from hypothesis import strategies as st


class Raw(str):
    """JSON that is written as it is: what Python's values can't express."""


class Request(NamedTuple):
    """A request as it is sent."""

    method: str
    path: str
    content: bytes
    headers: list[tuple[bytes, bytes]]


#: Values that somebody's parser, driver or arithmetic has failed on.
ODD: list[Any] = [
    *(None, True, False, 0, -1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, -1.5),
    *map(Raw, ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e308", "-0.0", "1E-400")),
    *map(Raw, ("9" * 400, "9" * 5000, "0." + "3" * 5000, '"\\ud83d"', '"\\u0000"', '"a\\u0000b"')),
    *(Raw("[" * depth + "]" * depth) for depth in (30, 200, 480, 900, 950, 990, 100_000)),
    *(Raw('{"a":' * depth + "1" + "}" * depth) for depth in (30, 450, 900, 5000)),
    *(Raw('{"a":1,"a":[2]}'), Raw('{"":{}}'), Raw('{"__proto__":1}'), Raw("tru"), Raw("")),
    *("", " ", "\n" * 50, "x" * 10_000, "' OR 1=1 --", '"$.a"', "a\\", "../" * 500, "m-1"),
    *("auto", "1", "[DONE]", "[clara m-1: 3 earlier messages]", "\u2028", "\u202e", "é" * 300),
    *([], {}, [None], [[]], [{}], ["x"] * 200, {"type": "text"}, {"type": "image_url"}),
    *({str(n): n for n in range(200)}, list(range(2000))),
]

_KEYS = ["", "role", "type", "content", "text", "name", "after", "handle", "a\0b", "\ud800", "a.b"]
_MOST_CHANGES = 3

# Copies, because what is drawn is changed later.
values = (
    st.sampled_from(ODD)
    | anything
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.sampled_from(ODD[:40]), max_size=3)
).map(copy.deepcopy)


def written(value: Any) -> str:
    """A value as JSON, with what is raw as it is."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(k)}:{written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: what contains it, and its key or index there."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


@st.composite
def changed(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with some of its parts exchanged, doubled, wrapped, left out or added."""
    body: dict[str, Any] = copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, _MOST_CHANGES))):
        places = _places(body)
        if not places:
            break
        inside, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(("exchange", "exchange", "leave out", "wrap", "add", "double")))
        if how == "exchange":
            inside[key] = draw(values)
        elif how == "wrap":
            inside[key] = [inside[key]]
        elif how == "leave out":
            del inside[key]
        elif isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]) if how == "double" else draw(values))
        else:
            name = draw(st.sampled_from(_KEYS) | st.text(max_size=5))
            inside[name] = copy.deepcopy(inside[key]) if how == "double" else draw(values)
    return body


_TYPES = [b"application/json"] * 40 + [
    *(b"application/json; charset=utf-16", b"APPLICATION/JSON ;x", b"text/plain", b""),
    *(b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded", b"\xff\xfe"),
]
_HEADERS = {
    b"accept": [b"text/html", b"", b"*/*", b"application/json;q=x", b"text/event-stream"],
    b"x-clara-session": [b"s1", b"", b"x" * 129, b"\xc3\xa9", b"a b", b"../..", b"\xff", b"*"],
    b"x-stainless-retry-count": [b"0", b"1", b"-1", b"x", b"", b"9" * 5000, b"\xb2"],
    b"content-encoding": [b"gzip", b"br", b"identity", b"\xff"],
    b"content-length": [b"0", b"-1", b"99999999999999999999999", b"\xc2\xb2", b"1" * 5000, b"x"],
    b"authorization": [b"Bearer x", b"Basic", b"\xff", b""],
    b"origin": [b"null", b"http://evil.example", b"http://[::1", b"\xff", b"http://localhost:1"],
    b"host": [b"", b"evil.example", b"[", b"localhost:99999999", b"\xff", b"127.0.0.1:x"],
    b"mcp-protocol-version": [b"1", b"\xff", b"2025-06-18", b""],
    b"mcp-session-id": [b"x", b"\xff", b""],
    b"transfer-encoding": [b"chunked", b"gzip"],
    b"expect": [b"100-continue", b"x"],
    b"x-forwarded-for": [b"\xff", b"::1"],
}


@st.composite
def headers(draw: st.DrawFn, *usual: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers of a request; one time in four with odd ones."""
    found = {b"content-type": draw(st.sampled_from(_TYPES)), **dict(usual)}
    if draw(st.integers(0, 3)) == 3:
        for name in draw(st.lists(st.sampled_from(sorted(_HEADERS)), max_size=2)):
            found[name] = draw(st.sampled_from(_HEADERS[name]) | st.binary(max_size=20))
    return list(found.items())


@st.composite
def contents(draw: st.DrawFn, valid: dict[str, Any]) -> bytes:
    """The body of a request: mostly JSON in UTF-8."""
    text = written(draw(changed(valid)))
    how = draw(st.integers(0, 39))
    if how == 0:
        return text.encode("utf-16", "surrogatepass")
    if how == 1:
        return text.encode("utf-8-sig", "surrogatepass")
    if how == 2:
        return text.encode()[: draw(st.integers(0, len(text)))]
    if how == 3:
        return text.encode() + draw(st.binary(max_size=5))
    if how == 4:
        return draw(st.binary(max_size=40))
    return text.encode("utf-8", "surrogatepass")
