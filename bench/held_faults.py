"""What held when processes are killed and upstreams break. The main line is held.py."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway_process import Gateway, Reply, gateway
from held_inputs import tests
from held_wire import counted
from hostile_files import command
from hostile_findings import conversation
from scripted_upstream import Answers, Upstream, completion, response, says, sends
from verdicts import Check, Verdict

LINES = "\n".join(f"tests/test_io.py::test_{n} PASSED in 0.{n:03d}s" for n in range(70))
WINDOW = ("--window", "4096", "--reserve", "1024")


def agents_messages(steps: int, name: str = "work") -> list[dict[str, Any]]:
    """A conversation that has to be compacted for a small window; equal for equal arguments."""
    outputs = [f"{name} run {n} at {n * 7919}\n{LINES}" for n in range(steps)]
    return conversation(outputs, f"Please do the {name}.")


def verified(db: Path) -> str:
    """What `verify` has against a file; nothing if it is sound."""
    status, said, _ = command("verify", "--db", db)
    return "" if status == 0 else f"verify: {said[-100:]}"


# -- kills ---------------------------------------------------------------------------------------


def killed_workers(full: bool) -> Check:
    """The check of memory workers that are killed; in full size many more of them."""

    def check(folder: Path) -> Iterator[Verdict]:
        """SIGKILL of memory workers."""
        yield tests("SIGKILL of memory workers", "tests/memory/test_kill.py")
        if full:
            import stress

            figures = stress.kill(folder, None)  # asserts that nothing was lost
            yield Verdict("SIGKILL of memory workers, many", "nothing lost, verify clean",
                          json.dumps(figures)[:200], True)  # fmt: skip

    return check


def killed_gateways(full: bool) -> Check:
    """The check of gateways that are killed in the middle of an answer."""

    def check(folder: Path) -> Iterator[Verdict]:
        """SIGKILL of the gateway while it compacts and streams."""
        rng = random.Random(1)
        times = 22 if full else 5
        db = folder / "agent.db"
        wrong: list[str] = []
        prompts: dict[int, bytes] = {}
        for number in range(times):
            messages = agents_messages(6 + 2 * (number % 4))
            upstream = Upstream()
            with gateway(upstream, *WINDOW, db=db) as gate:
                asking = threading.Thread(
                    target=gate.chat, args=(messages,), kwargs={"stream": True}, daemon=True
                )
                asking.start()
                time.sleep(rng.uniform(0, 1.0))
                gate.process.kill()
                gate.process.wait()
            for _ in range(2):  # after one restart, and after another
                with gateway(upstream, *WINDOW, db=db) as gate:
                    reply = gate.chat(messages, stream=True)
                if reply.status != 200:
                    wrong.append(f"kill {number}: {reply}")
            sent = {json.dumps(json.loads(body)["messages"]) for body in upstream.bodies}
            known = prompts.setdefault(len(messages), sent.pop().encode() if sent else b"")
            if len(sent) > 0 or known == b"":
                wrong.append(f"kill {number}: {len(sent) + 1} different prompts")
        if problem := verified(db):
            wrong.append(problem)
        yield counted("SIGKILL of the gateway, restart, same conversation",
                      "prompts byte-identical, verify clean", wrong, times)  # fmt: skip

    return check


def _append(replies: list[Reply], gate: Gateway, question: str) -> None:
    replies.append(gate.chat(question))


def slowly(seconds: float) -> Answers:
    """The behaviour of a server that takes its time."""

    def answer(connection: socket.socket, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        connection.sendall(completion(body, "ok"))

    return answer


def stopped_with_answers_running(folder: Path) -> Iterator[Verdict]:
    """SIGTERM with requests in flight."""
    for number in (1, 8):
        upstream = Upstream(slowly(2))
        replies: list[Reply] = []
        with gateway(upstream) as gate:
            threads = [
                threading.Thread(target=_append, args=(replies, gate, f"q{n}"))
                for n in range(number)
            ]
            for thread in threads:
                thread.start()
            end = time.monotonic() + 10
            while len(upstream.bodies) < number and time.monotonic() < end:
                time.sleep(0.02)
            begun = time.monotonic()
            code = gate.stop()
            seconds = time.monotonic() - begun
            for thread in threads:
                thread.join()
            left = Path(f"{gate.db}-wal").exists()
        good = sum(reply.status == 200 for reply in replies)
        yield Verdict(
            f"SIGTERM with {number} requests in flight",
            "all answered, exit 0, no -wal left",
            f"{good} answered, exit {code} after {seconds:.1f} s{', a -wal' if left else ''}",
            good == number and code == 0 and not left and seconds < 8,
        )


# -- upstreams -----------------------------------------------------------------------------------


def _chunks(*deltas: dict[str, Any]) -> bytes:
    return b"".join(
        b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()
        for delta in deltas
    )


def _reset(connection: socket.socket, body: dict[str, Any]) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def faulty_upstreams(folder: Path) -> Iterator[Verdict]:
    """Upstreams that break every rule there is."""
    event_stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    part = {"index": 0, "id": "c", "function": {"name": "bash", "arguments": '{"a'}}
    right = completion({}, "right")
    body = right.partition(b"\r\n\r\n")[2]
    plain = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    faults: dict[str, tuple[Answers, tuple[int, ...]]] = {
        "hangs": (lambda connection, body: time.sleep(6), (504,)),
        "resets": (_reset, (502, 503)),
        "no bytes": (sends(b""), (502,)),
        "cut in a tool call": (sends(event_stream, _chunks({"tool_calls": [part]})), (502,)),
        "HTML": (sends(response(b"<html>busy</html>", kind="text/html")), (502,)),
        "too long a length": (sends(plain + b"Content-Length: 99999\r\n\r\n" + body), (502,)),
        "too short a length": (sends(plain + b"Content-Length: 20\r\n\r\n" + body), (502,)),
        "no length": (sends(plain + b"\r\n" + body), (200,)),
        "HTTP/0.9": (sends(body), (502,)),
        "HTTP/1.0": (sends(plain.replace(b"1.1", b"1.0", 1) + b"\r\n" + body), (200,)),
        "101": (sends(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), (502,)),
        "204": (sends(b"HTTP/1.1 204 No Content\r\n\r\n"), (502,)),
        "5,000 x 100": (sends(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, right), (200, 502)),
        "garbage": (sends(bytes(range(256)) * 50), (502,)),
        "another JSON": (sends(response(b'{"choices": {}}')), (502,)),
    }  # fmt: skip
    upstream = Upstream()
    wrong = []
    with gateway(upstream, "--timeout", "3") as gate:
        for number, (name, (answer, statuses)) in enumerate(faults.items()):
            upstream.answer = answer
            for stream in (False, True):
                reply = gate.chat(f"fault {number}", stream=stream, timeout=20)
                # A stream that had begun ends with an error event, and an answer is JSON there.
                fine = reply.status in (*statuses, *((502,) if stream else ()))
                if stream and reply.status == 200:
                    fine = '"error"' in reply.text
                if not fine or reply.seconds > 8:
                    wrong.append(f"{name}{', streamed' if stream else ''}: {reply}")
        upstream.answer = says("ok")
        last = gate.chat("still there?")
        wrong += [] if last.status == 200 else [f"afterwards: {last}"]
        traces = gate.said().count("Traceback")
        wrong += [f"{traces} tracebacks"] if traces else []
    yield counted("faults of an upstream", "502 or 504, or an error event", wrong, 2 * len(faults))


def a_flapping_reasoner(folder: Path) -> Iterator[Verdict]:
    """A reasoner that fails, with a fallback beside it."""
    reasoner, fallback = Upstream(_reset), Upstream()
    options = ("--fallback-endpoint", fallback.url, "--fallback-model", "other")
    with gateway(reasoner, *options) as gate:
        statuses = [gate.chat(f"q{n}").status for n in range(6)]
    asked = len(reasoner.bodies)
    yield Verdict("fallback when the reasoner fails", "6 of 6 answered, reasoner asked 3 times",
                  f"{statuses.count(200)} of 6, asked {asked} times",
                  statuses == [200] * 6 and asked == 3)  # fmt: skip
