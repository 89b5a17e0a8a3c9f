"""What held on the wire: tokens, hosts, origins, smuggling, keys. The main line is held.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway_process import SERVE, Gateway, Headers, gateway
from scripted_upstream import Upstream, response, says
from verdicts import Verdict

TOKEN = "0123456789abcdef0123456789abcdef"
BEARER = [("Authorization", f"Bearer {TOKEN}")]

_PATHS = (
    *("/v1/models", "/v1/models/x", "/v1/chat/completions", "/v1/memory/remember", "/metrics"),
    *("/v1/memory/recall", "/v1/memory/ask", "/v1/memory/forget", "/v1/memory/original/m-1"),
    *("/v1/memory/status", "/mcp", "/mcp/", "/v1", "/nowhere", "//health", "/health/", "/HEALTH"),
)
_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")


def counted(what: str, limit: str, wrong: Iterable[str], of: int) -> Verdict:
    """A row about many tries, with the first ones that went wrong."""
    wrong = list(wrong)
    shown = f": {'; '.join(wrong[:3])}" if wrong else ""
    return Verdict(what, limit, f"{of - len(wrong)} of {of}{shown}", not wrong)


def no_token(folder: Path) -> Iterator[Verdict]:
    """A gateway for other machines without a token."""
    command = [sys.executable, "-c", SERVE, "serve", "--host", "0.0.0.0", "--port", "0"]
    environment = {**os.environ, "CLARA_MLX_TOKEN": ""}
    done = subprocess.run(
        [*command, "--db", str(folder / "a.db")], capture_output=True, env=environment, timeout=60
    )
    yield Verdict("no token on 0.0.0.0", "refused at start, exit 1", f"exit {done.returncode}",
                  done.returncode == 1)  # fmt: skip


def tokens(folder: Path) -> Iterator[Verdict]:
    """Tokens that are wrong, in the wrong place, or missing."""
    offered: list[tuple[str, Headers, bool]] = [
        ("right", BEARER, True),
        ("lower case", [("authorization", f"bearer {TOKEN}")], True),
        ("more spaces", [("Authorization", f"Bearer   {TOKEN} ")], True),
        ("right, then wrong", [*BEARER, ("Authorization", "Bearer x")], True),
        ("wrong, then right", [("Authorization", "Bearer x"), *BEARER], False),
        ("none", [], False),
        ("empty", [("Authorization", "")], False),
        ("scheme alone", [("Authorization", "Bearer")], False),
        ("scheme and space", [("Authorization", "Bearer ")], False),
        ("bare", [("Authorization", TOKEN)], False),
        ("basic", [("Authorization", f"Basic {TOKEN}")], False),
        ("one less", [("Authorization", f"Bearer {TOKEN[:-1]}")], False),
        ("one more", [("Authorization", f"Bearer {TOKEN}x")], False),
        ("upper case", [("Authorization", f"Bearer {TOKEN.upper()}")], False),
        ("quoted", [("Authorization", f'Bearer "{TOKEN}"')], False),
        ("latin-1", [("Authorization", "Bearer \xff")], False),
        ("x-api-key", [("x-api-key", TOKEN)], True),  # Anthropic's clients send it so
        ("a wrong x-api-key", [("x-api-key", f"{TOKEN}x")], False),
        ("a cookie", [("Cookie", f"token={TOKEN}; Authorization=Bearer {TOKEN}")], False),
    ]
    with gateway(Upstream(), CLARA_MLX_TOKEN=TOKEN) as gate:
        wrong = []
        for name, headers, passes in offered:
            status = gate.get("/v1/models", headers).status
            if (status == 200) != passes or status not in (200, 401):
                wrong.append(f"{name}: {status}")
        for path in (f"/v1/models?token={TOKEN}", f"/v1/models?access_token={TOKEN}"):
            if (status := gate.get(path).status) != 401:
                wrong.append(f"{path[:24]}: {status}")
        yield counted("tokens, right and wrong ones", "the right one only", wrong, len(offered) + 2)
        wrong = [
            f"{method} {path}: {status}"
            for path in _PATHS
            for method in _METHODS
            if (status := gate.ask(method, path).status) not in (401, 404, 405, 307)
            or (status != 401 and path in _PATHS[:11])
        ]
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"),
                   ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "x" * 24)]  # fmt: skip
        if (status := gate.get("/v1/models", upgrade).status) != 401:
            wrong.append(f"websocket: {status}")
        if (status := gate.get("/health").status) != 200:
            wrong.append(f"/health: {status}")
        tried = len(_PATHS) * len(_METHODS) + 2
        yield counted("paths and methods without a token", "401 but /health", wrong, tried)
        shown = TOKEN in gate.said()
        yield Verdict("the token in the log", "never", "there" if shown else "not there", not shown)


# Host values that name this machine, and others.
_OURS = ("127.0.0.1", "localhost", "LOCALHOST", "localhost.", "[::1]", "127.0.0.1:1", "127.9.9.9")
_THEIRS = (
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "127.1"),
    *("0x7f.1", "2130706433", "127.0.0.1.nip.io", "", "[", "[::]", "::1x", "a b", "evil.com:8100"),
    *("localhost@evil.com", "localhost:80@evil.com", "127.0.0.1/evil", "\xff", "*", "null"),
)
_PAGES = ("http://localhost:3000", "http://127.0.0.1", "https://localhost", "http://[::1]:9")
_STRANGERS = (
    *("https://evil.example", "null", "", "file://", "http://localhost.evil.example", "http://["),
    *("http://0.0.0.0", "http://127.0.0.1.nip.io", "http://localhost@evil.example", "localhost"),
)


def hosts(folder: Path) -> Iterator[Verdict]:
    """Names that requests may be sent to, and pages that they may come from."""
    with gateway(Upstream()) as gate:
        wrong = []
        for host in (*_OURS, *_THEIRS):
            status = gate.get("/v1/models", [("Host", host)]).status
            # "127.0.0.1/evil" names this machine to a parser of URLs; no browser sends it.
            if (status == 200) != (host in _OURS) and host != "127.0.0.1/evil":
                wrong.append(f"{host!r}: {status}")
        two = gate.get("/v1/models", [("Host", "localhost"), ("Host", "evil.example")]).status
        if two not in (400, 421):
            wrong.append(f"two hosts: {two}")
        for name in ("X-Forwarded-Host", "Forwarded", "X-Original-Host", "X-Host"):
            given = [("Host", "evil.example"), (name, "localhost")]
            if (status := gate.get("/v1/models", given).status) != 421:
                wrong.append(f"{name}: {status}")
        tried = len(_OURS) + len(_THEIRS) + 5
        yield counted("Host values", "loopback names pass, no other", wrong, tried)
        wrong = []
        for page in (*_PAGES, *_STRANGERS):
            for method, path in (("GET", "/v1/models"), ("POST", "/mcp"), ("OPTIONS", "/v1/x")):
                asked = [("Origin", page), ("Access-Control-Request-Method", "POST")]
                reply = gate.ask(method, path, b"{}", asked)
                if (reply.status == 403) != (page in _STRANGERS):
                    wrong.append(f"{method} {page!r}: {reply.status}")
                if any(name.startswith("access-control") for name in reply.headers):
                    wrong.append(f"{method} {page!r}: a CORS header")
        tried = 3 * (len(_PAGES) + len(_STRANGERS))
        yield counted("Origin values, and CORS", "loopback pages pass; no CORS", wrong, tried)
        wrong = []
        kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "")
        for path in ("/v1/chat/completions", "/v1/memory/remember", "/v1/memory/forget", "/mcp"):
            for kind in kinds:
                reply = gate.post(path, b'{"text": "x"}', [("Content-Type", kind)])
                if reply.status not in (400, 415):
                    wrong.append(f"{path} {kind}: {reply.status}")
        yield counted("types that a page may send unasked", "415, MCP 400 or 415", wrong, 16)


def smuggling(folder: Path) -> Iterator[Verdict]:
    """Requests of two meanings, and very many headers."""
    head = (
        "POST /v1/memory/recall HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    )
    body = '{"query":"x"}'
    chunked = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"
    second = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    tried = {
        "differing lengths": "Content-Length: 13\r\nContent-Length: 5\r\n\r\n" + body,
        "lengths in a list": "Content-Length: 13, 5\r\n\r\n" + body,
        "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n" + chunked,
        "chunked twice": "Transfer-Encoding: chunked, chunked\r\n\r\n" + chunked,
        "a space before the colon": "Content-Length : 13\r\n\r\n" + body,
        "a plus": "Content-Length: +13\r\n\r\n" + body,
        "a minus": "Content-Length: -1\r\n\r\n" + body,
        "hexadecimal": "Content-Length: 0xd\r\n\r\n" + body,
        "a negative chunk": "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        "a chunk without an end": "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFFF\r\nx",
        "a bare line feed in a header": "X: a\nContent-Length: 13\r\n\r\n" + body,
        "a NUL in a header": "X: a\0b\r\nContent-Length: 13\r\n\r\n" + body,
        "a folded header": "X: a\r\n b\r\nContent-Length: 13\r\n\r\n" + body,
    }
    with gateway(Upstream()) as gate:
        wrong = []
        for name, rest in tried.items():
            got = _statuses(gate, head + rest + second)
            # A folded or oddly ended header is harmless as long as its meaning is one.
            fine = got == ["400"] or (name.startswith(("a bare", "a folded")) and len(got) <= 2)
            if not fine:
                wrong.append(f"{name}: {' '.join(got)}")
        both = f"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
        got = _statuses(gate, head + both + second)
        if len(got) != 1:
            wrong.append(f"length and chunks: {' '.join(got)}")
        yield counted("smuggled requests", "400; never a second answer", wrong, len(tried) + 1)
        many: Headers = [(f"X-{number}", "y") for number in range(10_000)]
        reply = gate.get("/health", many)
        after = gate.get("/health")
        holds = reply.status in (200, 400, 431) and after.status == 200
        measured = f"{reply}; then {after}"
        yield Verdict("10,000 header lines", "an answer, and the next, too", measured, holds)


def _statuses(gate: Gateway, request: str) -> list[str]:
    """The statuses of all answers that come over one connection."""
    received = b""
    with suppress(OSError), gate.connect(3) as connection:
        connection.sendall(request.encode("latin-1"))
        while piece := connection.recv(65536):
            received += piece
    return re.findall(r"HTTP/1\.1 (\d+)", received.decode("latin-1"))


_SECRETS = (TOKEN, "reasoner-key-secret", "fallback-key-secret", "cookie-secret", "api-key-secret")


def keys(folder: Path) -> Iterator[Verdict]:
    """Secrets of one that must not reach another, and redirects."""
    reasoner, fallback, elsewhere = Upstream(), Upstream(), Upstream()
    secrets: dict[str, str] = {
        "CLARA_MLX_TOKEN": TOKEN,
        "CLARA_MLX_REASONER_KEY": _SECRETS[1],
        "CLARA_MLX_FALLBACK_KEY": _SECRETS[2],
    }
    options = ("--fallback-endpoint", fallback.url, "--fallback-model", "other")
    with gateway(reasoner, *options, **secrets) as gate:
        sent = [*BEARER, ("Cookie", f"a={_SECRETS[3]}"), ("x-api-key", _SECRETS[4])]
        image: list[dict[str, Any]] = [
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": elsewhere.url + "/image"}}]}
        ]  # fmt: skip
        for stream in (False, True):
            gate.chat("x", headers=sent, stream=stream)
            gate.chat(image, headers=sent, stream=stream)
        wrong = [
            f"{secret} at {who}"
            for who, server, own in (("reasoner", reasoner, 1), ("fallback", fallback, 2))
            for number, secret in enumerate(_SECRETS)
            for head in server.heads
            if number != own and secret in head
        ]
        wrong += [] if reasoner.heads and fallback.heads else ["somebody was not asked"]
        yield counted("keys and tokens of others, at either server", "none", wrong, 10)
        wrong = []
        for status in (301, 302, 303, 307, 308):
            moved = response(b"{}", f"{status} Moved\r\nLocation: {elsewhere.url}/chat/completions")
            reasoner.answer = lambda connection, body, moved=moved: connection.sendall(moved)
            fallback.answer = reasoner.answer
            got = gate.chat(f"go {status}", headers=BEARER).status
            if got not in (502, 503):
                wrong.append(f"{status}: {got}")
        wrong += [f"fetched: {head.splitlines()[0]}" for head in elsewhere.heads]
        yield counted("redirects and image URLs", "not followed, not fetched", wrong, 6)
        reasoner.answer = says()
