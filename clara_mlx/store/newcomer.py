"""A memory with its content as it enters a file: prepared, written down as bytes, inserted."""

from __future__ import annotations

import json
import logging
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any

from clara_mlx.store import descriptions, words
from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import ChunkRow, Dialect, MemoryRow
from clara_mlx.store.seen import seen
from clara_mlx.store.sqlite_dialect import SQLITE
from clara_mlx.tool_outputs.decoding import decode

logger = logging.getLogger(__name__)

#: The span of a chunk: its start and end in characters, and its number of tokens, which is None if
#: the chunk was cut without a tokenizer.
Span = tuple[int, int, int | None]

# What a byte that is no text becomes when it is decoded.
_UNREADABLE = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")

# Compression of originals, from 1 (fast) to 9 (small): zlib's own default.
_ZLIB_LEVEL = 6

# Random bytes of a handle that is drawn, and twice as many digits: few, as reasoners read them.
_HANDLE_BYTES = 5


@dataclass(frozen=True)
class Newcomer:
    """A memory that is not in the file yet, or perhaps only its content is."""

    handle: str
    kind: str  # 'text' or 'bytes'
    source: str | None
    session: str | None
    created_at: float
    metadata: str  # JSON
    sha256: str  # of the original
    length: int  # bytes of the original

    def insert(
        self,
        connection: Connection,
        dialect: Dialect,
        prepare: Callable[[], tuple[str, bytes, list[ChunkRow]]],
    ) -> None:
        """Insert the memory and, if the database does not have it yet, its content with a mark.

        Args:
            connection: A connection, in a transaction that writes.
            dialect: Its database's.
            prepare: Gives the compression, the data and the chunks of the content.
        """
        content_id = self.insert_content(connection, dialect, prepare)
        dialect.insert_memory(connection, self.to_row(content_id))

    def insert_content(
        self,
        connection: Connection,
        dialect: Dialect,
        prepare: Callable[[], tuple[str, bytes, list[ChunkRow]]],
    ) -> int:
        """Insert the content, unless the database has it; returns its id. See `insert`."""
        content_id = self.content_id(connection)
        if content_id is not None:
            return content_id
        compression, data, rows = prepare()
        row = connection.execute(
            "INSERT INTO contents (sha256, kind, length, compression, data) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
            (bytes.fromhex(self.sha256), self.kind, self.length, compression, data),
        ).fetchone()
        if row is None:  # another writer has just inserted it, which PostgreSQL waited for
            content_id = self.content_id(connection)
            assert content_id is not None  # nobody forgets while others write
            return content_id
        dialect.insert_chunks(connection, row["id"], rows)
        connection.execute(
            "INSERT INTO pending (content_id) VALUES (?) ON CONFLICT DO NOTHING", (row["id"],)
        )
        return int(row["id"])

    def to_row(self, content_id: int) -> MemoryRow:
        """The memory as a row, given its content."""
        described = descriptions.columns(self.source, self.metadata)
        about = self.source, self.session, self.created_at, self.metadata
        return MemoryRow(self.handle, content_id, *about, described)

    def content_id(self, connection: Connection) -> int | None:
        """The id of the same content, if the database has it."""
        row = connection.execute(*self.same_content()).fetchone()
        return None if row is None else int(row["id"])

    def same_content(self) -> tuple[str, tuple[Any, ...]]:
        """The query, with its parameters, that gives the id of the same content."""
        return (
            "SELECT id FROM contents WHERE sha256 = ? AND kind = ?",
            (bytes.fromhex(self.sha256), self.kind),
        )

    def to_record(self, original: bytes, spans: Iterable[Span]) -> bytes:
        """The memory with its original and the spans of its chunks, as bytes."""
        compression, data = compress(original)
        about = {field.name: getattr(self, field.name) for field in fields(self)}
        line = json.dumps([about, list(spans), compression]).encode()
        return line + b"\n" + data


def draw_handles() -> Iterator[str]:
    """Random handles, for whoever takes the first that is new; later ones are longer."""
    for length in count(_HANDLE_BYTES):
        yield f"m-{secrets.token_hex(length)}"


def has_handle(connection: Connection, handle: str) -> bool:
    """Whether a memory in the file has this handle."""
    sql = "SELECT 1 FROM memories WHERE handle = ?"
    return connection.execute(sql, (handle,)).fetchone() is not None


def handle_of(record: bytes) -> str:
    """The handle of the memory that `Newcomer.to_record` wrote down."""
    line, _, _ = record.partition(b"\n")
    return str(json.loads(line)[0]["handle"])


def original_of(record: bytes) -> tuple[bytes, str]:
    """The original, and its kind, that `Newcomer.to_record` wrote down."""
    line, _, data = record.partition(b"\n")
    about, _, compression = json.loads(line)
    return _unpack(data, compression), about["kind"]


def text_of_record(record: bytes) -> str:
    """The text of the original that `Newcomer.to_record` wrote down."""
    line, _, data = record.partition(b"\n")
    about, spans, compression = json.loads(line)
    return text_of(_unpack(data, compression), about["kind"], spans[-1][1] if spans else None)


def insert_record(connection: Connection, record: bytes) -> None:
    """Insert what `Newcomer.to_record` wrote down into a file, unless that has it.

    Whoever lets it wait sees to it that its handle is new. If that failed all the same, as files
    were put back from a backup, it gets another one, so that neither memory is lost.
    """
    line, _, data = record.partition(b"\n")
    about, spans, compression = json.loads(line)
    newcomer = Newcomer(**about)
    row = connection.execute(
        "SELECT hex(c.sha256) AS sha256 FROM memories m JOIN contents c ON c.id = m.content_id "
        "WHERE m.handle = ?",
        (newcomer.handle,),
    ).fetchone()
    if row and row["sha256"].lower() == newcomer.sha256:
        return
    if row:
        new = next(name for name in draw_handles() if not has_handle(connection, name))
        logger.warning("memory %s is %s now: another one has its handle", newcomer.handle, new)
        newcomer = replace(newcomer, handle=new)

    def prepare() -> tuple[str, bytes, list[ChunkRow]]:
        text = text_of(_unpack(data, compression), newcomer.kind, spans[-1][1] if spans else None)
        return compression, data, chunk_rows(text, spans)

    newcomer.insert(connection, SQLITE, prepare)


def _unpack(data: bytes, compression: str) -> bytes:
    return zlib.decompress(data) if compression == "zlib" else data


def compress(original: bytes) -> tuple[str, bytes]:
    """The smaller form of an original, compressed or not: its name, and the bytes to store."""
    packed = zlib.compress(original, _ZLIB_LEVEL)
    return ("zlib", packed) if len(packed) < len(original) else ("none", original)


def text_of(original: bytes, kind: str, end: int | None = None) -> str:
    """The text of an original that its chunks are spans of.

    Args:
        original: Its bytes.
        kind: ``text``, or ``bytes`` if it came as bytes.
        end: Where its last chunk ends. By that, UTF-16 is known that was cut into chunks before
            it was recognised: as UTF-8, with a lone surrogate for what is none.
    """
    if kind == "text":
        return original.decode("utf-8", "surrogatepass")
    text = decode(original)
    if end is not None and end != len(text):
        return original.decode("utf-8", "surrogateescape")
    return text


def readable(text: str) -> str:
    """A text with U+FFFD for each byte that `text_of` could not read."""
    return text if text.isascii() else text.translate(_UNREADABLE)


def chunk_rows(text: str, spans: Iterable[Span]) -> list[ChunkRow]:
    """The chunks of a text as rows, with the words of each."""
    return [(start, end, tokens, *index_columns(text, start, end)) for start, end, tokens in spans]


def index_columns(text: str, start: int, end: int) -> tuple[str, str]:
    """The two columns of the full-text index for a chunk of a text."""
    return words.columns(seen(text, start, end).encode("utf-8", "replace").decode())
