"""Reading a damaged file as far as SQLite can: rows one by one, where a query of all fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from clara_mlx.errors import Closed, StoreError
from clara_mlx.store import filters
from clara_mlx.store.filters import Where
from clara_mlx.store.originals import Originals
from clara_mlx.store.stored import StoredMemory

# The most ids that are tried; a damaged file may say any number.
_MOST_IDS = 10_000_000


def is_damage(error: Exception) -> bool:
    """Whether an error is that of one row or page, beside which others can be read."""
    if isinstance(error, StoreError):
        return not (error.transient or isinstance(error, Closed))
    return isinstance(error, TypeError | ValueError)  # damaged rows can hold anything


def memories(store: Originals, where: Where) -> tuple[list[StoredMemory], list[str]]:
    """The memories that match and can be read, oldest first; and what is said of the others."""
    try:
        return list(store.memories(where)), []
    except (StoreError, TypeError, ValueError) as error:
        if not (is_damage(error) and is_damaged(store)):
            raise
    wanted, parameters = filters.condition(where, store.dialect)
    found: list[StoredMemory] = []
    problems = []
    for id, _ in _by_id(store, "memories"):
        try:
            found += store.select(f"m.id = ? AND {wanted}", [id, *parameters])
        except (StoreError, TypeError, ValueError) as error:
            problems.append(f"memory {_handle(store, id)}: {error}")
    return found, problems


def ids(store: Originals, table: Literal["contents", "memories"]) -> list[int]:
    """The ids of a table's rows, one by one where they can't be read together."""
    try:
        return [row[0] for row in store.read(f"SELECT id FROM {table} ORDER BY id")]
    except StoreError as error:
        if not is_damage(error):
            raise
    return [id for id, there in _by_id(store, table) if there]


def is_damaged(store: Originals) -> bool:
    """Whether a database finds itself damaged."""
    try:
        return bool(store.damage(quick=True))
    except StoreError as error:
        return is_damage(error)


def _by_id(store: Originals, table: str) -> Iterator[tuple[int, bool]]:
    """The ids that a table can have, and whether there is such a row; one can't be read, either."""
    last: Any = 0
    for sql in (
        f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'",
        f"SELECT max(id) FROM {table}",
    ):
        try:
            ((last,),) = store.read(sql)
            break
        except (StoreError, ValueError):
            continue
    for id in range(1, min(last if isinstance(last, int) else 0, _MOST_IDS) + 1):
        try:
            there = bool(store.read(f"SELECT id FROM {table} WHERE id = ?", (id,)))
        except StoreError:
            there = True
        if there:
            yield id, there


def _handle(store: Originals, id: int) -> str:
    """A memory's handle; its number if even that can't be read."""
    try:
        return str(store.read("SELECT handle FROM memories WHERE id = ?", (id,))[0][0])
    except (StoreError, IndexError):
        return f"number {id}"
