"""Values and rows as the rest of the store knows them from SQLite.

- A row is read by name and by place.
- A text may have NUL characters, which PostgreSQL's have not: they are written as two characters,
  on the way in, and read back on the way out, whatever the column.
- Sums of whole numbers are ints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format
from psycopg.types.numeric import NumericBinaryLoader
from psycopg.types.string import StrDumperUnknown

# Statements that are kept with their numbers, and the length of the longest, in characters: longer
# ones have as many marks as there are rows, and hardly come again.
_KEPT = 4096
_LONGEST_KEPT = 4096

# The character that begins those two, which is doubled if it is in a text itself; and the second
# one that stands for NUL.
ESCAPE = "\x10"
_NUL = "0"


def escape(text: str) -> str:
    """A text without NUL characters, from which `unescape` makes the same text again."""
    if ESCAPE in text or "\0" in text:
        return text.replace(ESCAPE, ESCAPE + ESCAPE).replace("\0", ESCAPE + _NUL)
    return text


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    if ESCAPE not in text:
        return text
    pieces = text.split(ESCAPE + ESCAPE)
    return ESCAPE.join(piece.replace(ESCAPE + _NUL, "\0") for piece in pieces)


class Row(tuple[Any, ...]):
    """A row of a result, read by name and by place."""

    __slots__ = ()
    _places: ClassVar[dict[str, int]] = {}

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return tuple.__getitem__(self, self._places[key])
        return tuple.__getitem__(self, key)

    def keys(self) -> list[str]:
        """The names of the columns, which makes ``dict(row)`` work."""
        return list(self._places)


@lru_cache(maxsize=1024)
def _row_class(names: tuple[str, ...]) -> type[Row]:
    places = {name: place for place, name in enumerate(names)}
    return type("Row", (Row,), {"__slots__": (), "_places": places})


def rows_by_name(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Row]:
    """Psycopg's factory of rows."""
    return _row_class(tuple(column.name for column in cursor.description or ()))


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer:
        return escape(obj).encode()


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        return unescape(bytes(data).decode())


class _BinaryTextLoader(_TextLoader):
    format = Format.BINARY


class _NumberLoader(NumericBinaryLoader):
    def load(self, data: Buffer) -> Any:
        number = super().load(data)
        whole = int(number)
        return whole if whole == number else float(number)


def adapt(connection: psycopg.Connection[Any]) -> None:
    """Have a connection write and read values like this."""
    adapters = connection.adapters
    adapters.register_dumper(str, _TextDumper)
    for name in ("text", "varchar", "name"):
        adapters.register_loader(name, _TextLoader)
        adapters.register_loader(name, _BinaryTextLoader)
    adapters.register_loader("numeric", _NumberLoader)


def numbered(sql: str) -> str:
    """A statement with its marks as PostgreSQL has them: ``$1``, ``$2`` ..."""
    return _kept(sql) if len(sql) <= _LONGEST_KEPT else _number(sql)


def _number(sql: str) -> str:
    first, *rest = sql.split("?")
    return first + "".join(f"${place}{piece}" for place, piece in enumerate(rest, 1))


_kept = lru_cache(maxsize=_KEPT)(_number)
