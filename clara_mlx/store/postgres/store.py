"""The store of a team: `Originals` in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from clara_mlx.errors import StoreError
from clara_mlx.store.backlog import Backlog
from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import MemoryRow
from clara_mlx.store.originals import Originals
from clara_mlx.store.postgres import checking, second_space, sweeping
from clara_mlx.store.postgres.backlog import SharedBacklog, SpaceBacklog
from clara_mlx.store.postgres.database import PostgresDatabase
from clara_mlx.store.spaces import SecondSpace


class PostgresStore(Originals, PostgresDatabase):
    """A team's memory, opened by its URL; see `Originals` and `PostgresDatabase`."""

    allows_second_space = True

    def __init__(self, url: str) -> None:
        PostgresDatabase.__init__(self, url)
        Originals.__init__(self)
        self.backlog = SharedBacklog(self)
        self.texts_backlog = SharedBacklog(self, "pending_texts")

    def backlog_of(self, space_id: int) -> Backlog:
        """The contents that wait for the latents of a space."""
        return SpaceBacklog(self, space_id)

    def prepare_second_space(self, connection: Connection) -> None:
        """Make way for a second space, in the transaction that makes it."""
        second_space.prepare(self, connection)

    def second_space(self) -> SecondSpace | None:
        """The space of a new model that is being filled; None if there is none."""
        return second_space.find(self)

    def finish_second_space(self) -> bool:
        """Let the new model's latents take the place of the old ones, if they are complete."""
        return second_space.finish(self)

    def texts(self, content_ids: Iterable[int]) -> dict[int, str]:
        """Contents as texts, without those that are damaged or were forgotten; read at once."""
        rows = self.read("SELECT * FROM contents WHERE id = ANY(?)", (list(content_ids),))
        found: dict[int, str] = {}
        for row in rows:
            with suppress(StoreError):
                found[row["id"]] = self._to_text(row)
        return found

    def insert_memories(self, connection: Connection, rows: Sequence[MemoryRow]) -> None:
        """Insert memories; a constraint finds the handles that are taken. See `Originals`."""
        if rows:
            self.dialect.insert_memories(connection, rows)

    def empty_traces(self) -> None:
        """Vacuum the tables from which something was removed; see `sweeping`."""
        sweeping.sweep(self)

    def damage(self, *, quick: bool = False) -> list[str]:
        """What PostgreSQL finds wrong; see `checking`. Nothing of that shows quickly."""
        return [] if quick else checking.damage(self)

    def vacuum(self) -> tuple[int, int]:
        """Write all tables anew, which locks them; returns `size` before and after."""
        return sweeping.rewrite(self)
