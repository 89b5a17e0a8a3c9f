"""A gateway as a process: requests to it, and what is seen of it meanwhile.

Used by hostile.py and held.py. It measures nothing by itself.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripted_upstream import Upstream

SERVE = "from clara_mlx.cli.serve import commands; commands()"

#: Seconds within which `/health` has to answer, and a signal has to be heeded.
AT_ONCE = 1.0

# Seconds between two looks at `/health`, and at the process's memory.
_EVERY = 0.05

# Seconds after which one look at `/health` counts as never answered.
_NEVER = 15.0

# Seconds that a gateway may take to start on a busy machine.
_START = 60.0

#: Headers and values, in order; a mapping can't repeat one.
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """What came back; status 0 stands for no answer, and ``content`` then says why."""

    status: int
    content: bytes
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)

    def __str__(self) -> str:
        shown = str(self.status) if self.status else f"no answer ({self.text[:60]})"
        return f"{shown} after {self.seconds:.1f} s"


class Client:
    """Sends requests to a port of this machine, each over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = port

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """A connection to it."""
        return socket.create_connection((self.host, self.port), timeout)

    def send(self, request: bytes, timeout: float = 30.0, method: str = "GET") -> Reply:
        """Send the bytes of a request over a connection of its own, and read one response."""
        begun = time.monotonic()
        try:
            with self.connect(timeout) as connection:
                with suppress(BrokenPipeError, ConnectionResetError):  # it may answer early
                    connection.sendall(request)
                answer = http.client.HTTPResponse(connection, method=method)
                answer.begin()
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            return Reply(0, reason.encode(), time.monotonic() - begun)
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, content, time.monotonic() - begun, headers)

    def ask(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Headers = (),
        timeout: float = 30.0,
    ) -> Reply:
        """Send a request; headers that are given replace those of the same name."""
        given = {name.lower() for name, _ in headers}
        own = [
            ("Host", f"{self.host}:{self.port}"),
            ("Connection", "close"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
        ]
        lines = [f"{name}: {value}" for name, value in own if name.lower() not in given]
        lines += [f"{name}: {value}" for name, value in headers]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
        return self.send(head.encode("latin-1") + content, timeout, method)

    def get(self, path: str, headers: Headers = (), timeout: float = 30.0) -> Reply:
        """GET a path."""
        return self.ask("GET", path, b"", headers, timeout)

    def post(self, path: str, body: Any, headers: Headers = (), timeout: float = 30.0) -> Reply:
        """POST JSON; bytes go as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, content, headers, timeout)

    def chat(
        self, messages: str | list[dict[str, Any]], timeout: float = 30.0, **options: Any
    ) -> Reply:
        """Ask for a chat completion; ``headers`` among the options are the request's."""
        headers = options.pop("headers", ())
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {"model": "m", "messages": messages, **options}
        return self.post("/v1/chat/completions", body, headers, timeout)

    def call(
        self, tool: str, headers: Headers = (), timeout: float = 30.0, **arguments: Any
    ) -> Reply:
        """Call a tool of the memory over MCP."""
        request = {"name": tool, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": request}
        accept = [("Accept", "application/json, text/event-stream"), *headers]
        return self.post("/mcp", body, accept, timeout)


class Refused(RuntimeError):
    """The gateway said why it can't start, and ended."""


class Gateway(Client):
    """A running gateway.

    Attributes:
        process: Its process.
        db: Its memory's file.
        log: The file that its standard error goes to.
    """

    def __init__(self, process: subprocess.Popen[bytes], db: Path, log: Path) -> None:
        self.process = process
        self.db = db
        self.log = log
        end = time.monotonic() + _START
        while not (found := re.search(r"http://[^\s:/]+:(\d+)/v1", self.said())):
            self._check_start(end)
            time.sleep(0.02)
        super().__init__(int(found[1]))
        while not self.get("/health", timeout=5).status:
            self._check_start(end)

    def _check_start(self, end: float) -> None:
        if (code := self.process.poll()) is not None:
            raise Refused(f"the gateway ended with {code}: {self.said()[-500:]}")
        if time.monotonic() > end:
            raise RuntimeError(f"the gateway did not start in {_START:g} s: {self.said()[-500:]}")

    def said(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    def resident(self) -> int:
        """Bytes of resident memory, of its children too."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, check=True, text=True
        )
        rows = [list(map(int, line.split())) for line in listed.stdout.splitlines()]
        own = {self.process.pid}
        while more := {pid for pid, parent, _ in rows if parent in own} - own:
            own |= more
        return sum(size for pid, _, size in rows if pid in own) * 1024

    def seconds_to_heed(self, signum: int = signal.SIGTERM) -> float:
        """Send a signal; the seconds until it takes no more connections, or infinity."""
        self.process.send_signal(signum)
        begun = time.monotonic()
        while (waited := time.monotonic() - begun) < _NEVER:
            try:
                self.connect(0.5).close()
            except ConnectionRefusedError:
                return waited
            except OSError:
                pass
            time.sleep(0.01)
        return float("inf")

    def stop(self) -> int:
        """End it gracefully, or else by force; gives the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def gateway(
    upstream: Upstream, *options: str, db: Path | None = None, files: int = 0, **environment: str
) -> Iterator[Gateway]:
    """A gateway that is killed afterwards; ``files`` limits the files that it may open."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with tempfile.TemporaryDirectory() as folder:
        db = db or Path(folder) / "agent.db"
        log = Path(folder) / "gateway.log"
        given = ("--port", "0", "--db", str(db), "--endpoint", upstream.url, *options)
        with log.open("wb") as writing:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", *given],
                stdout=writing,
                stderr=writing,
                env={**os.environ, **environment},
                preexec_fn=limit_files if files else None,
            )
        try:
            yield Gateway(process, db, log)
        finally:
            process.kill()
            process.wait()


# -- looking on ----------------------------------------------------------------------------------


@dataclass
class Watch:
    """What was seen of a gateway meanwhile."""

    health: list[float] = field(default_factory=list)  # seconds that each answer took
    resident: int = 0  # the most bytes of memory

    @property
    def worst(self) -> float:
        """The slowest answer of `/health`; infinity if one never came."""
        return max(self.health, default=0.0)


@contextmanager
def watching(gate: Gateway) -> Iterator[Watch]:
    """Ask for `/health` again and again, over a new connection each time."""
    seen = Watch(resident=gate.resident())
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_EVERY):
            reply = gate.get("/health", timeout=_NEVER)
            seen.health.append(reply.seconds if reply.status == 200 else float("inf"))

    def weigh() -> None:
        while not ended.wait(4 * _EVERY):
            seen.resident = max(seen.resident, gate.resident())

    threads = [threading.Thread(target=look), threading.Thread(target=weigh)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()
