"""Blocks: frozen texts that stand for originals, and where in a conversation they stand."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from clara_mlx.errors import StoreError
from clara_mlx.store.connection import Connection
from clara_mlx.store.protocol import Database

Kind = Literal["piece", "note", "fold"]

# Parameters of one query; SQLite's own limit is 32,766.
_BATCH = 10_000

# Blocks that one statement inserts, of six parameters each.
_INSERTED = 1_000

# Handles of which a thread knows that they exist.
_MOST_SEEN = 100_000

# The part of an edit that puts hidden rounds in a message's place.
_ROUNDS = "rounds"


@dataclass(frozen=True)
class Block:
    """A frozen text: for a piece of a message, for many messages (a fold), or a note.

    ``body`` is the original if there is one, and then ``handle`` is of the same in a form to read;
    if not, ``handle`` gives the original back. A note has neither.
    """

    digest: bytes
    kind: Kind
    text: str
    handle: str | None
    body: str | None = None


@dataclass(frozen=True)
class Edit:
    """In a conversation that ends in ``chain``, the last message's ``part`` is sent as a block.

    If it ``explains``, the block is followed by a note on how to get originals back.
    """

    chain: bytes
    part: str
    block: Block
    explains: bool = False


class BlockTable:
    """The blocks, the edits and the hidden rounds that a memory file keeps.

    Args:
        file: The open memory file.
    """

    def __init__(self, file: Database) -> None:
        self._file = file
        # What this thread has seen to exist, and since when nothing was removed.
        self._local = threading.local()

    def block(self, digest: bytes) -> Block | None:
        """The block that was chosen for what has this digest, if there is one."""
        rows = self._file.read("SELECT * FROM blocks WHERE digest = ?", (digest,))
        return _block(rows[0]) if rows else None

    def block_with_text(self, text: str) -> Block | None:
        """The block whose text is exactly this one, if this file ever chose it."""
        rows = self._file.read("SELECT * FROM blocks WHERE issued = ?", (_sha256(text),))
        return _block(rows[0]) if rows and rows[0]["text"] == text else None

    def keep(self, block: Block, mentions: Iterable[str] = ()) -> Block:
        """Keep a block with the handles it names, and return the one that counts.

        That is an earlier one of the same digest, if there is one: a choice is never changed.

        Raises:
            StoreError: One of the handles does not exist, or was forgotten.
        """
        made = [_Made(block, mentions)]
        self._file.bring(made[0].handles)
        with self._file.write() as connection:
            _insert(connection, made)
        chosen = self.block(block.digest)
        if chosen is None:
            raise StoreError(f"{self._file.path}: memory {block.handle} has been forgotten")
        return chosen

    def save_edits(
        self,
        edits: Sequence[Edit],
        made: Sequence[tuple[Block, Iterable[str]]] = (),
        without: Sequence[Edit] = (),
    ) -> None:
        """Save edits, all or none; each replaces an earlier one of the same part.

        Args:
            edits: The edits.
            made: Blocks of theirs that are not kept yet, each with the handles it names.
            without: Earlier edits that are deleted.

        Raises:
            StoreError: One of the handles does not exist, or was forgotten.
        """
        blocks = [_Made(block, mentions) for block, mentions in made]
        self._file.bring([handle for one in blocks for handle in one.handles])
        with self._file.write() as connection:
            _insert(connection, blocks)
            if without:
                connection.executemany(
                    "DELETE FROM edits WHERE chain = ? AND part = ?",
                    sorted((edit.chain, edit.part) for edit in without),
                )
            connection.executemany(
                "INSERT INTO edits (chain, part, block, explains) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (chain, part) DO UPDATE SET block = excluded.block, "
                "explains = excluded.explains",
                sorted((e.chain, e.part, e.block.digest, int(e.explains)) for e in edits),
            )

    def drop_edits(self, chains: Sequence[bytes]) -> int:
        """Delete the edits of messages, so that they are sent unchanged; returns the number."""
        with self._file.write() as connection:
            return sum(
                connection.execute("DELETE FROM edits WHERE chain = ?", (chain,)).rowcount
                for chain in dict.fromkeys(chains)
            )

    def drop_edits_of_session(self, session: str) -> int:
        """Delete the edits whose originals belong to a session; returns the number."""
        with self._file.write() as connection:
            return connection.execute(
                "DELETE FROM edits WHERE block IN (SELECT b.digest FROM blocks b "
                "JOIN memories m ON m.handle = b.handle WHERE m.session = ?)",
                (session,),
            ).rowcount

    def knows_session(self, session: str) -> bool:
        """Whether a memory belongs to a session."""
        return bool(self._file.read("SELECT 1 FROM memories WHERE session = ? LIMIT 1", (session,)))

    def edits(self, chains: Sequence[bytes]) -> list[Edit]:
        """The edits of the messages at which these chains end; all their originals exist.

        What their blocks have beside a handle is left out: there are many, and few are read.
        """
        found: list[Edit] = []
        for start in range(0, len(chains), _BATCH):
            some = list(dict.fromkeys(chains[start : start + _BATCH]))
            among, parameters = self._file.dialect.is_one_of("e.chain", some)
            rows = self._file.read(
                "SELECT e.chain, e.part, e.explains, b.digest, b.kind, b.text, b.handle, "
                "CASE WHEN b.handle IS NULL THEN b.body END AS body FROM edits e "
                f"JOIN blocks b ON b.digest = e.block WHERE {among} "
                # A foreign key holds this already; a damaged file may not.
                "AND (b.handle IS NULL OR EXISTS (SELECT 1 FROM memories m "
                "JOIN contents c ON c.id = m.content_id WHERE m.handle = b.handle))",
                parameters,
            )
            found += [
                Edit(row["chain"], row["part"], _block(row), bool(row["explains"])) for row in rows
            ]
        return found

    def are_still(self, edits: Iterable[Edit], chains: Sequence[bytes]) -> bool:
        """Whether these are the edits of the messages at which the chains end, and all of them.

        No text is read. A block that was forgotten took its edits with it.
        """
        known = {(e.chain, e.part, e.block.digest, int(e.explains)) for e in edits}
        found: set[tuple[bytes, str, bytes, int]] = set()
        for start in range(0, len(chains), _BATCH):
            among, parameters = self._file.dialect.is_one_of(
                "chain", chains[start : start + _BATCH]
            )
            rows = self._file.read(
                f"SELECT chain, part, block, explains FROM edits WHERE {among}", parameters
            )
            found.update(map(tuple, rows))
        return found == known

    def existing(self, handles: Sequence[str]) -> set[str]:
        """Those of the handles that memories have.

        Those that were seen to exist are asked for again only after something was removed.
        """
        there = self.seen()
        unknown = [handle for handle in handles if handle not in there]
        if unknown:
            self._file.bring(unknown)
            rows = self._file.read(
                f"SELECT handle FROM memories WHERE {self._file.dialect.is_among('handle')}",
                (self._file.dialect.many(unknown),),
            )
            there.update(row["handle"] for row in rows)
        return there.intersection(handles)

    def seen(self) -> set[str]:
        """The handles that this thread has seen to exist since something was removed.

        Whoever remembers texts after this call can add theirs: if something is removed meanwhile,
        the set is used no more.
        """
        asked = getattr(self._local, "asked", None)
        since = asked[0] if asked else self._file.removals()
        if getattr(self._local, "since", self) != since or len(self._local.there) > _MOST_SEEN:
            self._local.since, self._local.there = since, set()
        there: set[str] = self._local.there
        return there

    @contextmanager
    def asked_once(self) -> Iterator[None]:
        """In a block, ask only once whether something was removed.

        A database on another machine is then asked once for each request. What is removed meanwhile
        is noticed by the next one; and no block is kept whose original is gone.
        """
        if getattr(self._local, "asked", None):
            yield
            return
        self._local.asked = (self._file.removals(),)
        try:
            yield
        finally:
            self._local.asked = None

    def mentions(self, digests: Sequence[bytes]) -> set[str]:
        """The handles that the blocks with these digests name."""
        found: set[str] = set()
        for start in range(0, len(digests), _BATCH):
            among, parameters = self._file.dialect.is_one_of(
                "block", digests[start : start + _BATCH]
            )
            rows = self._file.read(f"SELECT handle FROM mentions WHERE {among}", parameters)
            found.update(row["handle"] for row in rows)
        return found

    # Hidden rounds are kept as the body of a block, so that forgetting a memory that they quote
    # removes them, too. The schema knows three kinds of blocks; these are notes to it. A digest of
    # the chain takes the chain's place, so that no view of the conversation takes them for edits
    # of its own. Their text is never sent.

    def keep_rounds(self, chain: bytes, rounds: str, mentions: Iterable[str]) -> None:
        """Keep what belongs in place of the message at which a chain ends.

        Raises:
            StoreError: One of the handles was forgotten.
        """
        key = _rounds_key(chain)
        text = f"[clara rounds {key.hex()[:12]}]"
        block = Block(hashlib.sha256(key).digest(), "note", text, None, rounds)
        self.save_edits([Edit(key, _ROUNDS, self.keep(block, mentions))])

    def rounds(self, chains: Sequence[bytes]) -> dict[bytes, str]:
        """By chain, what belongs in place of the message at which it ends."""
        keys = {_rounds_key(chain): chain for chain in chains}
        return {
            keys[edit.chain]: edit.block.body
            for edit in self.edits(list(keys))
            if edit.part == _ROUNDS and edit.block.body
        }


class _Made:
    """A block that is new, perhaps, with the handles it names."""

    def __init__(self, block: Block, mentions: Iterable[str]) -> None:
        self.digest = block.digest
        body = None if block.body is None else zlib.compress(_encode(block.body), 6)
        self.row = (
            block.digest,
            block.kind,
            _sha256(block.text),
            block.text,
            block.handle,
            body,
        )
        own = [block.handle] if block.handle else []
        self.handles = list(dict.fromkeys([*own, *mentions]))


def _insert(connection: Connection, made: Sequence[_Made]) -> None:
    """Insert blocks with the handles they name, except those of which there is one already.

    Each statement has as many as it can, as a database on another machine is asked one at a time;
    and in one order, so that no two programs wait for each other.
    """
    in_order = sorted({one.digest: one for one in reversed(made)}.values(), key=lambda o: o.digest)
    for start in range(0, len(in_order), _INSERTED):
        some = in_order[start : start + _INSERTED]
        rows = connection.execute(
            "INSERT INTO blocks (digest, kind, issued, text, handle, body) "
            f"VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * len(some))} "
            "ON CONFLICT DO NOTHING RETURNING digest",
            [value for one in some for value in one.row],
        ).fetchall()
        added = {bytes(row[0]) for row in rows}
        connection.executemany(
            "INSERT INTO mentions (handle, block) VALUES (?, ?)",
            sorted((h, one.digest) for one in some if one.digest in added for h in one.handles),
        )


def _rounds_key(chain: bytes) -> bytes:
    return hashlib.sha256(b"rounds\0" + chain).digest()


def _block(row: Any) -> Block:
    body = row["body"]
    try:
        text = None if body is None else zlib.decompress(body).decode("utf-8", "surrogatepass")
    except (zlib.error, UnicodeDecodeError) as error:
        raise StoreError(f"the block of {row['handle']} is damaged: {error}") from error
    return Block(row["digest"], row["kind"], row["text"], row["handle"], text)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _sha256(text: str) -> bytes:
    return hashlib.sha256(_encode(text)).digest()
