"""The results of a memory: hits, and its status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, with the exact text of its span."""

    handle: str
    score: float  # orders the hits of one search; 0 to 1, but for a search by latents alone
    cosine: float | None  # of the latents, less what all have in common; None: not compared
    found_by: tuple[str, ...]  # the searches that found it: 'latent', 'text' or both
    text: str
    start: int  # characters of the memory's text
    end: int
    line: int  # number of the first line of the span
    source: str | None
    session: str | None
    created_at: float  # seconds since 1970
    metadata: dict[str, Any]
    chunk_id: int
    matched_line: int | None = None  # number of the line that fits best; None without a query
    share: float | None = None  # of the query's words, by their rarity; None: not found by words
    matched: str = ""  # that line as a reader sees it, perhaps cut


@dataclass(frozen=True)
class Status:
    """The contents of a memory file, and how far they are compressed."""

    path: str
    memories: int
    waiting: int  # those of them that are beside the file, and that the other counts leave out
    contents: int  # originals, each stored once
    original_bytes: int
    stored_bytes: int  # of originals, compressed
    chunks: int
    compressed: int  # chunks that this compressor is done with
    pending: int  # contents that wait for compression
    failed: int  # contents that were given up, for the reason in last_error
    last_error: str | None
    file_bytes: int
    fingerprint: str | None  # of this compressor's model
    made_by: dict[str, int]  # chunks with latents or shortened texts, by the compressor's name
