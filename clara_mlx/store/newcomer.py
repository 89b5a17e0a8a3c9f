"""A memory with its content as it enters a file: prepared, written down as bytes, inserted."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from clara_mlx.store import words
from clara_mlx.store.driver import Connection
from clara_mlx.tool_outputs.decoding import decode

#: The span of a chunk: its start and end in characters, and its number of tokens, which is None if
#: the chunk was cut without a tokenizer.
Span = tuple[int, int, int | None]

# Start, end, tokens, and the two columns of the full-text index.
ChunkRow = tuple[int, int, int | None, str, str]

# Compression of originals, from 1 (fast) to 9 (small): zlib's own default.
_ZLIB_LEVEL = 6


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
        prepare: Callable[[], tuple[str, bytes, list[ChunkRow]]],
    ) -> None:
        """Insert the memory and, if the file does not have it yet, its content with a mark.

        Args:
            connection: A connection, in a transaction that writes.
            prepare: Gives the compression, the data and the chunks of the content.
        """
        content_id = self.content_id(connection)
        if content_id is None:
            compression, data, rows = prepare()
            content_id = connection.execute(
                "INSERT INTO contents (sha256, kind, length, compression, data) "
                "VALUES (?, ?, ?, ?, ?)",
                (bytes.fromhex(self.sha256), self.kind, self.length, compression, data),
            ).lastrowid
            assert content_id is not None
            insert_chunks(connection, content_id, rows)
            connection.execute("INSERT INTO pending (content_id) VALUES (?)", (content_id,))
        connection.execute(
            "INSERT INTO memories (handle, content_id, source, session, created_at, metadata) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (self.handle, content_id, self.source, self.session, self.created_at, self.metadata),
        )

    def content_id(self, connection: Connection) -> int | None:
        """The id of the same content, if the file has it."""
        row = connection.execute(
            "SELECT id FROM contents WHERE sha256 = ? AND kind = ?",
            (bytes.fromhex(self.sha256), self.kind),
        ).fetchone()
        return None if row is None else int(row["id"])

    def to_record(self, original: bytes, spans: Iterable[Span]) -> bytes:
        """The memory with its original and the spans of its chunks, as bytes."""
        compression, data = compress(original)
        about = {field.name: getattr(self, field.name) for field in fields(self)}
        line = json.dumps([about, list(spans), compression]).encode()
        return line + b"\n" + data


def insert_record(connection: Connection, record: bytes) -> None:
    """Insert what `Newcomer.to_record` wrote down."""
    line, _, data = record.partition(b"\n")
    about, spans, compression = json.loads(line)
    newcomer = Newcomer(**about)

    def prepare() -> tuple[str, bytes, list[ChunkRow]]:
        original = zlib.decompress(data) if compression == "zlib" else data
        text = text_of(original, newcomer.kind, spans[-1][1] if spans else None)
        return compression, data, chunk_rows(text, spans)

    newcomer.insert(connection, prepare)


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


def chunk_rows(text: str, spans: Iterable[Span]) -> list[ChunkRow]:
    """The chunks of a text as rows, with the words of each."""
    rows = []
    for start, end, tokens in spans:
        piece = text[start:end].encode("utf-8", "replace").decode()
        rows.append((start, end, tokens, piece, words.parts(piece)))
    return rows


def insert_chunks(connection: Connection, content_id: int, rows: list[ChunkRow]) -> None:
    """Insert the chunks of a content, and their words."""
    for start, end, tokens, piece, parts in rows:
        chunk_id = connection.execute(
            "INSERT INTO chunks (content_id, start, end, tokens) VALUES (?, ?, ?, ?)",
            (content_id, start, end, tokens),
        ).lastrowid
        connection.execute(
            "INSERT INTO chunk_text (rowid, text, parts) VALUES (?, ?, ?)",
            (chunk_id, piece, parts),
        )
