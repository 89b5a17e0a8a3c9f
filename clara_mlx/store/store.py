"""Store: originals, their occurrences and chunks, pending marks and latents, in one SQLite file."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from clara_mlx.errors import StoreError
from clara_mlx.store import filters, sketch_table, words
from clara_mlx.store.driver import Connection
from clara_mlx.store.file import File

#: A chunk to be: start, end (characters) and tokens; None if it was cut without a tokenizer.
Span = tuple[int, int, int | None]

#: After so many failures a content is left alone, and its error is kept.
MOST_ATTEMPTS = 3

# Start, end, tokens, and what the full-text index gets.
_ChunkRow = tuple[int, int, int | None, str, str]

# SQLite's own limit on parameters is 32,766.
_BATCH = 10_000


class Gone(StoreError):
    """A content that was there a moment ago is not there any more."""


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
    """A chunk as it is in the file."""

    id: int
    content_id: int
    start: int
    end: int
    tokens: int | None


class Store(File):
    """A memory file, opened; safe to use from several threads, each with its own connection.

    Raises:
        StoreError: the file is of a newer format, another program's, damaged, or locked.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._texts = lru_cache(maxsize=32)(self._read_text)

    # -- originals -------------------------------------------------------------------------------

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
        """Keep an original, its chunks and a pending mark in one transaction; returns its handle.

        Content that is there already is not stored again, only its new occurrence.
        """
        digest = hashlib.sha256(original).digest()
        handle = handle or f"m-{secrets.token_hex(5)}"
        try:
            described = json.dumps(dict(metadata or {}), ensure_ascii=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StoreError(f"metadata must be JSON: {error}") from error
        if self._content_id(digest, kind) is None:
            # All that takes time comes before the transaction, which holds up other writers.
            packed, rows = zlib.compress(original, 6), _chunk_rows(text, spans)
        else:
            packed, rows = None, []
        with self.write() as connection:
            content_id = self._content_id(digest, kind)
            if content_id is None:
                if packed is None:  # forgotten in this very moment
                    packed, rows = zlib.compress(original, 6), _chunk_rows(text, spans)
                small = len(packed) < len(original)
                content_id = connection.execute(
                    "INSERT INTO contents (sha256, kind, length, compression, data) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (
                        digest,
                        kind,
                        len(original),
                        "zlib" if small else "none",
                        packed if small else original,
                    ),
                ).lastrowid
                assert content_id is not None
                self._insert_chunks(connection, content_id, rows)
                connection.execute("INSERT INTO pending (content_id) VALUES (?)", (content_id,))
            connection.execute(
                "INSERT INTO memories (handle, content_id, source, session, created_at, metadata) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    handle,
                    content_id,
                    source,
                    session,
                    time.time() if created_at is None else created_at,
                    described,
                ),
            )
        return handle

    def _content_id(self, digest: bytes, kind: str) -> int | None:
        rows = self.read("SELECT id FROM contents WHERE sha256 = ? AND kind = ?", (digest, kind))
        return rows[0]["id"] if rows else None

    @staticmethod
    def _insert_chunks(connection: Connection, content_id: int, rows: list[_ChunkRow]) -> None:
        for start, end, tokens, piece, parts in rows:
            chunk_id = connection.execute(
                "INSERT INTO chunks (content_id, start, end, tokens) VALUES (?, ?, ?, ?)",
                (content_id, start, end, tokens),
            ).lastrowid
            connection.execute(
                "INSERT INTO chunk_text (rowid, text, parts) VALUES (?, ?, ?)",
                (chunk_id, piece, parts),
            )

    def rechunk(self, content_id: int, spans: Iterable[Span]) -> None:
        """Replace the chunks of a content, e.g. when a tokenizer is there at last."""
        rows = _chunk_rows(self.text(content_id), spans)
        with self.write() as connection:
            self._drop_sketches(
                connection, "SELECT id FROM chunks WHERE content_id = ?", [content_id]
            )
            connection.execute("DELETE FROM chunks WHERE content_id = ?", (content_id,))
            self._insert_chunks(connection, content_id, rows)

    def original(self, handle: str) -> tuple[bytes, str]:
        """The exact bytes of a memory and its kind.

        Raises:
            StoreError: no such handle, or the bytes are not those that were remembered.
        """
        rows = self.read(
            "SELECT c.id, c.kind FROM memories m JOIN contents c ON c.id = m.content_id "
            "WHERE m.handle = ?",
            (handle,),
        )
        if not rows:
            raise StoreError(f"{self.path}: no memory {handle!r}")
        return self.content(rows[0]["id"]), rows[0]["kind"]

    def content(self, content_id: int) -> bytes:
        """The bytes of a content, checked against their SHA-256."""
        row = self._content_row("sha256, compression, length, data", content_id)
        data: bytes = row["data"]
        try:
            if row["compression"] == "zlib":
                # The recorded length bounds what a damaged blob could unpack to.
                data = zlib.decompressobj().decompress(data, max(1, row["length"]))
            digest = hashlib.sha256(data).digest()
        except (zlib.error, TypeError, ValueError, OverflowError) as error:
            raise StoreError(f"{self.path}: content {content_id} is damaged: {error}") from error
        if digest != row["sha256"]:
            raise StoreError(f"{self.path}: content {content_id} is damaged (its SHA-256 differs)")
        return data

    def text(self, content_id: int) -> str:
        """A content as text; undecodable bytes of a 'bytes' content are lone surrogates."""
        return self._texts(content_id)

    def _read_text(self, content_id: int) -> str:
        kind = self._content_row("kind", content_id)["kind"]
        errors = "surrogatepass" if kind == "text" else "surrogateescape"
        return self.content(content_id).decode("utf-8", errors)

    def _content_row(self, columns: str, content_id: int) -> Any:
        rows = self.read(f"SELECT {columns} FROM contents WHERE id = ?", (content_id,))
        if not rows:
            raise Gone(f"{self.path}: content {content_id} is gone (forgotten, or damaged)")
        return rows[0]

    def memories(
        self, where: Mapping[str, Any] | None = None, newest: int | None = None
    ) -> Iterator[StoredMemory]:
        """Memories in the order they were remembered; or so many, the newest first."""
        wanted, parameters = filters.condition(where)
        order = "m.id" if newest is None else f"m.id DESC LIMIT {newest:d}"
        for row in self.read(
            "SELECT m.*, c.kind, c.length FROM memories m JOIN contents c ON c.id = m.content_id "
            f"WHERE {wanted} ORDER BY {order}",
            parameters,
        ):
            yield memory_of(row)

    def has(self, handle: str) -> bool:
        """Whether there is a memory of that handle."""
        return bool(self.read("SELECT 1 FROM memories WHERE handle = ?", (handle,)))

    # -- forgetting ------------------------------------------------------------------------------

    def forget(self, where: Mapping[str, Any]) -> int:
        """Remove memories, and all of a content that no memory holds any more; returns how many."""
        wanted, parameters = filters.condition(where)
        with self.write() as connection:
            rows = connection.execute(f"SELECT m.id FROM memories m WHERE {wanted}", parameters)
            ids = [(row["id"],) for row in rows.fetchall()]
            connection.executemany("DELETE FROM memories WHERE id = ?", ids)
            self._drop_orphans(connection)
            # Deleted rows only have a tombstone in the full-text index; this removes their words.
            connection.execute("INSERT INTO chunk_text (chunk_text) VALUES ('optimize')")
        self._texts.cache_clear()
        # What the write-ahead log still holds of it goes too.
        self.empty_log()
        return len(ids)

    def _drop_orphans(self, connection: Connection) -> None:
        orphans = "SELECT id FROM contents WHERE id NOT IN (SELECT content_id FROM memories)"
        self._drop_sketches(
            connection, f"SELECT id FROM chunks WHERE content_id IN ({orphans})", []
        )
        connection.execute(f"DELETE FROM contents WHERE id IN ({orphans})")

    @staticmethod
    def _drop_sketches(connection: Connection, chunk_ids: str, parameters: list[Any]) -> None:
        ids = [row[0] for row in connection.execute(chunk_ids, parameters).fetchall()]
        if not ids:
            return
        for (space_id,) in connection.execute("SELECT id FROM spaces").fetchall():
            sketch_table.remove(connection, space_id, ids)

    # -- pending ---------------------------------------------------------------------------------

    def pending(self, limit: int) -> list[int]:
        """Contents that wait for their latents and have not been given up, oldest first."""
        rows = self.read(
            "SELECT content_id FROM pending WHERE attempts < ? ORDER BY content_id LIMIT ?",
            (MOST_ATTEMPTS, limit),
        )
        return [row["content_id"] for row in rows]

    def backlog(self) -> int:
        """How many contents wait for their latents."""
        return int(self.read("SELECT count(*) FROM pending")[0][0])

    def figures(self) -> dict[str, Any]:
        """Counts and sizes, as `clara_mlx.store.results.Status` names them."""
        (row,) = self.read(
            "SELECT (SELECT count(*) FROM memories) AS memories, count(*) AS contents, "
            "coalesce(sum(length), 0) AS original_bytes, "
            "coalesce(sum(length(data)), 0) AS stored_bytes, "
            "(SELECT count(*) FROM chunks) AS chunks, "
            "(SELECT count(*) FROM pending WHERE attempts < ?) AS pending, "
            "(SELECT count(*) FROM pending WHERE attempts >= ?) AS failed, "
            "(SELECT error FROM pending WHERE error IS NOT NULL ORDER BY content_id DESC LIMIT 1) "
            "AS last_error FROM contents",
            (MOST_ATTEMPTS, MOST_ATTEMPTS),
        )
        return {**dict(row), "file_bytes": self.path.stat().st_size}

    def kept(self) -> tuple[str | None, int]:
        """The fingerprint of the model whose latents are here, and how many chunks have them."""
        rows = self.read(
            "SELECT fingerprint, (SELECT count(*) FROM latents WHERE space_id = s.id) FROM spaces s"
        )
        return (rows[0][0], rows[0][1]) if rows else (None, 0)

    def note_failure(self, content_ids: Sequence[int], error: str) -> None:
        """Count a failed attempt at compressing contents."""
        with self.write() as connection:
            connection.executemany(
                "UPDATE pending SET attempts = attempts + 1, error = ? WHERE content_id = ?",
                [(error, id) for id in content_ids],
            )

    def chunks(self, content_id: int) -> list[StoredChunk]:
        """Chunks of a content, in order."""
        rows = self.read(
            "SELECT id, content_id, start, end, tokens FROM chunks WHERE content_id = ? "
            "ORDER BY start",
            (content_id,),
        )
        return [StoredChunk(*row) for row in rows]

    def chunk(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Chunks by id; ids that are gone are left out."""
        found: dict[int, StoredChunk] = {}
        for start in range(0, len(ids), _BATCH):
            batch = list(ids[start : start + _BATCH])
            marks = ",".join("?" * len(batch))
            for row in self.read(
                f"SELECT id, content_id, start, end, tokens FROM chunks WHERE id IN ({marks})",
                batch,
            ):
                found[row["id"]] = StoredChunk(*row)
        return found

    def leave_spaces(self) -> None:
        """Drop all latents and sketches, and mark every content pending, for another model."""
        with self.write() as connection:
            for (space_id,) in connection.execute("SELECT id FROM spaces").fetchall():
                connection.execute(f"DROP TABLE sketches_{space_id}")
            connection.execute("DELETE FROM latents")
            connection.execute("DELETE FROM spaces")
            connection.execute("DELETE FROM pending")
            connection.execute("INSERT INTO pending (content_id) SELECT id FROM contents")

    # -- leases ----------------------------------------------------------------------------------

    def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lease; false while another owner's has not expired."""
        now = time.time()
        with self.write() as connection:
            connection.execute(
                "INSERT INTO leases (name, owner, expires_at) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, "
                "expires_at = excluded.expires_at "
                "WHERE leases.owner = excluded.owner OR leases.expires_at < ?",
                (name, owner, now + seconds, now),
            )
            row = connection.execute("SELECT owner FROM leases WHERE name = ?", (name,)).fetchone()
        return bool(row["owner"] == owner)

    def give_up_lease(self, name: str, owner: str) -> None:
        """Let another owner take a lease at once."""
        with self.write() as connection:
            connection.execute("DELETE FROM leases WHERE name = ? AND owner = ?", (name, owner))


def _chunk_rows(text: str, spans: Iterable[Span]) -> list[_ChunkRow]:
    rows = []
    for start, end, tokens in spans:
        piece = text[start:end].encode("utf-8", "replace").decode()
        rows.append((start, end, tokens, piece, words.parts(piece)))
    return rows


def memory_of(row: Any) -> StoredMemory:
    """A row of memories joined with its content's kind and length."""
    try:
        metadata = dict(json.loads(row["metadata"]))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the metadata of memory {row['handle']} is damaged: {error}") from error
    return StoredMemory(
        row["handle"],
        row["kind"],
        row["length"],
        row["source"],
        row["session"],
        row["created_at"],
        metadata,
    )
