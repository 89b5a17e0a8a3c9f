"""Memories a page at a time, for people who look: newest first, counted, grouped.

Everything here reads a part of the file: a list of ten thousand memories is shown from fifty rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clara_mlx.store import fields, filters
from clara_mlx.store.filters import Where
from clara_mlx.store.protocol import Database

# Bytes of a stored original from which its beginning is read.
_HEAD_BYTES = 2_048

# Characters of a beginning, at most.
_HEAD_CHARACTERS = 600


#: What memories may have in common.
Common = Literal["source", "session", "project"]


@dataclass(frozen=True)
class Listed:
    """A memory in a list."""

    handle: str
    kind: str  # 'text' or 'bytes'
    length: int  # bytes
    source: str | None
    session: str | None
    created_at: float  # seconds since 1970
    metadata: dict[str, Any]
    begins: str  # the beginning of its text
    replaced: bool  # whether a block stands in its place in a conversation
    pending: bool  # whether it waits for compression


@dataclass(frozen=True)
class Group:
    """The memories that have something in common."""

    name: str | None
    memories: int
    newest: float  # time of the newest, in seconds since 1970


@dataclass(frozen=True)
class Standing:
    """A text that is sent in the place of a memory, or that tells of it."""

    digest: bytes
    kind: str  # 'piece', 'fold' or 'note'
    text: str
    own: bool  # whether it stands for this memory alone
    places: int  # in conversations, where it is sent


#: How a list is sorted; memories that are equal in that come newest first.
Order = Literal["newest", "oldest", "largest", "source", "session"]

_ORDERS: dict[Order, str] = {
    "newest": "m.created_at DESC, m.id DESC",
    "oldest": "m.created_at, m.id",
    "largest": "c.length DESC, m.id DESC",
    "source": "m.source NULLS FIRST, m.id DESC",
    "session": "m.session NULLS FIRST, m.id DESC",
}

_ROW = (
    "SELECT m.handle, m.source, m.session, m.created_at, m.metadata, c.kind, c.length, "
    f"c.compression, substr(c.data, 1, {_HEAD_BYTES}) AS head, "
    "EXISTS (SELECT 1 FROM mentions n JOIN blocks b ON b.digest = n.block "
    "WHERE n.handle = m.handle AND b.handle = m.handle) AS replaced, "
    "EXISTS (SELECT 1 FROM pending p WHERE p.content_id = c.id) AS pending "
    "FROM memories m JOIN contents c ON c.id = m.content_id "
)


def page(
    file: Database, where: Where, most: int, offset: int = 0, order: Order = "newest"
) -> list[Listed]:
    """The memories that match a filter, newest first, from the one at ``offset`` on."""
    condition, parameters = filters.condition(where, file.dialect)
    rows = file.read(
        f"{_ROW} WHERE {condition} ORDER BY {_ORDERS[order]} LIMIT ? OFFSET ?",
        [*parameters, most, offset],
    )
    return [_listed(row) for row in rows]


def projects(file: Database) -> list[str]:
    """The projects that memories belong to, by name."""
    project = file.dialect.field("project")
    rows = file.read(
        f"SELECT DISTINCT {project} AS project FROM memories "
        f"WHERE {project} IS NOT NULL ORDER BY project"
    )
    return [row[0] for row in rows if isinstance(row[0], str)]


def by_handle(file: Database, handles: Sequence[str]) -> dict[str, Listed]:
    """Memories by their handles, without those that do not exist."""
    rows = file.read(
        f"{_ROW} WHERE {file.dialect.is_among('m.handle')}", (file.dialect.many(list(handles)),)
    )
    return {row["handle"]: _listed(row) for row in rows}


def count(file: Database, where: Where) -> int:
    """The number of memories that match a filter."""
    condition, parameters = filters.condition(where, file.dialect)
    rows = file.read(f"SELECT count(*) FROM memories m WHERE {condition}", parameters)
    return int(rows[0][0])


def count_and_bytes(file: Database, where: Where) -> tuple[int, int]:
    """The number of memories that match a filter, and the bytes of their originals."""
    condition, parameters = filters.condition(where, file.dialect)
    rows = file.read(
        "SELECT count(*), coalesce(sum(c.length), 0) FROM memories m "
        f"JOIN contents c ON c.id = m.content_id WHERE {condition}",
        parameters,
    )
    return int(rows[0][0]), int(rows[0][1])


def groups(file: Database, by: Common, most: int, offset: int = 0) -> list[Group]:
    """The memories by what they have in common, the newest group first."""
    # The project stands in the metadata.
    column = file.dialect.field(by) if by == "project" else by
    rows = file.read(
        f"SELECT {column} AS name, count(*) AS memories, max(created_at) AS newest "
        f"FROM memories GROUP BY {column} ORDER BY newest DESC LIMIT ? OFFSET ?",
        (most, offset),
    )
    return [Group(*row) for row in rows if row["name"] is None or isinstance(row["name"], str)]


def standing(file: Database, handle: str, most: int) -> list[Standing]:
    """The texts that are sent in the place of a memory or tell of it; its own block first."""
    rows = file.read(
        "SELECT b.digest, b.kind, b.text, coalesce(b.handle = n.handle, FALSE) AS own, "
        "(SELECT count(*) FROM edits e WHERE e.block = b.digest) AS places "
        "FROM mentions n JOIN blocks b ON b.digest = n.block "
        "WHERE n.handle = ? AND NOT (b.kind = 'note' AND b.body IS NOT NULL) "
        "ORDER BY own DESC, (b.kind = 'note'), places DESC, b.digest LIMIT ?",
        (handle, most),
    )
    return [
        Standing(row["digest"], row["kind"], row["text"], bool(row["own"]), row["places"])
        for row in rows
    ]


def same_content(file: Database, handle: str, most: int) -> list[str]:
    """Other memories of the same content, newest first."""
    rows = file.read(
        "SELECT o.handle FROM memories m JOIN memories o ON o.content_id = m.content_id "
        "WHERE m.handle = ? AND o.handle <> m.handle ORDER BY o.id DESC LIMIT ?",
        (handle, most),
    )
    return [row["handle"] for row in rows]


def chunk_sizes(file: Database, handle: str) -> tuple[int, int | None]:
    """The number of a memory's chunks, and their tokens; None if they were cut without a model."""
    rows = file.read(
        "SELECT count(*), sum(c.tokens) FROM memories m JOIN chunks c "
        "ON c.content_id = m.content_id WHERE m.handle = ?",
        (handle,),
    )
    return int(rows[0][0]), rows[0][1]


def _listed(row: Any) -> Listed:
    return Listed(
        handle=row["handle"],
        kind=row["kind"],
        length=row["length"],
        source=row["source"],
        session=row["session"],
        created_at=row["created_at"],
        metadata=fields.read_metadata(row["metadata"]),
        begins=_beginning(row["head"], row["compression"]),
        replaced=bool(row["replaced"]),
        pending=bool(row["pending"]),
    )


def _beginning(head: Any, compression: str) -> str:
    """The beginning of a text from the first bytes of what is stored; empty if they are damaged."""
    if not isinstance(head, bytes):
        return ""
    if compression == "zlib":
        try:
            head = zlib.decompressobj().decompress(head, 4 * _HEAD_CHARACTERS)
        except zlib.error:
            return ""
    # A character that is cut at the end is left out.
    text: str = head[: 4 * _HEAD_CHARACTERS].decode("utf-8", "replace").rstrip("\ufffd")
    return text[:_HEAD_CHARACTERS]
