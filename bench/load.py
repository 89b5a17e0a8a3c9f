"""Measures the gateway under load: the time it adds to a request, and whether its memory grows.

    python bench/load.py --clients 64 --seconds 60

The gateway runs as users run it, `clara-mlx serve` in a process of its own, in front of a server
that answers at once. So all time is the gateway's (and this program's, on the same machine). First,
one client sends each request to that server directly and through the gateway. Then many clients
send chats, streams and memory calls together. Results go to bench/results/load.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2

from clara_mlx import machine

RESULTS = Path(__file__).parent / "results"
SERVE = "from clara_mlx.cli.serve import commands; commands()"
# A tool output, as clients remember it.
OUTPUT = "\n".join(f"tests/test_io.py::test_{n} PASSED in 0.{n:03d}s" for n in range(60))
# The requests of a client, again and again: chats, streams, and memory calls.
KINDS = (
    *("chat", "chat", "stream", "chat", "remember"),
    *("chat", "stream", "recall", "chat", "original"),
)
SAMPLES = 30  # times that the gateway's resident memory is read


def upstream() -> None:
    """Serve answers of a few words, without delay, on a free port that is printed."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    usage = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}

    async def chat(request: Request) -> Response:
        body = await request.json()
        base = {"id": "x", "created": 1, "model": "m"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "one two three"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
            return JSONResponse(answer)
        deltas = [({"content": word}, None) for word in ("one", " two", " three")]
        choices = [{"index": 0, "delta": d, "finish_reason": f} for d, f in [*deltas, ({}, "stop")]]
        chunks = [{**base, "choices": [choice]} for choice in choices]
        events = [*chunks, {**base, "choices": [], "usage": usage}]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"

        async def body_of() -> Any:
            yield text

        return StreamingResponse(body_of(), media_type="text/event-stream")

    from clara_mlx.serve import listening_socket

    with listening_socket("127.0.0.1", 0) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", file=sys.stderr, flush=True)
        app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        server.run(sockets=[listening])


@contextmanager
def process(*command: str) -> Iterator[tuple[str, int]]:
    """A server process; gives its URL, which it prints first, and the process id."""
    started = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    assert started.stderr
    line = started.stderr.readline()
    match = re.search(r"http://\S+", line)
    if match is None:
        started.terminate()
        raise SystemExit(line + started.stderr.read())
    # Nobody reads the log, which must not fill the pipe.
    drain = subprocess.Popen(["cat"], stdin=started.stderr, stdout=subprocess.DEVNULL)
    try:
        yield match[0], started.pid
    finally:
        started.terminate()
        started.wait(60)
        drain.wait(60)


def resident(pid: int) -> int:
    """Bytes of resident memory."""
    out = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(out.stdout) * 1024


def body_of(number: int, *, stream: bool = False) -> dict[str, Any]:
    """A chat request that differs from all others."""
    messages = [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": f"Question {number}: {'word ' * 100}"},
    ]
    return {"model": "m", "messages": messages, "max_tokens": 5, "stream": stream}


async def measure_overhead(direct: str, through: str, requests: int) -> dict[str, Any]:
    """Milliseconds of the same requests, sent to the server directly and through the gateway.

    Requests with a long history, of which nothing is compacted, are measured apart.
    """
    long = [m for n in range(40) for m in [*body_of(n)["messages"][1:], _assistant(n)]]
    long = [*long, {"role": "user", "content": "And?"}]
    figures: dict[str, Any] = {}
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
        for name, history in (("short", None), ("80 messages", long)):
            times: dict[str, list[float]] = defaultdict(list)
            for number in range(requests):
                body = body_of(number)
                if history:
                    body["messages"] = [*history[:-1], {**history[-1], "content": f"And {number}?"}]
                for where, url in (("direct", direct), ("gateway", through)):
                    begun = time.perf_counter()
                    answer = await client.post(f"{url}/chat/completions", json=body)
                    times[where].append(1e3 * (time.perf_counter() - begun))
                    answer.raise_for_status()
            warm = {where: values[requests // 10 :] for where, values in times.items()}
            figures[name] = {where: _spread(values) for where, values in warm.items()}
            pairs = zip(warm["gateway"], warm["direct"], strict=True)
            figures[name]["added_p50_ms"] = median(a - b for a, b in pairs)
    return figures


def _assistant(number: int) -> dict[str, Any]:
    return {"role": "assistant", "content": f"Answer {number}: {'word ' * 100}"}


async def measure_load(url: str, pid: int, clients: int, seconds: float) -> dict[str, Any]:
    """Let many clients send requests until the time is over; times, errors and resident memory."""
    times: dict[str, list[float]] = defaultdict(list)
    errors: Counter[str] = Counter()
    numbers = count(10**6)
    end = time.monotonic() + seconds
    memory: list[int] = []
    handles: list[str] = []

    async def send(client: httpx2.AsyncClient, kind: str) -> None:
        number = next(numbers)
        begun = time.perf_counter()
        if kind in ("chat", "stream"):
            body = body_of(number, stream=kind == "stream")
            answer = await client.post(f"{url}/chat/completions", json=body)
            if kind == "stream" and not answer.text.endswith("data: [DONE]\n\n"):
                errors["stream without an end"] += 1
        elif kind == "remember":
            text = {"text": f"run {number}\n{OUTPUT}", "source": "load"}
            answer = await client.post(f"{url}/memory/remember", json=text)
            handles.append(answer.json()["handle"])
        elif kind == "recall":
            query = {"query": f"test_{number % 60} PASSED", "k": 5}
            answer = await client.post(f"{url}/memory/recall", json=query)
        elif handles:
            handle = handles[number % len(handles)]
            answer = await client.get(f"{url}/memory/original/{handle}")
        else:
            return  # nothing has been remembered yet
        times[kind].append(1e3 * (time.perf_counter() - begun))
        if answer.status_code != 200:
            errors[f"{kind} {answer.status_code}"] += 1

    async def work(start: int) -> None:
        limits = httpx2.Limits(max_keepalive_connections=1)
        async with httpx2.AsyncClient(trust_env=False, timeout=60, limits=limits) as client:
            for step in count(start):
                if time.monotonic() > end:
                    return
                try:
                    await send(client, KINDS[step % len(KINDS)])
                except httpx2.HTTPError as error:
                    errors[type(error).__name__] += 1

    async def watch() -> None:
        while time.monotonic() < end:
            memory.append(await asyncio.to_thread(resident, pid))
            await asyncio.sleep(seconds / SAMPLES)

    await asyncio.gather(watch(), *(work(number) for number in range(clients)))
    return {
        "clients": clients,
        "seconds": seconds,
        "requests": sum(map(len, times.values())),
        "errors": dict(errors),
        "by_kind": {kind: {"requests": len(t)} | _spread(t) for kind, t in sorted(times.items())},
        "resident_bytes": {
            "first": memory[0],
            "after a third": memory[len(memory) // 3],
            "last": memory[-1],
            "every": memory,
        },
    }


def _spread(values: list[float]) -> dict[str, float]:
    ranks = quantiles(values, n=100)
    return {"p50_ms": median(values), "p95_ms": ranks[94], "p99_ms": ranks[98]}


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULTS / "load.json")
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        upstream()
        return
    with tempfile.TemporaryDirectory() as folder, process(__file__, "--upstream") as (direct, _):
        db = str(Path(folder) / "agent.db")
        serving = ("-c", SERVE, "serve", "--port", "0", "--db", db, "--endpoint", direct)
        with process(*serving) as (through, pid):
            result = {
                "machine": machine.describe() | {"load_average": os.getloadavg()},
                "overhead": asyncio.run(measure_overhead(direct, through, options.requests)),
            }
            result["load"] = asyncio.run(
                measure_load(through, pid, options.clients, options.seconds)
            )
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
