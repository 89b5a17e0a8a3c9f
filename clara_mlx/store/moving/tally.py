"""What a move has found and done, and the pages in which it reads tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clara_mlx.store.connection import Reader
from clara_mlx.store.originals import Originals

# Rows of a table that are looked up at a time: bounds the memory, and the parameters of a query.
PAGE = 200

# The most sentences about conflicts that are kept; all are counted.
_MOST_SENTENCES = 1000


@dataclass
class Counts:
    """The rows of one table."""

    moved: int = 0  # or, when nothing is written, those that would be
    there: int = 0  # that the target has already
    conflicts: int = 0  # that it has with other content; it keeps its own
    left: int = 0  # that can't be moved: damaged, or they belong to something that was not moved
    other: int = 0  # made by another model than the target's, which makes its own


@dataclass
class Tally:
    """What was found, by table, and what is to be said of single rows."""

    tables: dict[str, Counts] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    original_bytes: int = 0  # of the originals that are moved
    latent_bytes: int = 0

    def of(self, table: str) -> Counts:
        """The counts of a table."""
        return self.tables.setdefault(table, Counts())

    def conflict(self, table: str, sentence: str) -> None:
        """Count a row that the target has with other content."""
        self.of(table).conflicts += 1
        self._say(sentence)

    def leave(self, table: str, sentence: str) -> None:
        """Count a row that can't be moved."""
        self.of(table).left += 1
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        if len(self.sentences) < _MOST_SENTENCES:
            self.sentences.append(sentence)

    @property
    def unsettled(self) -> int:
        """Rows that differ in the two databases, or could not be moved."""
        return sum(counts.conflicts + counts.left for counts in self.tables.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Both:
    """Where rows come from, and where they go to.

    Attributes:
        source: The database that is read.
        target: The one that they go to.
        writes: Whether rows are written; else only looked up and counted.
        tally: What is found.
    """

    source: Originals
    target: Originals
    writes: bool
    tally: Tally


def marks(values: Sequence[Any]) -> str:
    """A list of values in SQL."""
    return f"({', '.join('?' * len(values))})"


def pages(file: Reader, columns: str, table: str, key: str, first: Any) -> Iterator[list[Any]]:
    """All rows of a table, a page at a time, in the order of a key, which is its first column.

    Args:
        file: The database.
        columns: What is read; the key comes first.
        table: The table, or several that are joined, perhaps with a condition.
        key: The column by which they are ordered; no two rows have the same.
        first: A value before all others.
    """
    last = first
    joint = "AND" if " WHERE " in table else "WHERE"
    while rows := file.read(
        f"SELECT {columns} FROM {table} {joint} {key} > ? ORDER BY {key} LIMIT {PAGE}", (last,)
    ):
        yield rows
        last = rows[-1][0]
