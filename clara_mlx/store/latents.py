"""The table of latents: one blob and one sketch for each compressed chunk.

All latents of a file are one model's: its *space*, a row that names the compressor and its model
and says how latents and sketches are stored. Sketches are centred on the mean of the latents, which
moves as latents are added, so now and then all sketches are remade (`LatentTable.put`). Each time
sketches are removed or remade, the space's *epoch* grows, which tells every process that the
sketches it has read are out of date.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from clara_mlx.errors import OtherModel, StoreError
from clara_mlx.store.codec import Codec
from clara_mlx.store.connection import Connection
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import Database
from clara_mlx.store.sketch import LEAST_FOR_MEAN, Bits, RunningMean, Sketcher
from clara_mlx.store.spaces import space_of
from clara_mlx.store.varying import VaryingCodec

# Length of a sketch in bits, where the latents have as many values; 1 KiB.
_SKETCH_BITS = 8192

# Seed of the sketches' rotation, as new spaces store it.
_SKETCH_SEED = 20251118

# Latents that the mean is estimated from: at least this many, if there are as many.
_MEAN_SAMPLE = 256

# Latents decoded at a time for the mean: bounds the memory.
_MEAN_BATCH = 64

# Latents decoded at a time to remake sketches: bounds the memory.
_SKETCH_BATCH = 256


#: A chunk with its latents as bytes, and their digest.
BlobRow = tuple[int, bytes, bytes | None]


class LatentTable:
    """The latents of one model in one file; made by `open`.

    Attributes:
        file: The memory file.
        id: The space's id, and part of the name of its table of sketches.
        compressor: The compressor's name.
        fingerprint: The model's fingerprint.
        shape: Shape of what a search compares: a chunk's latents (memory_tokens, hidden), or their
            mean (1, hidden).
        codec: Turns latents into blobs and back.
        sketch_bits: Length of a sketch.
    """

    def __init__(self, file: Originals, space: Any) -> None:
        self.file = file
        self.id: int = space["id"]
        self.compressor: str = space["compressor"]
        self.fingerprint: str = space["fingerprint"]
        most, hidden = space["memory_tokens"], space["hidden"]
        pooled = space["pooling"] == "mean"
        self.shape: tuple[int, int] = (1 if pooled else most, hidden)
        self.codec: Codec | VaryingCodec = (VaryingCodec if pooled else Codec)(
            space["codec"], most, hidden
        )
        self.sketch_bits: int = space["sketch_bits"]
        self._seed: int = space["sketch_seed"]
        self._dims = self.shape[0] * self.shape[1]
        self._lock = threading.Lock()
        self._sketcher: tuple[int, Sketcher] | None = None

    @classmethod
    def open(
        cls,
        file: Originals,
        fingerprint: str,
        memory_tokens: int,
        hidden: int,
        codec: str,
        *,
        compressor: str = "clara",
        pooling: str = "flat",
        beside: bool = False,
    ) -> Self:
        """Open the table of a model's latents, and make it in a file that has none.

        Args:
            file: The memory file.
            fingerprint: The model's fingerprint.
            memory_tokens: Vectors of one chunk's latents; the most of them if they are pooled.
            hidden: Length of such a vector.
            codec: One of `codec.CODECS`, for a new table; an existing one keeps its own.
            compressor: The compressor's name.
            pooling: What a search compares: all vectors of a chunk (``flat``), or their ``mean``.
            beside: Make it beside the latents of another model, whose place it takes when it is
                complete; only where `Originals.allows_second_space`.

        Raises:
            OtherModel: The file's latents are another model's.
            ClaraError: There is no such codec.
        """
        Codec(codec, memory_tokens, hidden)  # an unknown name fails before anything is written
        values = hidden if pooling == "mean" else memory_tokens * hidden
        bits = Sketcher(values, _SKETCH_BITS).bits
        space = _find_space(file, fingerprint)
        # An existing table is only read, as the file may be one that is read-only.
        if space is None or (beside and space["fingerprint"] != fingerprint):
            with file.write(alone=True) as connection:
                space = _find_space(file, fingerprint)
                if space is not None and beside and space["fingerprint"] != fingerprint:
                    file.prepare_second_space(connection)
                    space = None
                if space is None:
                    connection.execute(
                        "INSERT INTO spaces (compressor, fingerprint, memory_tokens, hidden, "
                        "pooling, codec, sketch_bits, sketch_seed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (
                            *(compressor, fingerprint, memory_tokens, hidden),
                            *(pooling, codec, bits, _SKETCH_SEED),
                        ),
                    )
                    space = _find_space(file, fingerprint)
                    file.dialect.sketches.create(connection, space["id"], bits)
        if space["fingerprint"] != fingerprint:
            theirs = space["compressor"], space["fingerprint"]
            raise _other_model(file, theirs, (compressor, fingerprint))
        return cls(file, space)

    # -- reading ---------------------------------------------------------------------------------

    def count(self) -> int:
        """Number of chunks that have latents."""
        (row,) = self.file.read("SELECT count(*) FROM latents WHERE space_id = ?", (self.id,))
        return int(row[0])

    def is_empty(self) -> bool:
        """Whether no chunk has latents; counting them all takes longer."""
        rows = self.file.read("SELECT 1 FROM latents WHERE space_id = ? LIMIT 1", (self.id,))
        return not rows

    def present(self, chunk_ids: Sequence[int]) -> set[int]:
        """Those of the chunks that have latents."""
        return {row[0] for row in self._rows("chunk_id", chunk_ids)}

    def latents(self, chunk_ids: Sequence[int]) -> Floats | list[Floats]:
        """Latents (n, memory_tokens, hidden) float32 of chunks, in the order given.

        Where chunks have different numbers of vectors, it is a list of (vectors, hidden).

        Raises:
            StoreError: A chunk has none, or they are damaged.
        """
        blobs = self.checked_blobs(chunk_ids)
        for id, blob in blobs.items():
            if blob is None:
                raise StoreError(
                    f"{self.file.path}: the latents of chunk {id} are damaged; "
                    "`clara-mlx verify --repair` compresses them again from the original"
                )
        missing = [id for id in chunk_ids if id not in blobs]
        if missing:
            raise StoreError(f"{self.file.path}: chunks {missing} have no latents")
        return self.codec.decode([blob for id in chunk_ids if (blob := blobs[id]) is not None])

    def blobs(self, chunk_ids: Sequence[int]) -> dict[int, bytes]:
        """Blobs by chunk id, of the chunks that have latents.

        Their checksums are not verified, which would take longer than scoring them.
        """
        return dict(map(tuple, self._rows("chunk_id, data", chunk_ids)))

    def checked_blobs(self, chunk_ids: Sequence[int]) -> dict[int, bytes | None]:
        """Blobs by chunk id, of the chunks that have latents; None for a damaged one."""
        rows = self._rows("chunk_id, crc, data", chunk_ids)
        return {
            id: data if isinstance(data, bytes) and zlib.crc32(data) == crc else None
            for id, crc, data in rows
        }

    def known(self, digests: Sequence[bytes]) -> dict[bytes, Floats]:
        """Latents that the file has of texts, by the digests that they were `put` with."""
        found: dict[bytes, Floats] = {}
        for digest in set(digests):
            rows = self.file.read(
                "SELECT crc, data FROM latents WHERE space_id = ? AND digest = ? LIMIT 1",
                (self.id, digest),
            )
            for crc, data in rows:
                if zlib.crc32(data) == crc:
                    found[digest] = self.codec.decode([data])[0]
        return found

    def _sound_vectors(self, chunk_ids: Sequence[int]) -> tuple[list[int], Floats]:
        """The chunks with undamaged latents, and what a search compares of them (n, dims)."""
        blobs = {id: blob for id, blob in self.checked_blobs(chunk_ids).items() if blob is not None}
        vectors = np.empty((0, self._dims), np.float32)
        return list(blobs), self.codec.search_vectors(list(blobs.values())) if blobs else vectors

    def _rows(self, columns: str, chunk_ids: Sequence[int]) -> list[Any]:
        return self.file.read(
            f"SELECT {columns} FROM latents WHERE space_id = ? "
            f"AND {self.file.dialect.is_among('chunk_id')}",
            (self.id, self.file.dialect.many(chunk_ids)),
        )

    # -- sketches --------------------------------------------------------------------------------

    def state(self) -> tuple[int, int]:
        """The epoch of the sketches, and the id of the latent added last.

        Raises:
            OtherModel: Another process has moved the file to another model.
        """
        rows = self.file.read(
            "SELECT epoch, (SELECT coalesce(max(id), 0) FROM latents) FROM spaces "
            "WHERE id = ? AND fingerprint = ?",
            (self.id, self.fingerprint),
        )
        if not rows:
            ours = self.compressor, self.fingerprint
            found = space_of(self.file)
            theirs = (found.compressor, found.fingerprint) if found else ("none", "dropped")
            raise _other_model(self.file, theirs, ours)
        return rows[0][0], rows[0][1]

    def sketcher(self) -> tuple[int, Sketcher]:
        """The epoch of the sketches, and the sketcher they are made with until the next one."""
        with self._lock:
            epoch, _ = self.state()
            if self._sketcher is None or self._sketcher[0] != epoch:
                (row,) = self.file.read("SELECT epoch, mean FROM spaces WHERE id = ?", (self.id,))
                mean = None if row["mean"] is None else np.frombuffer(row["mean"], "<f4")
                sketcher = Sketcher(self._dims, self.sketch_bits, self._seed, mean)
                self._sketcher = row["epoch"], sketcher
            return self._sketcher

    # -- writing ---------------------------------------------------------------------------------

    def put(
        self,
        chunk_ids: Sequence[int],
        latents: Floats | Sequence[Floats],
        done: Sequence[int] = (),
        digests: Sequence[bytes] = (),
    ) -> None:
        """Store latents, and take the contents that they complete out of the backlog.

        Both happen in one transaction. Afterwards all sketches are remade if that is due.

        Args:
            chunk_ids: The chunks; those that have been forgotten are left out.
            latents: Their latents (n, memory_tokens, hidden), or n of (vectors, hidden).
            done: The contents whose chunks all have latents now.
            digests: What the chunks' texts can be found by later, see `known`.

        Raises:
            OtherModel: Another process has moved the file to another model.
        """
        blobs = self.codec.encode(latents)
        rows = list(zip(chunk_ids, blobs, digests or (None,) * len(blobs), strict=True))
        self._put(rows, self.codec.pool(latents), done)

    def put_blobs(self, rows: Sequence[BlobRow], done: Sequence[int] = ()) -> None:
        """As `put`, of latents that another database has stored with the same codec.

        Args:
            rows: Each chunk with its blob and its digest.
            done: The contents whose chunks all have latents now.
        """
        self._put(rows, self.codec.search_vectors([blob for _, blob, _ in rows]), done)

    def _put(
        self,
        rows: Sequence[BlobRow],
        vectors: Floats,
        done: Sequence[int],
    ) -> None:
        """Insert blobs of chunks with the sketches of ``vectors``, what a search compares."""
        epoch, sketcher = self.sketcher()
        sketches = sketcher.sketch(vectors)
        with self.file.write() as connection:
            if self.state()[0] != epoch:  # another process has moved the mean
                sketches = self.sketcher()[1].sketch(vectors)
            new = self._insert(connection, rows)
            kept = [
                (row[0], sketch.tobytes())
                for row, sketch in zip(rows, sketches, strict=True)
                if row[0] in new
            ]
            self.file.dialect.sketches.add(connection, self.id, kept)
            self.file.backlog_of(self.id).lift(connection, done)
        self._recentre_if_due()

    def _insert(self, connection: Connection, rows: Sequence[BlobRow]) -> set[int]:
        """Insert the latents of chunks that exist and have none; returns those chunks."""
        new = set()
        for chunk_id, blob, digest in rows:
            cursor = connection.execute(
                "INSERT INTO latents (space_id, chunk_id, crc, data, digest) "
                "SELECT ?, id, ?, ?, ? FROM chunks WHERE id = ? ON CONFLICT DO NOTHING",
                (self.id, zlib.crc32(blob), blob, digest, chunk_id),
            )
            if cursor.rowcount:
                new.add(chunk_id)
        return new

    def _recentre_if_due(self) -> None:
        """Remake all sketches if the latents have doubled and their mean has moved."""
        (row,) = self.file.read(
            "SELECT mean, mean_count, (SELECT coalesce(max(id), 0) FROM latents) AS most "
            "FROM spaces WHERE id = ?",
            (self.id,),
        )
        due = max(LEAST_FOR_MEAN, 2 * row["mean_count"])
        if row["most"] < due or (count := self.count()) < due:  # counting takes a while
            return
        mean = self._estimate_mean(count)
        used = None if row["mean"] is None else np.frombuffer(row["mean"], "<f4")
        if mean.is_stale(used):
            self._recentre(mean.mean, count)
        else:
            with self.file.write() as connection:
                connection.execute(
                    "UPDATE spaces SET mean_count = ? WHERE id = ?", (count, self.id)
                )

    def _estimate_mean(self, count: int) -> RunningMean:
        """The mean of a sample of the ``count`` latents, taken evenly."""
        rows = self.file.read(
            "SELECT chunk_id FROM latents WHERE space_id = ? AND id % ? = 0 ORDER BY id LIMIT ?",
            (self.id, max(1, count // _MEAN_SAMPLE), 2 * _MEAN_SAMPLE),
        )
        ids = [row[0] for row in rows]
        mean = RunningMean(self._dims)
        for start in range(0, len(ids), _MEAN_BATCH):
            mean.update(self._sound_vectors(ids[start : start + _MEAN_BATCH])[1])
        return mean

    def _recentre(self, mean: Floats, count: int) -> None:
        """Remake all sketches with another mean; other writers wait only while they are swapped."""
        sketcher = Sketcher(self._dims, self.sketch_bits, self._seed, mean)
        sketches: dict[int, Bits] = {}
        self._make_missing(sketches, sketcher)
        with self.file.write(alone=True) as connection:
            self._make_missing(sketches, sketcher)  # of latents that were added since
            self.file.dialect.sketches.remove(connection, self.id, list(sketches))
            rows = ((id, sketch.tobytes()) for id, sketch in sketches.items())
            self.file.dialect.sketches.add(connection, self.id, rows)
            connection.execute(
                "UPDATE spaces SET mean = ?, mean_count = ? WHERE id = ?",
                (mean.astype("<f4").tobytes(), count, self.id),
            )

    def _make_missing(self, sketches: dict[int, Bits], sketcher: Sketcher) -> None:
        """Add the missing sketches of undamaged latents, and drop those of forgotten chunks."""
        rows = self.file.read("SELECT chunk_id FROM latents WHERE space_id = ?", (self.id,))
        missing = [row[0] for row in rows if row[0] not in sketches]
        for start in range(0, len(missing), _SKETCH_BATCH):
            ids, latents = self._sound_vectors(missing[start : start + _SKETCH_BATCH])
            sketches.update(zip(ids, sketcher.sketch(latents), strict=True))
        for gone in sketches.keys() - {row[0] for row in rows}:
            del sketches[gone]


def _find_space(file: Database, fingerprint: str) -> Any:
    """The space of a model; of another one if it has none, and None if there is none at all."""
    spaces = file.read("SELECT * FROM spaces ORDER BY id")
    own = [space for space in spaces if space["fingerprint"] == fingerprint]
    return next(iter([*own, *spaces]), None)


def _other_model(file: Database, theirs: tuple[str, str], ours: tuple[str, str]) -> OtherModel:
    (their_name, their_model), (our_name, our_model) = theirs, ours
    return OtherModel(
        f"{file.path}: its latents were made by {their_name} (model {their_model[:12]}), not by "
        f"{our_name} (model {our_model[:12]}); open it with that model, or move it to this one "
        "with: clara-mlx recompress"
    )


def drop_all_latents(file: Database) -> None:
    """Drop all latents and sketches, and put every content into the backlog, for another model."""
    with file.write(alone=True) as connection:
        for (space_id,) in connection.execute("SELECT id FROM spaces").fetchall():
            file.dialect.sketches.drop(connection, space_id)
        connection.execute("DELETE FROM latents")
        connection.execute("DELETE FROM spaces")
        connection.execute("DELETE FROM pending")
        connection.execute("INSERT INTO pending (content_id) SELECT id FROM contents")
