"""Blocks: frozen texts that stand for originals, and where in a conversation they stand."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clara_mlx.errors import StoreError

if TYPE_CHECKING:
    from clara_mlx.store.file import File

Kind = Literal["piece", "note", "fold"]

# Parameters of one query; SQLite's own limit is 32,766.
_BATCH = 10_000


@dataclass(frozen=True)
class Block:
    """A frozen text: for a piece of a message, for many messages (a fold), or a note.

    ``handle`` gives the original back, or ``body`` is it; a note has neither.
    """

    digest: bytes
    kind: Kind
    text: str
    handle: str | None
    body: str | None = None


@dataclass(frozen=True)
class Edit:
    """In a conversation that ends in ``chain``, the last message's ``part`` is sent as a block."""

    chain: bytes
    part: str
    block: Block
    explains: bool = False


class BlockTable:
    """The blocks and edits of a memory file."""

    def __init__(self, file: File) -> None:
        self._file = file

    def block(self, digest: bytes) -> Block | None:
        """The block that stands for something, if one was chosen."""
        rows = self._file.read("SELECT * FROM blocks WHERE digest = ?", (digest,))
        return _block(rows[0]) if rows else None

    def issued(self, text: str) -> Block | None:
        """The block whose text is exactly this one, if this file ever chose it."""
        rows = self._file.read("SELECT * FROM blocks WHERE issued = ?", (_sha256(text),))
        return _block(rows[0]) if rows and rows[0]["text"] == text else None

    def keep(self, block: Block, mentions: Iterable[str] = ()) -> Block:
        """Keep a block with the handles it speaks of; what was chosen earlier stays and is given.

        Raises:
            StoreError: one of the handles is not there (any more).
        """
        body = None if block.body is None else zlib.compress(_encoded(block.body), 6)
        handles = dict.fromkeys([*([block.handle] if block.handle else []), *mentions])
        with self._file.write() as connection:
            added = connection.execute(
                "INSERT INTO blocks (digest, kind, issued, text, handle, body) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (block.digest, block.kind, _sha256(block.text), block.text, block.handle, body),
            ).rowcount
            if added:
                connection.executemany(
                    "INSERT INTO mentions (handle, block) VALUES (?, ?)",
                    [(handle, block.digest) for handle in handles],
                )
        chosen = self.block(block.digest)
        if chosen is None:
            raise StoreError(f"{self._file.path}: memory {block.handle} was forgotten meanwhile")
        return chosen

    def edit(self, edits: Sequence[Edit]) -> None:
        """Keep edits, all or none; an earlier one of the same part is replaced."""
        with self._file.write() as connection:
            connection.executemany(
                "INSERT INTO edits (chain, part, block, explains) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (chain, part) DO UPDATE SET block = excluded.block, "
                "explains = excluded.explains",
                [(e.chain, e.part, e.block.digest, int(e.explains)) for e in edits],
            )

    def drop(self, chains: Sequence[bytes]) -> int:
        """Forget the edits of messages, so that they are sent as they came; returns how many."""
        with self._file.write() as connection:
            return sum(
                connection.execute("DELETE FROM edits WHERE chain = ?", (chain,)).rowcount
                for chain in dict.fromkeys(chains)
            )

    def edits(self, chains: Sequence[bytes]) -> list[Edit]:
        """The edits of the messages at which these chains end; their originals are all there."""
        found: list[Edit] = []
        for start in range(0, len(chains), _BATCH):
            some = list(dict.fromkeys(chains[start : start + _BATCH]))
            marks = ",".join("?" * len(some))
            rows = self._file.read(
                "SELECT e.chain, e.part, e.explains, b.* FROM edits e "
                f"JOIN blocks b ON b.digest = e.block WHERE e.chain IN ({marks}) "
                # A foreign key holds this already; a damaged file may not.
                "AND (b.handle IS NULL OR EXISTS (SELECT 1 FROM memories m "
                "JOIN contents c ON c.id = m.content_id WHERE m.handle = b.handle))",
                some,
            )
            found += [
                Edit(row["chain"], row["part"], _block(row), bool(row["explains"])) for row in rows
            ]
        return found


def _block(row: Any) -> Block:
    body = row["body"]
    try:
        text = None if body is None else zlib.decompress(body).decode("utf-8", "surrogatepass")
    except (zlib.error, UnicodeDecodeError) as error:
        raise StoreError(f"the block of {row['handle']} is damaged: {error}") from error
    return Block(row["digest"], row["kind"], row["text"], row["handle"], text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _sha256(text: str) -> bytes:
    return hashlib.sha256(_encoded(text)).digest()
