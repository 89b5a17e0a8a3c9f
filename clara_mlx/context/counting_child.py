"""The process in which a reasoner's tokenizer and chat template run; see `counting_process`.

It reads requests from its standard input, a socket, one JSON object a line, and answers each in a
line. It ends when the socket does: with the gateway, however that ended.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from typing import Any

from clara_mlx.context.counting import ChatTemplate, Refused
from clara_mlx.errors import ClaraError

# Bytes that the process may take beside what it takes once the tokenizer is loaded. A prompt of a
# million tokens takes about a third of it.
_ROOM = 2 * 1024**3

# Seconds after the parent's own limit at which the process ends by itself, if the parent is gone.
_GRACE = 1.0

# Characters of an error that are passed on; a template can raise one of any length.
_ERROR = 1_000


def main() -> None:
    """Answer requests until the parent closes the socket."""
    connection = socket.socket(fileno=os.dup(0))
    # Nothing that is loaded here may read the requests, as transformers does with its questions.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    lines = connection.makefile("rb")

    def send(answer: dict[str, Any]) -> None:
        connection.sendall(json.dumps(answer).encode() + b"\n")

    given = json.loads(lines.readline())

    def start_to_count() -> None:
        send({"loaded": True})
        _limit_memory()
        _end_after(given["seconds"] + _GRACE)

    _end_after(given["load_seconds"] + _GRACE)
    try:
        counter = ChatTemplate(given["folder"], given["options"], start_to_count)
    except ClaraError as error:
        send({"error": str(error)})
        return
    _end_after(0)
    send(
        {
            "takes_late_system_message": counter.takes_late_system_message,
            "takes_users_in_a_row": counter.takes_users_in_a_row,
            "takes_thought_beside_text": counter.takes_thought_beside_text,
        }
    )
    for line in lines:
        _end_after(given["seconds"] + _GRACE)
        answer = _count(counter, line)
        _end_after(0)
        send(answer)


def _count(counter: ChatTemplate, line: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(line)
        if "text" in asked:
            return {"tokens": counter.text(asked["text"])}
        return {"tokens": counter.prompt(asked["messages"], asked["tools"])}
    except BaseException as error:  # a panic of the tokenizer is no Exception
        told = str(error)[:_ERROR] or type(error).__name__
        return {"refused" if isinstance(error, Refused) else "error": told}


def _end_after(seconds: float) -> None:
    """Have the system end this process after some seconds, whatever it does then; 0: never."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory() -> None:
    """Bound the process's memory. Only Linux does that: macOS takes the limit and ignores it."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            taken = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + _ROOM, taken + _ROOM))
