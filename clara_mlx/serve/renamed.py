"""Conversations whose names change from request to request, so that each of them starts anew.

A conversation without a name of its own is named after its first message. A client that puts the
time into that message has a new conversation in every request: nothing is found again, and each
request is compacted from scratch. Nothing here changes that; the log says what would.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from clara_mlx.serve.conversations import Landmark

# The messages after the first one by which a conversation is known again: an answer and what
# follows it. Two conversations seldom have these in common and differ in the first.
_KNOWN_BY = slice(1, 4)

# Conversations that are known at a time; the least recently used go first.
_MOST = 1_000


class Renamed:
    """Notices conversations that come back under another name. Safe to use from several threads."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[bytes, ...], str | None] = OrderedDict()
        self._lock = Lock()

    def look(self, name: str, landmarks: Sequence[Landmark]) -> str | None:
        """The name that a conversation had before, if it has another one now; told only once.

        Args:
            name: The name that it has now.
            landmarks: Its messages.
        """
        key = tuple(one.digest for one in landmarks[_KNOWN_BY])
        if len(key) < _KNOWN_BY.stop - _KNOWN_BY.start:
            return None
        with self._lock:
            before = self._names.get(key, name)
            self._names[key] = name if before == name else None  # None: it has been told
            self._names.move_to_end(key)
            while len(self._names) > _MOST:
                self._names.popitem(last=False)
        return None if before == name else before
