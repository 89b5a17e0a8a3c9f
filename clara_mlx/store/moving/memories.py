"""Moving memories with their originals and chunks; each is known again by its handle and hash."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from clara_mlx.errors import NotFound, Progress, StoreError
from clara_mlx.store import fields
from clara_mlx.store.dialect import ChunkRow
from clara_mlx.store.given import new_memory
from clara_mlx.store.moving.tally import PAGE, Both, marks, pages
from clara_mlx.store.newcomer import Newcomer, chunk_rows, compress, text_of
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import HandleTaken

# Bytes of originals that are written in one transaction, which is what a kill loses at most.
_TOGETHER_BYTES = 4 << 20

# Of a memory, what makes it what it is.
_FIELDS = (
    "m.id, m.handle, m.source, m.session, m.created_at, m.metadata, c.kind, c.sha256, c.length, "
    "c.id AS content_id"
)
_JOINED = "memories m JOIN contents c ON c.id = m.content_id"


@dataclass(frozen=True)
class _Fresh:
    """A memory that the target lacks, with its content."""

    newcomer: Newcomer
    original: bytes
    chunks: list[tuple[int, int, int | None]]

    def prepare(self) -> tuple[str, bytes, list[ChunkRow]]:
        """The compression, the data and the chunks of the content, as they are inserted."""
        end = self.chunks[-1][1] if self.chunks else None
        text = text_of(self.original, self.newcomer.kind, end)
        return *compress(self.original), chunk_rows(text, self.chunks)


def move_memories(both: Both, progress: Progress | None) -> None:
    """Move the memories that the target lacks, in the order they were remembered."""
    (total,) = both.source.read("SELECT count(*) FROM memories")[0]
    done = 0
    for page in pages(both.source, _FIELDS, _JOINED, "m.id", 0):
        fresh: list[_Fresh] = []
        size = 0
        for row in _new_ones(both, page):
            if (one := _read(both, row)) is None:
                continue
            both.tally.of("memories").moved += 1
            both.tally.original_bytes += len(one.original)
            if not both.writes:
                continue
            fresh.append(one)
            size += len(one.original)
            if size >= _TOGETHER_BYTES:
                _write(both, fresh)
                fresh, size = [], 0
        _write(both, fresh)
        done += len(page)
        if progress:
            progress(min(done, total), total, "memories")


def _new_ones(both: Both, page: list[Any]) -> list[Any]:
    """The rows whose handles the target lacks; the others are compared with what it has."""
    tally = both.tally
    names = [row["handle"] for row in page]
    has = {
        row["handle"]: row
        for row in both.target.read(
            f"SELECT {_FIELDS} FROM {_JOINED} WHERE m.handle IN {marks(names)}", names
        )
    }
    fresh = []
    for row in page:
        if (other := has.get(row["handle"])) is None:
            fresh.append(row)
            continue
        different = _differences(row, other)
        if different:
            tally.conflict(
                "memories",
                f"memory {row['handle']!r}: the target has one with another "
                f"{', '.join(different)}; it keeps its own",
            )
        else:
            tally.of("memories").there += 1
    return fresh


def _differences(one: Any, other: Any) -> list[str]:
    """In what two memories of one handle differ, in words."""
    if (one["kind"], one["sha256"]) != (other["kind"], other["sha256"]):
        return ["original"]
    different = [name for name in ("source", "session") if one[name] != other[name]]
    if one["created_at"] != other["created_at"]:
        different.append("time")
    if fields.read_metadata(one["metadata"]) != fields.read_metadata(other["metadata"]):
        different.append("metadata")
    return different


def _read(both: Both, row: Any) -> _Fresh | None:
    """A memory of the source with its original, whose hash is checked; None if it is damaged."""
    source = both.source
    try:
        original = source.content(row["content_id"])
        newcomer = new_memory(
            original,
            row["kind"],
            row["source"],
            row["session"],
            fields.read_metadata(row["metadata"]),
            row["created_at"],
            row["handle"],
        )
    except StoreError as error:
        if error.transient:
            raise
        both.tally.leave("memories", f"memory {row['handle']!r}: {error}")
        return None
    chunks = [(chunk.start, chunk.end, chunk.tokens) for chunk in source.chunks(row["content_id"])]
    return _Fresh(newcomer, original, chunks)


def _write(both: Both, fresh: list[_Fresh]) -> None:
    """Write memories in one transaction."""
    if not fresh:
        return
    target = both.target
    first = {one.newcomer.sha256 + one.newcomer.kind: one for one in reversed(fresh)}
    made: dict[str, tuple[str, bytes, list[ChunkRow]]] = {
        key: one.prepare()  # slow, so before the transaction, which holds up other writers
        for key, one in first.items()
        if not target.read(*one.newcomer.same_content())
    }
    try:
        with target.write() as connection:
            content_ids = {
                key: first[key].newcomer.insert_content(
                    connection, target.dialect, partial(_prepared, made, key, first[key])
                )
                for key in target.dialect.in_common_order(first)
            }
            rows = [
                one.newcomer.to_row(content_ids[one.newcomer.sha256 + one.newcomer.kind])
                for one in fresh
            ]
            target.insert_memories(connection, rows)
    except HandleTaken as error:
        raise StoreError(
            f"{target.path}: somebody else has just remembered something by the same handle "
            f"({error}); nothing was overwritten, and the same command goes on from here",
            transient=True,
        ) from error


def _prepared(
    made: dict[str, tuple[str, bytes, list[ChunkRow]]], key: str, one: _Fresh
) -> tuple[str, bytes, list[ChunkRow]]:
    """What was prepared; or made now, as the target's content was forgotten meanwhile."""
    return made.get(key) or one.prepare()


def same_memories(both: Both, handles: Collection[str]) -> set[str]:
    """Those of some handles that mean the same original in both databases."""

    def read(file: Originals, some: list[str]) -> set[tuple[str, str, bytes]]:
        rows = file.read(
            f"SELECT m.handle, c.kind, c.sha256 FROM {_JOINED} WHERE m.handle IN {marks(some)}",
            some,
        )
        return {tuple(row) for row in rows}

    same: set[str] = set()
    names = list(handles)  # those of some blocks can be many
    for start in range(0, len(names), PAGE):
        some = names[start : start + PAGE]
        same |= {row[0] for row in read(both.source, some) & read(both.target, some)}
    return same


def read_back(both: Both, progress: Progress | None) -> int:
    """Read every original of the source's memories from the target; returns their number.

    Each is compared with the source's SHA-256. What was left or is in conflict is not.

    Raises:
        StoreError: One is not what it was.
    """
    (total,) = both.source.read("SELECT count(*) FROM memories")[0]
    done = compared = 0
    last = None  # several memories in a row may have one content
    for page in pages(both.source, _FIELDS, _JOINED, "m.id", 0):
        same = same_memories(both, [row["handle"] for row in page])
        for row in page:
            if row["handle"] not in same:
                continue
            if row["sha256"] != last:
                last = row["sha256"]
                try:
                    original, _ = both.target.original(row["handle"])
                except NotFound:  # forgotten meanwhile
                    continue
                if hashlib.sha256(original).digest() != last:
                    raise StoreError(
                        f"{both.target.path}: the original of {row['handle']!r} is not the one "
                        f"that {both.source.path} has; keep that one, and report this"
                    )
            compared += 1
        done += len(page)
        if progress:
            progress(min(done, total), total, "originals read back")
    return compared
