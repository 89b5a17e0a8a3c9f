"""What a memory is exported to: JSON lines that can be imported, or tables for other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from clara_mlx.errors import Progress, StoreError, reason
from clara_mlx.store import exports, plain_parquet, plain_sqlite
from clara_mlx.store.atomic import partial_file
from clara_mlx.store.exports import Incomplete
from clara_mlx.store.filters import Where
from clara_mlx.store.originals import Originals

#: Writes the memories that match a filter to an empty file; returns their number.
Write = Callable[[Originals, Path, Mapping[str, Any] | None, Progress | None], int]


class Exports:
    """The exports of a memory; a part of `Memory`."""

    _store: Originals

    def export(
        self, file: IO[str], where: Where = None, *, progress: Progress | None = None
    ) -> int:
        """Write memories as JSON lines with their originals; returns the number of memories.

        Raises:
            Incomplete: Some are damaged; all others were written.
        """
        return exports.export(self._store, file, where, progress)

    def export_sqlite(
        self, to: str | Path, where: Where = None, *, progress: Progress | None = None
    ) -> int:
        """Write memories and the ledger as plain SQLite tables; returns the number of memories.

        The file, which docs/EXPORT.md describes, is complete or not there. An earlier one of that
        name is replaced.

        Raises:
            Incomplete: Some are damaged; all others were written.
            StoreError: The file can't be written.
        """
        return self._export_to(Path(to), plain_sqlite.write, where, progress)

    def export_parquet(
        self, to: str | Path, where: Where = None, *, progress: Progress | None = None
    ) -> int:
        """Write memories as a Parquet file, a row for each; otherwise as `export_sqlite`.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
        """
        return self._export_to(Path(to), plain_parquet.write, where, progress)

    def _export_to(self, to: Path, write: Write, where: Where, progress: Progress | None) -> int:
        if to.exists() and not to.is_file():
            raise StoreError(f"{to}: not a regular file; name another one")
        incomplete: Incomplete | None = None
        try:
            with partial_file(to, private=True) as partial:
                try:
                    count = write(self._store, partial, where, progress)
                except Incomplete as error:  # the rest of it is worth keeping
                    incomplete = error
        except OSError as error:
            raise StoreError(f"{to}: {reason(error)}") from error
        if incomplete:
            raise incomplete
        return count
