"""The table of shortened texts: what a textual compressor made of each chunk."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from clara_mlx.errors import OtherModel, StoreError
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import Database


class ShortenedTable:
    """The shortened texts of one textual compressor in one file; made by `open`.

    They stand beside the file's latents, and neither knows of the other.

    Attributes:
        file: The memory file.
        compressor: The compressor's name.
        fingerprint: Its fingerprint.
        ratio: Tokens of a chunk for each of its shortened text.
    """

    def __init__(self, file: Originals, row: Any) -> None:
        self.file = file
        self.compressor: str = row["compressor"]
        self.fingerprint: str = row["fingerprint"]
        self.ratio: float = row["ratio"]
        self._id: int = row["id"]

    @classmethod
    def open(
        cls, file: Originals, compressor: str, fingerprint: str, ratio: float
    ) -> ShortenedTable:
        """Open a compressor's table, and make it in a file that has none.

        A new one puts all contents into the backlog of texts.

        Raises:
            OtherModel: The file's shortened texts are another compressor's.
        """
        row = _row(file)
        if row is None:  # an existing table is only read, as the file may be read-only
            with file.write(alone=True) as connection:
                row = _row(file)
                if row is None:
                    connection.execute(
                        "INSERT INTO shorteners (compressor, fingerprint, ratio) VALUES (?, ?, ?)",
                        (compressor, fingerprint, ratio),
                    )
                    connection.execute(
                        "INSERT INTO pending_texts (content_id) SELECT id FROM contents"
                    )
                    row = _row(file)
        assert row is not None
        if row["fingerprint"] != fingerprint:
            raise OtherModel(
                f"{file.path}: its shortened texts were made by {row['compressor']} "
                f"({row['fingerprint'][:12]}), not by {compressor} ({fingerprint[:12]}); open it "
                "with that one, or move it to this one with: clara-mlx recompress"
            )
        return cls(file, row)

    def count(self) -> int:
        """Number of chunks that have a shortened text."""
        (row,) = self.file.read(
            "SELECT count(*) FROM shortened WHERE shortener_id = ?", (self._id,)
        )
        return int(row[0])

    def present(self, chunk_ids: Sequence[int]) -> set[int]:
        """Those of the chunks that have a shortened text."""
        return {row[0] for row in self._rows("chunk_id", chunk_ids)}

    def texts(self, chunk_ids: Sequence[int]) -> dict[int, str]:
        """Shortened texts by chunk id, of the chunks that have one.

        Raises:
            StoreError: One is damaged.
        """
        found: dict[int, str] = {}
        for id, crc, data in self._rows("chunk_id, crc, data", chunk_ids):
            if not isinstance(data, bytes) or zlib.crc32(data) != crc:
                raise StoreError(
                    f"{self.file.path}: the shortened text of chunk {id} is damaged; "
                    "`clara-mlx verify --repair` makes it again from the original"
                )
            found[id] = data.decode("utf-8", "surrogatepass")
        return found

    def _rows(self, columns: str, chunk_ids: Sequence[int]) -> list[Any]:
        return self.file.read(
            f"SELECT {columns} FROM shortened WHERE shortener_id = ? "
            f"AND {self.file.dialect.is_among('chunk_id')}",
            (self._id, self.file.dialect.many(chunk_ids)),
        )

    def put(self, chunk_ids: Sequence[int], texts: Sequence[str], done: Sequence[int] = ()) -> None:
        """Store shortened texts, and take the contents that they complete out of the backlog.

        Args:
            chunk_ids: The chunks; those that have been forgotten are left out.
            texts: Their shortened texts.
            done: The contents whose chunks all have one now.

        Raises:
            OtherModel: Another process has moved the file to another compressor.
        """
        rows = [
            (self._id, zlib.crc32(data), data, chunk_id)
            for chunk_id, text in zip(chunk_ids, texts, strict=True)
            for data in (text.encode("utf-8", "surrogatepass"),)
        ]
        with self.file.write() as connection:
            row = _row(self.file)
            if row is None or (row["id"], row["fingerprint"]) != (self._id, self.fingerprint):
                raise OtherModel(
                    f"{self.file.path}: it has been moved to another compressor; move it back "
                    "with: clara-mlx recompress"
                )
            connection.executemany(
                "INSERT INTO shortened (shortener_id, chunk_id, crc, data) "
                "SELECT ?, id, ?, ? FROM chunks WHERE id = ? ON CONFLICT DO NOTHING",
                rows,
            )
            self.file.texts_backlog.lift(connection, done)


def _row(file: Database) -> Any:
    return next(iter(file.read("SELECT * FROM shorteners")), None)


def count_by_shortener(file: Database) -> dict[str, int]:
    """Number of shortened texts by the name of the compressor that made them."""
    rows = file.read(
        "SELECT compressor, (SELECT count(*) FROM shortened WHERE shortener_id = s.id) "
        "FROM shorteners s"
    )
    return {row[0]: row[1] for row in rows}


def drop_all_shortened(file: Database) -> None:
    """Drop all shortened texts, for another compressor; originals and latents stay."""
    with file.write(alone=True) as connection:
        connection.execute("DELETE FROM shortened")
        connection.execute("DELETE FROM shorteners")
        connection.execute("DELETE FROM pending_texts")
