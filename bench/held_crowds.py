"""What held when the file is in trouble, or the crowd is large. The main line is held.py."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from statistics import quantiles

from gateway_process import Gateway, gateway
from held_faults import LINES, WINDOW, agents_messages, slowly, verified
from held_inputs import tests
from held_wire import counted
from scripted_upstream import Upstream
from verdicts import Check, Verdict

# -- disk and locks ------------------------------------------------------------------------------


def full_disk(folder: Path) -> Iterator[Verdict]:
    """A disk that fills up under the gateway, and has room again."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    with suppress(OSError):
        if subprocess.run(mount, capture_output=True).returncode:
            yield tests("a full disk (no tmpfs may be mounted here)", "tests/memory/test_disk.py")
            return
    ballast = disk / "ballast"
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    try:
        with gateway(Upstream(), "--window", "32768", db=disk / "agent.db") as gate:
            gate.post("/v1/memory/remember", {"text": "a treasure"})
            with suppress(OSError), ballast.open("wb") as writing:
                for _ in range(200):
                    writing.write(bytes(1 << 16))
            for number in range(12):
                reply = gate.chat(agents_messages(2, f"disk {number}"))
                seen[f"chat {reply.status}"] += 1
            for number in range(40):
                reply = gate.post("/v1/memory/remember", {"text": f"{number} {LINES * 20}"})
                seen[f"remember {reply.status}"] += 1
                wrong += [] if reply.status in (200, 503) else [f"remember: {reply}"]
            for path in ("/v1/memory/status", "/metrics", "/health"):
                reply = gate.get(path)
                wrong += [] if reply.status == 200 else [f"{path}: {reply}"]
            reply = gate.post("/v1/memory/recall", {"query": "treasure"})
            wrong += [] if reply.status == 200 else [f"recall: {reply}"]
            wrong += [] if seen["chat 200"] == 12 else ["a chat was not answered"]
            wrong += [] if seen["remember 503"] else ["the disk did not fill up"]
            ballast.unlink()
            time.sleep(0.5)
            reply = gate.post("/v1/memory/remember", {"text": "after it"})
            wrong += [] if reply.status == 200 else [f"remember, freed: {reply}"]
            reply = gate.post("/v1/memory/recall", {"query": "treasure"})
            wrong += [] if reply.status == 200 and reply.json()["hits"] else [f"recall: {reply}"]
            gate.stop()
            if problem := verified(gate.db):
                wrong.append(problem)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    yield counted(f"a full disk, then freed ({dict(seen)})",
                  "chats 200, remember 503, then all works", wrong, 60)  # fmt: skip


def a_locked_file(folder: Path) -> Iterator[Verdict]:
    """Another process that holds the file's lock for 35 seconds."""
    with gateway(Upstream(), "--window", "8192") as gate:
        gate.post("/v1/memory/remember", {"text": "a treasure"})
        locking = sqlite3.connect(gate.db, isolation_level=None, check_same_thread=False)
        locking.execute("BEGIN IMMEDIATE")
        threading.Timer(35, lambda: locking.execute("ROLLBACK")).start()
        with ThreadPoolExecutor(2) as pool:
            writes = pool.submit(gate.post, "/v1/memory/remember", {"text": "x"}, (), 60)
            time.sleep(0.2)
            quick = {
                "health": gate.get("/health"),
                "status": gate.get("/v1/memory/status"),
                "recall": gate.post("/v1/memory/recall", {"query": "treasure"}),
                "chat": gate.chat("short"),
            }
            compacts = pool.submit(gate.chat, agents_messages(14), 90)
            write, chat = writes.result(), compacts.result()
    wrong = [f"{name}: {r}" for name, r in quick.items() if r.status != 200 or r.seconds > 2]
    wrong += [] if write.status == 503 and write.seconds < 33 else [f"remember: {write}"]
    wrong += [] if chat.status == 200 else [f"compacting chat: {chat}"]
    measured = "reads and chats at once; remember 503 after the wait"
    yield counted("a file that is locked for 35 s", measured, wrong, 6)


def two_gateways(folder: Path) -> Iterator[Verdict]:
    """Two gateways on one file, with the same conversations."""
    db = folder / "agent.db"
    servers = (Upstream(), Upstream())
    wrong = []
    with ExitStack() as stack:
        gates = [stack.enter_context(gateway(s, *WINDOW, db=db)) for s in servers]
        with ThreadPoolExecutor(4) as pool:
            for number in range(30):
                messages = agents_messages(3 + number % 10, f"both {number % 3}")
                replies = list(pool.map(lambda gate, m=messages: gate.chat(m), gates))
                wrong += [f"chat {number}: {reply}" for reply in replies if reply.status != 200]
                first, second = (json.loads(s.bodies[-1])["messages"] for s in servers)
                if first != second:
                    wrong.append(f"chat {number}: the two sent different prompts")
        for gate in gates:
            gate.stop()
    if problem := verified(db):
        wrong.append(problem)
    yield counted("two gateways on one file", "all answered, same bytes from both", wrong, 60)


# -- crowds --------------------------------------------------------------------------------------


def crowd(full: bool) -> Check:
    """The check of 32 clients; a minute of them in full size."""

    def check(folder: Path) -> Iterator[Verdict]:
        """32 clients together."""
        seconds = 60 if full else 10
        numbers = count()
        times: list[float] = []
        errors: Counter[str] = Counter()
        with gateway(Upstream(), "--window", "16384") as gate:
            before = gate.resident()
            end = time.monotonic() + seconds

            def work(client: int) -> None:
                while time.monotonic() < end:
                    number = next(numbers)
                    steps = 1 + number // 32 % (80 if full else 12)
                    reply = gate.chat(
                        agents_messages(steps, f"client {client}"), stream=number % 2 > 0
                    )
                    times.append(reply.seconds)
                    if reply.status != 200:
                        errors[str(reply.status)] += 1

            with ThreadPoolExecutor(32) as pool:
                list(pool.map(work, range(32)))
            grown = (gate.resident() - before) / 2**20
            wal = Path(f"{gate.db}-wal")
            log = wal.stat().st_size / 1e6 if wal.exists() else 0.0
            gate.stop()
            problem = verified(gate.db)
        p50, p95 = (quantiles(times, n=20)[rank] for rank in (9, 18))
        yield Verdict(
            f"32 clients for {seconds} s", "no error, at most 200 MB more",
            f"{len(times)} requests, {dict(errors) or 'no error'}, p50 {p50:.2f} p95 {p95:.2f} "
            f"max {max(times):.2f} s, {grown:.0f} MB more, log {log:.1f} MB {problem}",
            not errors and not problem and grown < 200,
        )  # fmt: skip

    return check


def open_files(gate: Gateway) -> int:
    """The files that a gateway's process has open, or -1 where nobody can say."""
    try:
        return len(list(Path(f"/proc/{gate.process.pid}/fd").iterdir()))
    except OSError:
        return -1


def aborted_clients(full: bool) -> Check:
    """The check of clients that leave at once."""

    def check(folder: Path) -> Iterator[Verdict]:
        """Clients that leave before their answer."""
        number = 2000 if full else 400
        upstream = Upstream(slowly(0.5))
        with gateway(upstream) as gate:
            before = open_files(gate)
            body = json.dumps({"messages": [{"role": "user", "content": "x" * 500}]}).encode()
            for each in range(number):
                with suppress(OSError), gate.connect() as connection:
                    unique = body.replace(b'"x', b'"%d x' % each)
                    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                    head += f"application/json\r\nContent-Length: {len(unique)}\r\n\r\n"
                    connection.sendall(head.encode() + unique)
            most = open_files(gate)
            end = time.monotonic() + 60
            while open_files(gate) > before + 20 and time.monotonic() < end:
                time.sleep(0.5)
            after = open_files(gate)
            reply = gate.chat("still there?")
            heeded = gate.seconds_to_heed(signal.SIGTERM)
        yield Verdict(
            f"{number:,} aborted clients", "files closed again, the next answered",
            f"files {before}, {most}, {after}; {reply}; SIGTERM heeded in {heeded:.1f} s",
            reply.status == 200 and after <= before + 20 and heeded <= 1,
        )  # fmt: skip

    return check
