"""Originals, the memories that hold them and the chunks they are cut into, in any database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any

from clara_mlx.store import forgetting
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
)
from clara_mlx.store.protocol import HandleTaken
from clara_mlx.store.spaces import SecondSpace
from clara_mlx.store.stored import StoredOriginals


class Originals(StoredOriginals):
    """What a memory's database holds; a part of `Store` (a file) and of a team's `PostgresStore`.

    A content is an original, stored once; a memory is one occurrence of it, with a handle, a
    source and metadata.

    Attributes:
        backlog: The contents that wait for their latents.
        texts_backlog: Those that wait for their shortened texts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(self)
        self.texts_backlog = Backlog(self, "pending_texts")

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

    # -- counting --------------------------------------------------------------------------------

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
        self.drop_cached_texts()
        return removed
