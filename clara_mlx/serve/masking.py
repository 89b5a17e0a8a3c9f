"""Masks the secrets in what is sent to an endpoint that is not this machine.

The memory keeps what the client sent. Here only a copy is changed that is about to leave. What a
mask says depends on the text alone, so that the same text is sent in the same way each time, and
the endpoint's cache of prompts holds.
"""

from __future__ import annotations

import json
import socket
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from threading import Lock
from typing import Any

from clara_mlx.serve.reply import Object
from clara_mlx.serve.settings import is_loopback
from clara_mlx.tool_outputs.secrets import mask

# Texts whose masked forms are known; a conversation sends all of its texts each time.
_KNOWN_TEXTS = 20_000

# Characters of masked texts that are kept; a text without a secret takes none.
_KNOWN_CHARACTERS = 64 << 20

# Values that name something for the endpoint or the client, by their keys.
_NAMES = frozenset(
    ("role", "name", "type", "id", "tool_call_id", "image_url", "input_audio", "file")
)

# The keys of a request whose values hold texts.
_TEXTS = ("messages", "tools", "functions")


def is_this_machine(host: str) -> bool:
    """Whether what is sent to a host stays on this machine.

    Loopback addresses do. A name does not, even if it leads here today, but for ``localhost``, if
    that leads nowhere else.
    """
    if not is_loopback(host):
        return False
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(is_loopback(str(address[0])) for *_, address in found)


class Masking:
    """Masks requests, and knows the masked forms of the texts that it has seen last."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, str | None] = OrderedDict()  # None: there is no secret
        self._characters = 0
        self._lock = Lock()

    def masked(self, payload: Mapping[str, Any]) -> Object:
        """A request with the secrets in its messages and tools masked."""
        return {
            key: self._in_value(value) if key in _TEXTS else value for key, value in payload.items()
        }

    def _in_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._in_text(value)
        if isinstance(value, list):
            return [self._in_value(one) for one in value]
        if isinstance(value, dict):
            return {
                key: one
                if key in _NAMES
                else self._in_arguments(one)
                if key == "arguments" and isinstance(one, str)
                else self._in_value(one)
                for key, one in value.items()
            }
        return value

    def _in_arguments(self, text: str) -> str:
        """The arguments of a call, which stay JSON if they are."""
        masked = self._in_text(text)
        if masked == text or not _is_json(text) or _is_json(masked):
            return masked
        return json.dumps(self._in_value(json.loads(text)), ensure_ascii=False)

    def _in_text(self, text: str) -> str:
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
                known = self._known[digest]
                return text if known is None else known
        masked = mask(text)[0]
        with self._lock:
            if digest not in self._known:
                self._known[digest] = None if masked == text else masked
                self._characters += len(self._known[digest] or "")
            while len(self._known) > _KNOWN_TEXTS or self._characters > _KNOWN_CHARACTERS:
                self._characters -= len(self._known.popitem(last=False)[1] or "")
        return masked


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
