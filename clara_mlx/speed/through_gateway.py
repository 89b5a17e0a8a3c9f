"""What the gateway adds to a request: the same ones straight to a reasoner that answers at once."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clara_mlx.errors import ClaraError
from clara_mlx.speed.sampling import spread

#: What is measured: a short request, and one after so many messages, of which none is compacted.
HISTORIES = {"short": 0, "80 messages": 80}

_URL = re.compile(r"http://[^\s/]+:[0-9]+")
_WAYS = ("direct", "gateway")
_PATIENCE = 60.0  # seconds within which a server answers, or ends

# What the gateway and the reasoner run on.
_PACKAGES = ("starlette", "uvicorn", "httpx2")


def measure_gateway(requests: int) -> list[dict[str, Any]]:
    """Send requests to a reasoner directly and through `clara-mlx serve`, in turns.

    Returns:
        A row for each of `HISTORIES`, whole and streamed: the spread of both ways, and of what the
        gateway ``added``, by pairs; the first tenth only warms up.

    Raises:
        ClaraError: The extra ``serve`` is not installed, or a server does not start.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ClaraError(f"{' and '.join(missing)} missing: pip install 'clara-mlx[serve]'")
    with (
        tempfile.TemporaryDirectory(prefix="clara-mlx-bench-") as folder,
        _serving("-m", "clara_mlx.speed.upstream_process") as upstream,
        _serving(
            *("-m", "clara_mlx.cli", "serve", "--port", "0", "--endpoint", f"{upstream}/v1"),
            *("--db", str(Path(folder) / "memory.db")),
        ) as gateway,
    ):
        urls = {"direct": f"{upstream}/v1", "gateway": f"{gateway}/v1"}
        return [
            {"request": name, "streamed": streamed, **_send(urls, messages, streamed, requests)}
            for name, messages in HISTORIES.items()
            for streamed in (False, True)
        ]


@contextmanager
def _serving(*arguments: str) -> Iterator[str]:
    """A server process of this Python; gives the address that it prints first, without a path."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
    assert process.stderr
    read: list[str] = []
    found: re.Match[str] | None = None
    for line in process.stderr:
        read.append(line)
        if found := _URL.search(line):
            break
    # Nobody reads the rest of its log, which must not fill the pipe.
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        if found is None:
            raise ClaraError(f"{' '.join(arguments[1:3])} did not start: {''.join(read)[-300:]}")
        yield found[0]
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        drain.join(_PATIENCE)


def _send(
    urls: dict[str, str], messages: int, streamed: bool, requests: int
) -> dict[str, dict[str, Any]]:
    """The same requests both ways, in turns; no two are equal, as those of agents are not."""
    import httpx2

    history = [
        {
            "role": "assistant" if number % 2 else "user",
            "content": f"Message {number}: {'word ' * 60}",
        }
        for number in range(messages)
    ]
    taken: dict[str, list[float]] = {way: [] for way in _WAYS}
    with httpx2.Client(trust_env=False, timeout=_PATIENCE) as client:
        for number in range(requests):
            asked = {"role": "user", "content": f"Question {number}?"}
            body = {
                "model": "bench",
                "messages": [{"role": "system", "content": "You help."}, *history, asked],
                "stream": streamed,
            }
            for way in _WAYS:
                started = time.perf_counter()
                answer = client.post(f"{urls[way]}/chat/completions", json=body)
                taken[way].append(time.perf_counter() - started)
                answer.raise_for_status()
    warm = {way: seconds[requests // 10 :] for way, seconds in taken.items()}
    added = [through - direct for direct, through in zip(*warm.values(), strict=True)]
    return {**{way: spread(seconds) for way, seconds in warm.items()}, "added": spread(added)}
