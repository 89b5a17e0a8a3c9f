"""A log that a client can't fill: a fault that repeats is written once a second."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

# Seconds between two lines of the same fault.
_SECONDS = 1.0

# Kinds of faults that are told apart; the one that was seen the longest ago is forgotten first.
_MOST_KINDS = 256

# Characters of a message that tell its kind.
_KIND_CHARACTERS = 100


# What uvicorn says when a client tries a WebSocket, with advice that is of no use here: the client
# is told what to do instead.
_ABOUT_WEBSOCKETS = ("Unsupported upgrade request", "No supported WebSocket library")


def quieten(handler: logging.Handler) -> None:
    """Write each fault once a second at most, and nothing of what a library says per request."""
    handler.addFilter(OncePerSecond())
    for name in ("httpx2", "mcp"):  # a line for each request, and more
        logging.getLogger(name).setLevel(logging.WARNING)


class OncePerSecond(logging.Filter):
    """Drops warnings and errors that came less than a second ago, and counts them.

    What is of no use to anybody is dropped, too.

    The next line of the same kind says how many were dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        # By logger and beginning of the message: when it was written, how many have been dropped.
        self._written: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if record.levelno < logging.WARNING:
            return True
        if str(record.msg).startswith(_ABOUT_WEBSOCKETS):
            return False
        # The message before its arguments are put in: these differ from fault to fault.
        kind = record.name, str(record.msg).split("\n")[0][:_KIND_CHARACTERS]
        now = self._clock()
        written, dropped = self._written.get(kind, (-_SECONDS, 0))
        if now - written < _SECONDS:
            self._written[kind] = written, dropped + 1
            return False
        self._written[kind] = now, 0
        self._written.move_to_end(kind)
        if len(self._written) > _MOST_KINDS:
            self._written.popitem(last=False)
        if dropped:
            record.msg = f"{record.msg} ({dropped} more like this were not written)"
        return True
