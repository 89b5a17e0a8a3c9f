"""What a memory gives back: hits, and its own state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, with the exact text of its span.

    ``score`` orders the hits of one search; ``cosine`` is that of the flattened latents, less what
    all latents have in common (None if only the text was searched). ``found_by`` says which of
    ``latent`` and ``text`` found it. ``line`` is the number of the first line of the span.
    """

    handle: str
    score: float
    cosine: float | None
    found_by: tuple[str, ...]
    text: str
    start: int
    end: int
    line: int
    source: str | None
    session: str | None
    created_at: float
    metadata: dict[str, Any]
    chunk_id: int


@dataclass(frozen=True)
class Status:
    """What a memory file holds, and how far its compression is."""

    path: str
    memories: int
    contents: int
    original_bytes: int
    stored_bytes: int  # of originals, compressed
    chunks: int
    compressed: int  # chunks with latents of this model
    pending: int  # contents that wait for compression
    failed: int  # contents that were given up, see last_error
    last_error: str | None
    file_bytes: int
    fingerprint: str | None
