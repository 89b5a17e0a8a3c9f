"""Thoughts that their API wants back as they came: signed, or encrypted.

The inner form has a thought as text only. So the items that a thought came in are kept here, under
that text, for as long as the process runs; a thought that is not known is not sent, because an API
that signs thoughts refuses any other.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from clara_mlx.serve.reply import Object

# Answers whose thoughts are kept, and their characters in all; the oldest go first.
_MOST_ANSWERS = 2_000
_MOST_CHARACTERS = 32 << 20


class Thoughts:
    """The items that thoughts came in, by the text of an answer's thoughts."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[list[Object], int]] = OrderedDict()
        self._characters = 0
        self._lock = Lock()  # bodies are made in threads

    def keep(self, items: list[Object], text: str) -> None:
        """Keep the items of one answer, whose thoughts are a text."""
        if not items or not text:
            return
        size = len(str(items))
        with self._lock:
            before = self._known.pop(_digest(text), ([], 0))
            self._known[_digest(text)] = (items, size)
            self._characters += size - before[1]
            while len(self._known) > _MOST_ANSWERS or self._characters > _MOST_CHARACTERS:
                self._characters -= self._known.popitem(last=False)[1][1]

    def of(self, message: Mapping[str, Any]) -> list[Object]:
        """The items that the thoughts of a message came in; none if they are not known."""
        text = message.get("reasoning_content")
        if not isinstance(text, str) or not text:
            return []
        with self._lock:
            return list(self._known.get(_digest(text), ([], 0))[0])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
