"""Reading originals, memories and chunks, as they are stored in any database."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clara_mlx.errors import NotFound, StoreError
from clara_mlx.store import fields, filters
from clara_mlx.store.newcomer import original_of, text_of, text_of_record
from clara_mlx.store.protocol import SEARCH_SECONDS, Database

# Texts kept in memory, as the hits of a search are often chunks of the same few.
_CACHED_TEXTS = 32
_DATA = "id, sha256, compression, length, data"  # the columns that an original is read from


class Gone(StoreError):
    """A content that existed a moment ago has been forgotten."""


@dataclass(frozen=True)
class StoredMemory:
    """One thing that was remembered, without its content."""

    handle: str
    kind: str  # 'text' or 'bytes'
    length: int  # bytes
    source: str | None
    session: str | None
    created_at: float  # seconds since 1970
    metadata: dict[str, Any]


@dataclass(frozen=True)
class StoredChunk:
    """A chunk of a content, as a row of the file."""

    id: int
    content_id: int
    start: int  # characters of the content's text
    end: int
    tokens: int | None


class StoredOriginals(Database):
    """What can be read of a memory's database; a part of `Originals`."""

    def __init__(self) -> None:
        self._cached_text = lru_cache(maxsize=_CACHED_TEXTS)(self._read_text)

    def original(self, handle: str) -> tuple[bytes, str]:
        """The exact bytes of a memory and its kind.

        Raises:
            StoreError: There is no such handle, or the bytes are not those that were remembered.
        """
        if (record := self.waiting_record(handle)) is not None:
            return original_of(record)
        rows = isinstance(handle, str) and self.read(
            "SELECT c.id, c.kind, c.sha256, c.compression, c.length, c.data "
            "FROM memories m JOIN contents c ON c.id = m.content_id WHERE m.handle = ?",
            (handle,),
        )
        if not rows:
            raise NotFound(f"{self.path}: no memory {handle!r}")
        return self._unpack(rows[0]), rows[0]["kind"]

    def text_by_handle(self, handle: str) -> str:
        """A memory as text, see `text`.

        Raises:
            StoreError: As `original`.
        """
        if (record := self.waiting_record(handle)) is not None:
            return text_of_record(record)
        return self.text(self.content_id(handle))

    def content_id(self, handle: str) -> int:
        """The id of a memory's content, which must be in the file.

        Raises:
            NotFound: There is no such handle.
        """
        rows = isinstance(handle, str) and self.read(
            "SELECT c.id FROM memories m JOIN contents c ON c.id = m.content_id WHERE m.handle = ?",
            (handle,),
        )
        if not rows:
            raise NotFound(f"{self.path}: no memory {handle!r}")
        return int(rows[0]["id"])

    def content(self, content_id: int) -> bytes:
        """The bytes of a content, checked against their SHA-256.

        Raises:
            StoreError: They are damaged.
            Gone: The content was forgotten.
        """
        return self._unpack(self._content_row(_DATA, content_id))

    def _unpack(self, row: Any) -> bytes:
        content_id, data = row["id"], row["data"]
        try:
            if row["compression"] == "zlib":
                # The recorded length bounds what a damaged blob could unpack to.
                data = zlib.decompressobj().decompress(data, max(1, row["length"]))
            digest = hashlib.sha256(data).digest()
        except (zlib.error, TypeError, ValueError, OverflowError) as error:
            raise StoreError(f"{self.path}: content {content_id} is damaged: {error}") from error
        if digest != row["sha256"]:
            raise StoreError(f"{self.path}: content {content_id} is damaged (its SHA-256 differs)")
        return bytes(data)

    def text(self, content_id: int) -> str:
        """A content as text; each byte of a 'bytes' content that is no text is a lone surrogate."""
        return self._cached_text(content_id)

    def texts(self, content_ids: Iterable[int]) -> dict[int, str]:
        """Contents as texts, without those that are damaged or were forgotten."""
        found: dict[int, str] = {}
        for content_id in content_ids:
            with suppress(StoreError):
                found[content_id] = self.text(content_id)
        return found

    def _read_text(self, content_id: int) -> str:
        return self._to_text(self._content_row(f"kind, {_DATA}", content_id))

    def _to_text(self, row: Any) -> str:
        ends = 'SELECT max("end") FROM chunks WHERE content_id = ?'
        end = self.read(ends, (row["id"],))[0][0] if row["kind"] == "bytes" else None
        return text_of(self._unpack(row), row["kind"], end)

    def _content_row(self, columns: str, content_id: int) -> Any:
        rows = self.read(f"SELECT {columns} FROM contents WHERE id = ?", (content_id,))
        if not rows:
            raise Gone(f"{self.path}: content {content_id} is gone (forgotten, or damaged)")
        return rows[0]

    def memories(
        self, where: Mapping[str, Any] | None = None, newest: int | None = None
    ) -> Iterator[StoredMemory]:
        """Memories in the order they were remembered.

        Args:
            where: A filter, see `filters.condition`.
            newest: Number of memories; only the latest ones are given, and the latest first.
        """
        wanted, parameters = filters.condition(where, self.dialect)
        named = filters.handles(where)
        if named is None:
            self.settle(SEARCH_SECONDS)
        else:
            self.bring(named)
        order = "m.id"
        if newest is not None:
            order = f"m.id DESC LIMIT {fields.check_number('newest', newest)}"
        yield from self.select(f"{wanted} ORDER BY {order}", parameters)

    def latest_memory(
        self, content_id: int, where: Mapping[str, Any] | None
    ) -> StoredMemory | None:
        """The memory of a content that was remembered last, of those that match a filter."""
        wanted, parameters = filters.condition(where, self.dialect)
        latest = f"m.content_id = ? AND {wanted} ORDER BY m.id DESC LIMIT 1"
        return next(self.select(latest, [content_id, *parameters]), None)

    def select(self, condition: str, parameters: Sequence[Any]) -> Iterator[StoredMemory]:
        """The memories ``m`` in the file for which an SQL condition holds, in its order."""
        for row in self.read(
            "SELECT m.handle, m.source, m.session, m.created_at, m.metadata, c.kind, c.length "
            f"FROM memories m JOIN contents c ON c.id = m.content_id WHERE {condition}",
            parameters,
        ):
            yield StoredMemory(
                row["handle"],
                row["kind"],
                row["length"],
                row["source"],
                row["session"],
                row["created_at"],
                fields.read_metadata(row["metadata"]),
            )

    def has(self, handle: str) -> bool:
        """Whether there is a memory with this handle."""
        # What waits can be moved between the two looks, so the file is the second.
        if self.waiting_record(handle) is not None:
            return True
        sql = "SELECT 1 FROM memories WHERE handle = ?"
        return isinstance(handle, str) and bool(self.read(sql, (handle,)))

    def chunks(self, content_id: int) -> list[StoredChunk]:
        """The chunks of a content, in the order of its text."""
        rows = self.read(
            'SELECT id, content_id, start, "end", tokens FROM chunks WHERE content_id = ? '
            "ORDER BY start",
            (content_id,),
        )
        return [StoredChunk(*row) for row in rows]

    def chunks_by_id(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Chunks by their ids, without those that were forgotten."""
        rows = self.read(
            'SELECT id, content_id, start, "end", tokens FROM chunks '
            f"WHERE {self.dialect.is_among('id')}",
            (self.dialect.many(ids),),
        )
        return {row["id"]: StoredChunk(*row) for row in rows}

    def drop_cached_texts(self) -> None:
        """Forget the texts that are kept in this process, as some may have been forgotten."""
        self._cached_text.cache_clear()
