"""Originals, the memories that hold them and the chunks they are cut into, in any database."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any

from clara_mlx.errors import NotFound, StoreError
from clara_mlx.store import fields, filters, forgetting
from clara_mlx.store.backlog import Backlog
from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import ChunkRow, MemoryRow
from clara_mlx.store.given import Given, new_memory
from clara_mlx.store.newcomer import (
    Newcomer,
    Span,
    chunk_rows,
    compress,
    draw_handles,
    original_of,
    text_of,
    text_of_record,
)
from clara_mlx.store.protocol import SEARCH_SECONDS, Database, HandleTaken
from clara_mlx.store.spaces import SecondSpace

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


class Originals(Database):
    """What a memory's database holds; a part of `Store` (a file) and of a team's `PostgresStore`.

    A content is an original, stored once; a memory is one occurrence of it, with a handle, a
    source and metadata.

    Attributes:
        backlog: The contents that wait for their latents.
        texts_backlog: Those that wait for their shortened texts.
    """

    def __init__(self) -> None:
        self.backlog = Backlog(self)
        self.texts_backlog = Backlog(self, "pending_texts")
        self._cached_text = lru_cache(maxsize=_CACHED_TEXTS)(self._read_text)

    def backlog_of(self, space_id: int) -> Backlog:
        """The contents that wait for the latents of a space."""
        return self.backlog

    #: Whether old latents can stay until those of a new model are complete.
    allows_second_space = False

    def prepare_second_space(self, connection: Connection) -> None:
        """Make way for a second space, in the transaction that makes it."""
        raise NotImplementedError

    def second_space(self) -> SecondSpace | None:
        """The space of a new model that is being filled; None if there is none."""
        return None

    def finish_second_space(self) -> bool:
        """Let the new model's latents take the place of the old ones, if they are complete."""
        return False

    # -- remembering -----------------------------------------------------------------------------

    def remember(
        self,
        original: bytes,
        text: str,
        spans: Iterable[Span],
        *,
        kind: str = "text",
        source: str | None = None,
        session: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        created_at: float | None = None,
        handle: str | None = None,
    ) -> str:
        """Store an original, its chunks and its pending mark in one transaction.

        Content that the database already has is not stored again; only the new memory of it is.

        Args:
            original: The exact bytes.
            text: The same as text; undecodable bytes are lone surrogates.
            spans: The chunks to cut the text into; not read if the database has the content.
            kind: ``text``, or ``bytes`` if it came as bytes.
            source: Its origin, for filters.
            session: A group of memories that it belongs to, for filters.
            metadata: Anything that JSON can hold, for filters.
            created_at: Seconds since 1970; the default is now.
            handle: The handle, which must be new; by default a random one.

        Returns:
            The handle.

        Raises:
            StoreError: A field is of another type, too long or too deep (`fields`), or the handle
                is taken.
        """
        newcomer = new_memory(original, kind, source, session, metadata, created_at, handle)
        waits = self.new_ones_wait()
        if waits:
            spans = list(spans)

        @cache
        def prepare() -> tuple[str, bytes, list[ChunkRow]]:
            return *compress(original), chunk_rows(text, spans)

        def keep(newcomer: Newcomer) -> str:
            if waits:
                self.let_wait(newcomer.to_record(original, spans))
                return newcomer.handle
            if not self.read(*newcomer.same_content()):
                prepare()  # slow, so before the transaction, which holds up other writers
            with self.write() as connection:
                content_id = newcomer.insert_content(connection, self.dialect, prepare)
                self.insert_memories(connection, [newcomer.to_row(content_id)])
            return newcomer.handle

        if handle is not None:
            return keep(replace(newcomer, handle=handle))
        for drawn in draw_handles():
            with suppress(HandleTaken):
                return keep(replace(newcomer, handle=drawn))
        raise AssertionError("there is always another handle")

    def remember_many(self, many: Sequence[Given], *, synced: bool = True) -> None:
        """As `remember`, for several originals that have handles: all of them or none.

        Args:
            many: The originals.
            synced: Whether they survive a loss of power from now on; see `File.write`.

        Raises:
            StoreError: As `remember`.
        """
        newcomers = [one.as_memory() for one in many]
        if self.new_ones_wait():
            for newcomer, one in zip(newcomers, many, strict=True):
                self.let_wait(newcomer.to_record(one.original, one.spans))
            return
        first: dict[str, int] = {}  # where each content is, the first time
        for place, newcomer in enumerate(newcomers):
            first.setdefault(newcomer.sha256, place)

        @cache
        def prepare(sha256: str) -> tuple[str, bytes, list[ChunkRow]]:
            one = many[first[sha256]]
            return *compress(one.original), chunk_rows(one.text, one.spans)

        for sha256, place in first.items():  # slow, so before the transaction
            if not self.read(*newcomers[place].same_content()):
                prepare(sha256)
        with self.write(synced=synced) as connection:
            # In one order, lest two writers wait for each other.
            content_ids = {
                sha256: newcomers[first[sha256]].insert_content(
                    connection, self.dialect, partial(prepare, sha256)
                )
                for sha256 in self.dialect.in_common_order(first)
            }
            rows = [newcomer.to_row(content_ids[newcomer.sha256]) for newcomer in newcomers]
            self.insert_memories(connection, rows)

    def insert_memories(self, connection: Connection, rows: Sequence[MemoryRow]) -> None:
        """Insert memories in their order, in a transaction.

        Raises:
            HandleTaken: There is one with the handle of one of them.
        """
        for row in rows:
            self.check_new(connection, row.handle)
            self.dialect.insert_memory(connection, row)

    def rechunk(self, content_id: int, spans: Iterable[Span]) -> None:
        """Cut a content into other chunks, which drops the latents of the old ones."""
        rows = chunk_rows(self.text(content_id), spans)
        with self.write() as connection:
            self.dialect.hold_content(connection, content_id)
            old = "SELECT id FROM chunks WHERE content_id = ?"
            forgetting.drop_sketches(connection, self.dialect, old, [content_id])
            connection.execute("DELETE FROM chunks WHERE content_id = ?", (content_id,))
            self.dialect.insert_chunks(connection, content_id, rows)

    # -- reading ---------------------------------------------------------------------------------

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

    def figures(self) -> dict[str, Any]:
        """Path, counts and sizes, by their names in `clara_mlx.store.results.Status`.

        What waits beside the file is counted among the memories, and not read otherwise.
        """
        waiting = self.number_waiting()
        (row,) = self.read(
            "SELECT (SELECT count(*) FROM memories) AS memories, count(*) AS contents, "
            "coalesce(sum(length), 0) AS original_bytes, "
            "coalesce(sum(length(data)), 0) AS stored_bytes, "
            "(SELECT count(*) FROM chunks) AS chunks FROM contents"
        )
        figures = {"path": str(self.path), **dict(row), "waiting": waiting}
        figures["memories"] += waiting
        return figures | {"file_bytes": self.size()}

    # -- forgetting ------------------------------------------------------------------------------

    def forget(self, where: Mapping[str, Any]) -> int:
        """Remove memories, and with the last memory of a content everything that came from it.

        Returns:
            The number of memories removed.
        """
        removed = forgetting.forget(self, where)
        self._cached_text.cache_clear()
        return removed
