"""The store of a team: `Originals` in PostgreSQL."""

from __future__ import annotations

from clara_mlx.store.originals import Originals
from clara_mlx.store.postgres import checking, sweeping
from clara_mlx.store.postgres.database import PostgresDatabase


class PostgresStore(Originals, PostgresDatabase):
    """A team's memory, opened by its URL; see `Originals` and `PostgresDatabase`."""

    def __init__(self, url: str) -> None:
        PostgresDatabase.__init__(self, url)
        Originals.__init__(self)

    def empty_traces(self) -> None:
        """Vacuum the tables from which something was removed; see `sweeping`."""
        sweeping.sweep(self)

    def damage(self, *, quick: bool = False) -> list[str]:
        """What PostgreSQL finds wrong; see `checking`. Nothing of that shows quickly."""
        return [] if quick else checking.damage(self)

    def vacuum(self) -> tuple[int, int]:
        """Write all tables anew, which locks them; returns `size` before and after."""
        return sweeping.rewrite(self)
