"""Clients that hold the gateway up for others: the crowds and the large bodies of hostile.py."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Any

from gateway_process import AT_ONCE, Client, Gateway, gateway, watching
from hostile_findings import at_most, conversation, seconds_to_heed_while
from scripted_upstream import Upstream
from verdicts import Verdict

# -- connections that say nothing ----------------------------------------------------------------

_CONNECTIONS = 1050
_FILES = 1024  # that the gateway may open
_HELD = 25.0  # seconds that the connections stay
_LOG_BYTES = 1_000_000  # that the gateway may log meanwhile


def half_open_connections(folder: Path) -> Iterator[Verdict]:
    """S4: connections that never send a request, more than the gateway may open files."""
    with gateway(Upstream(), files=_FILES) as gate:
        connections = []
        for number in range(_CONNECTIONS):
            with suppress(OSError):
                connection = gate.connect(5)
                connections.append(connection)
                if number % 2:
                    connection.sendall(b"G")
        first = gate.get("/health", timeout=10)
        with watching(gate) as seen:
            time.sleep(_HELD)
        heeded = gate.seconds_to_heed()
        logged = gate.log.stat().st_size
        for connection in connections:
            connection.close()
    name = f"S4 {len(connections):,} half-open connections, {_FILES:,} files"
    worst = first.seconds if first.status == 200 else math.inf
    yield at_most(f"{name}: /health at once", AT_ONCE, worst)
    yield at_most(f"{name}: worst /health in {_HELD:g} s", AT_ONCE, seen.worst)
    yield at_most(f"{name}: SIGTERM heeded", AT_ONCE, heeded)
    yield Verdict(f"{name}: log", f"at most {_LOG_BYTES / 1e6:g} MB", f"{logged / 1e6:.2f} MB",
                  logged <= _LOG_BYTES)  # fmt: skip


# -- large bodies --------------------------------------------------------------------------------

_SIZE = (32 << 20) - 1000  # bytes of a value in a body; 32 MiB were the limit once
_MEMORY = 1 << 30  # bytes that the gateway may take meanwhile


def _filled(before: str, unit: str, after: str, joint: str = "") -> bytes:
    """A body of nearly `_SIZE` bytes."""
    room = _SIZE - len(before) - len(after) - len(unit)
    return (before + (unit + joint) * (room // len(unit + joint)) + unit + after).encode()


def large_texts() -> dict[str, str]:
    """JSON values of nearly 32 MiB, by name, written so that a parser has much to do."""
    keys = ",".join(f'"k{n}":0' for n in range(_SIZE // 14))
    csv = "\\n".join(f"{n},{n * 7919 % 100003},name{n},2026-11-{n % 28 + 1:02d}"
                     for n in range(_SIZE // 38))  # fmt: skip
    return {
        "empty lists": _filled("[", "[]", "]", ",").decode(),
        "empty objects": _filled("[", "{}", "]", ",").decode(),
        "keys": "{" + keys + "}",
        "a string of escapes": _filled('"', "\\u0000", '"').decode(),
        "deep nesting": "[" * (_SIZE // 2 - 100) + "]" * (_SIZE // 2 - 100),
        "numbers": _filled("[", "1", "]", ",").decode(),
        "one text": '"' + "x" * (_SIZE - 100) + '"',
        "CSV": f'"{csv}"'[: _SIZE - 200].rstrip('\\"') + '"',
    }


def bodies_of(value: str) -> dict[str, tuple[str, bytes]]:
    """Requests that carry a JSON value where a text belongs: path and body, by route."""
    call = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"remember","arguments":'
    return {
        "chat": (
            "/v1/chat/completions",
            b'{"messages":[{"role":"user","content":%s}]}' % value.encode(),
        ),
        "remember": ("/v1/memory/remember", b'{"text":%s}' % value.encode()),
        "mcp": ("/mcp", f'{call}{{"text":{value}}}}}}}'.encode()),
    }


def large_bodies(folder: Path) -> Iterator[Verdict]:
    """S5: bodies of 32 MiB on each route that reads one."""
    accept = [("Accept", "application/json, text/event-stream")]
    message = '{"role":"user","content":"x"}'
    tiny = f'{{"messages":[{",".join([message] * 60_000)}]}}'.encode()
    with gateway(Upstream()) as gate:
        for name, value in large_texts().items():
            for route, (path, body) in bodies_of(value).items():
                with watching(gate) as seen:
                    reply = gate.post(path, body, accept, timeout=60)
                yield _body_row(f"S5 {name}, {route}", reply.status, reply.seconds, seen)
        with watching(gate) as seen:
            reply = gate.post("/v1/chat/completions", tiny, timeout=120)
        yield _body_row("S5 60,000 tiny messages, chat", reply.status, reply.seconds, seen)
    for name in ("empty lists", "CSV"):
        path, body = bodies_of(large_texts()[name])["chat"]
        with gateway(Upstream()) as gate:
            heeded = seconds_to_heed_while(gate, partial(gate.post, path, body))
        yield at_most(f"S5 {name}, chat: SIGTERM heeded", AT_ONCE, heeded)


def _body_row(what: str, status: int, seconds: float, seen: Any) -> Verdict:
    peak = seen.resident
    return Verdict(
        what,
        f"/health {AT_ONCE:g} s, {_MEMORY >> 20} MB, an answer",
        f"/health {seen.worst:.2f} s, {peak >> 20} MB, {status} after {seconds:.1f} s",
        seen.worst <= AT_ONCE and peak <= _MEMORY and 0 < status != 500,
    )


# -- one hostile conversation beside others ------------------------------------------------------

_OTHERS = 4  # conversations beside it
_ROUNDS = 4  # times that they are measured alone, and beside it
_SECONDS = 6.0  # of each measurement
_CALM = 3.0  # seconds until the gateway has done what the hostile one left it
_PAUSE = 0.2  # seconds that each of them thinks between two requests
_LINES = "\n".join(f"tests/test_io.py::test_{n} PASSED in 0.{n:03d}s" for n in range(60))


def hostile_outputs() -> dict[str, str]:
    """Outputs of tools that make whoever reads them work, about as long as a file."""
    rows = ",".join(f'{{"id":{n},"path":"src/a{n}.py","v":"1.{n}.0"}}' for n in range(44_000))
    return {
        "blank lines": "\n" * 100_000 + _LINES,
        "../ runs": "../" * 33_000,
        "a/ runs": "a/" * 50_000,
        "1. runs": "1." * 50_000,
        "one line of JSON, 2 MB": f"[{rows}]"[:2_000_000],
    }


def _times_of_others(gate: Gateway, seconds: float) -> list[float]:
    """The seconds that each of the others' requests took; infinity if one was not answered."""
    end = time.monotonic() + seconds
    times: list[float] = []

    def talk(number: int) -> None:
        messages: list[dict[str, Any]] = []
        while time.monotonic() < end:
            messages += conversation([f"run {len(messages)}\n{_LINES}"], f"Person {number}")[
                len(messages) > 0 :
            ]
            reply = gate.chat(messages, timeout=20, headers=[("x-clara-session", f"p{number}")])
            times.append(reply.seconds if reply.status == 200 else math.inf)
            time.sleep(_PAUSE)
            if len(messages) > 40:
                messages = []

    with ThreadPoolExecutor(_OTHERS) as pool:
        list(pool.map(talk, range(_OTHERS)))
    return times


def _p95(times: list[float]) -> float:
    return math.inf if math.inf in times else quantiles(times, n=20)[18]


def attack(port: int, output: str) -> None:
    """Ask about new conversations with this output again and again; a process of its own."""
    client = Client(port)
    for number in count():
        texts = [f"{output}\n{number}{n}" for n in range(4)]
        reply = client.chat(conversation(texts, f"attack {number}"), timeout=60)
        if not reply.status:
            time.sleep(1)


def _attacker(gate: Gateway, output: str) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(
        target=attack, args=(gate.port, output), daemon=True
    )
    process.start()
    return process


def a_hostile_neighbour(folder: Path) -> Iterator[Verdict]:
    """Others' p95 beside a conversation whose tool outputs are made to be slow."""
    for name, output in hostile_outputs().items():
        alone: list[float] = []
        beside: list[float] = []
        with gateway(Upstream(), "--window", "8192") as gate:
            _times_of_others(gate, _SECONDS)  # warm
            for _ in range(_ROUNDS):  # in turn, since the machine may have other work
                alone += _times_of_others(gate, _SECONDS)
                attacker = _attacker(gate, output)
                beside += _times_of_others(gate, _SECONDS)
                if math.inf in beside:
                    break
                attacker.kill()
                time.sleep(_CALM)
            attacker = _attacker(gate, output)
            time.sleep(1)
            heeded = gate.seconds_to_heed()
            attacker.kill()
        ratio = _p95(beside) / _p95(alone)
        yield Verdict(
            f"p95 of {_OTHERS} others beside {name}",
            "at most twice what it is alone",
            f"{1e3 * _p95(beside):.0f} / {1e3 * _p95(alone):.0f} ms = {ratio:.2f} "
            f"({len(beside)} requests beside, {len(alone)} alone)",
            ratio <= 2,
        )
        yield at_most(f"SIGTERM beside {name}: heeded", AT_ONCE, heeded)


# -- connections that trickle --------------------------------------------------------------------


def trickling_headers(folder: Path) -> Iterator[Verdict]:
    """S4: a client that sends a byte of its headers a second is sent away."""
    with gateway(Upstream()) as gate:
        connection = gate.connect(5)
        begun = time.monotonic()
        ended = math.inf
        for byte in b"GET /health HTTP/1.1\r\nX-Slow: " + b"x" * 90:
            try:
                connection.settimeout(1)
                connection.sendall(bytes([byte]))
                if connection.recv(1000) == b"":
                    raise ConnectionResetError
                ended = time.monotonic() - begun
                break
            except TimeoutError:
                continue
            except OSError:
                ended = time.monotonic() - begun
                break
        connection.close()
    yield at_most("S4 a byte of headers a second: sent away", 60, ended)
