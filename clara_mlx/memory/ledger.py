"""The ledger of a memory: what was sent to a reasoner, what it cost and what it saved."""

from __future__ import annotations

from collections.abc import Sequence

from clara_mlx.store import ledger, sums
from clara_mlx.store.ledger import Round
from clara_mlx.store.protocol import Database
from clara_mlx.store.sums import LedgerWhere, Sums, Use


class Ledger:
    """What the gateway did for each prompt, kept in the memory's file. Made by `Memory`.

    Args:
        file: The open memory file.
    """

    def __init__(self, file: Database) -> None:
        self._file = file

    def write(self, rounds: Sequence[Round]) -> None:
        """Add rounds and their sums, all or none, without waiting for the disk."""
        ledger.write(self._file, rounds)

    def sums(
        self,
        by: Sequence[str] = (),
        where: LedgerWhere = None,
        *,
        sort: str = "last_at",
        most: int | None = None,
        skip: int = 0,
    ) -> list[Sums]:
        """Sums by day, session, project, agent or model, see `clara_mlx.store.sums.sums`."""
        return sums.sums(self._file, by, where, sort=sort, most=most, skip=skip)

    def rounds(
        self, where: LedgerWhere = None, *, most: int = 100, before_id: int | None = None
    ) -> list[Round]:
        """The newest rounds that match, latest first; page on with the last one's ``id``."""
        return sums.rounds(self._file, where, most=most, before_id=before_id)

    def uses(self, handle: str, most: int = 100) -> list[Use]:
        """When a memory was compacted away and when it was asked back, latest first."""
        return sums.uses(self._file, handle, most)
