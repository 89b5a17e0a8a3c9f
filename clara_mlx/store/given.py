"""What is given to be remembered, before it is a memory, and the checks of its fields."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clara_mlx.store import fields
from clara_mlx.store.newcomer import Newcomer, Span


@dataclass(frozen=True)
class Given:
    """A text that is to be remembered under a handle that is known; see `Store.remember`."""

    text: str
    spans: Iterable[Span]
    handle: str
    source: str | None
    session: str | None
    metadata: Mapping[str, Any] | None
    created_at: float | None = None  # seconds since 1970; now if it is not given

    def as_memory(self) -> Newcomer:
        """The memory that it becomes."""
        about = self.source, self.session, self.metadata, self.created_at
        return new_memory(self.original, "text", *about, self.handle)

    @property
    def original(self) -> bytes:
        """The text as bytes."""
        return self.text.encode("utf-8", "surrogatepass")


def new_memory(
    original: bytes,
    kind: str,
    source: str | None,
    session: str | None,
    metadata: Mapping[str, Any] | None,
    created_at: float | None,
    handle: str | None,
) -> Newcomer:
    """A new memory with its fields checked; its handle is empty if it is still to be drawn."""
    created_at = time.time() if created_at is None else created_at
    about = fields.write_metadata({} if metadata is None else metadata)
    fields.check_time(created_at)
    for field, given in (("handle", handle), ("source", source), ("session", session)):
        if given is not None:
            fields.check_name(field, given)
    digest = hashlib.sha256(original).hexdigest()
    return Newcomer(handle or "", kind, source, session, created_at, about, digest, len(original))
