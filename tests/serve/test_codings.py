"""Compressed bodies: decoded for every API, within the limit that plain ones have."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard
from gateway import Upstream, gateway, says

CHAT = {"model": "any", "messages": [{"role": "user", "content": "Go. " + "ü" * 200}]}
RESPONSES = {"model": "any", "input": "Go."}
ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:]),
    "deflate": zlib.compress,
    "Deflate": lambda content: zlib.compress(content, wbits=-15),
    "zstd": zstandard.compress,
    "identity": bytes,
}


REFUSED = [
    ("br", b"x", 415, "Content-Encoding 'br'"),
    ("gzip, zstd", gzip.compress(b"{}"), 415, "Content-Encoding 'gzip, zstd'"),
    ("gzip", b"{}", 400, "is not what Content-Encoding says"),
    ("gzip", gzip.compress(b"[" * 999)[:-12], 400, "incomplete"),
    ("deflate", b"\xff\xff\xff", 400, "is not what Content-Encoding says"),
    ("zstd", b"{}", 400, "is not what Content-Encoding says"),
    ("zstd", zstandard.compress(b"x" * 999)[:-5], 400, "JSON"),
    ("gzip", gzip.compress(b" " * (3 << 20)), 413, "larger than 2097152 bytes"),
    ("zstd", zstandard.compress(b" " * (64 << 20)), 413, "larger than 2097152 bytes"),
    ("deflate", zlib.compress(b" " * (3 << 20)), 413, "larger than 2097152 bytes"),
]


def test_bodies_are_decoded(tmp_path: Path) -> None:
    """Also those of conversations that lie in another process: here all of chat completions."""
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url, heavy_bytes=300) as gate:
        for coding, encode in ENCODED.items():
            headers = {"content-type": "application/json", "content-encoding": coding}
            for path, body in (
                ("chat/completions", {**CHAT, "user": coding}),
                ("responses", {**RESPONSES, "user": coding}),
                ("memory/recall", {"query": "x"}),
            ):
                content = encode(b"\xef\xbb\xbf" + json.dumps(body).encode())
                answer = gate.http.post(f"/v1/{path}", content=content, headers=headers)
                assert answer.status_code == 200, (coding, answer.text)
    assert upstream.requests[0]["messages"][-1] == CHAT["messages"][0]


def test_what_can_not_be_decoded_is_refused(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url, max_body_bytes=2 << 20) as gate:
        for coding, content, status, words in REFUSED:
            headers = {"content-type": "application/json", "content-encoding": coding}
            for path in ("/v1/responses", "/v1/chat/completions"):
                answer = gate.http.post(path, content=content, headers=headers)
                assert answer.status_code == status, (coding, answer.text)
                assert words in answer.json()["error"]["message"]
    assert not upstream.requests
