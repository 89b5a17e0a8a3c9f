"""A space: the latents of one model fingerprint, their sketches, and the search over both."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from clara_mlx.errors import StoreError
from clara_mlx.store import sketch_table
from clara_mlx.store.codec import codec as make_codec
from clara_mlx.store.index import SketchIndex, rescore
from clara_mlx.store.sketch import LEAST_FOR_MEAN, RunningMean, Sketcher
from clara_mlx.store.store import Store

Array = np.ndarray[Any, Any]

_SKETCH_BITS, _SKETCH_SEED = 8192, 20251118

# The centring mean is looked at whenever the latents have doubled, from a sample of them.
_MEAN_SAMPLE = 256

# Blobs read and scored at a time by an exact search; sketches made anew at a time.
_SCAN = 256

# Rows read by one statement (SQLite's own limit is 32,766), and steps in which that varies.
_BATCH, _BATCH_STEP = 9_600, 32

_DAMAGED = "{}: the sketches are damaged; `clara-mlx verify --repair` makes them again"


class OtherModel(StoreError):
    """A file's latents are another model's; the two must never be mixed."""


class Space:
    """Latents (memory_tokens, hidden) of one model in one file.

    Spaces never mix: each has its own latents, sketches and mean, and only the file's current one
    is searched. Made by `open`.
    """

    def __init__(self, store: Store, row: Any) -> None:
        self.store = store
        self.id: int = row["id"]
        self.fingerprint: str = row["fingerprint"]
        self.shape: tuple[int, int] = (row["memory_tokens"], row["hidden"])
        self.codec = make_codec(row["codec"], *self.shape)
        self._bits: int = row["sketch_bits"]
        self._seed: int = row["sketch_seed"]
        self._lock = threading.Lock()
        # What was read of the file, as of `_epoch`; `_last` is the last latent in the index.
        self._epoch = -1
        self._last = 0
        self._sketcher = Sketcher(1)
        self._index = SketchIndex(8)

    @classmethod
    def open(
        cls, store: Store, fingerprint: str, memory_tokens: int, hidden: int, codec: str
    ) -> Space:
        """The space of a model, made if the file has no other model's.

        Raises:
            OtherModel: the file's latents are another model's.
        """
        make_codec(codec, memory_tokens, hidden)  # an unknown name fails before anything is written
        bits = Sketcher(memory_tokens * hidden, _SKETCH_BITS).bits
        with store.write() as connection:
            row = connection.execute("SELECT * FROM spaces").fetchone()
            if row is None:
                connection.execute(
                    "INSERT INTO spaces (fingerprint, memory_tokens, hidden, codec, "
                    "sketch_bits, sketch_seed) VALUES (?, ?, ?, ?, ?, ?)",
                    (fingerprint, memory_tokens, hidden, codec, bits, _SKETCH_SEED),
                )
                row = connection.execute("SELECT * FROM spaces").fetchone()
                sketch_table.create(connection, row["id"], bits)
        if row["fingerprint"] != fingerprint:
            raise OtherModel(
                f"{store.path}: its latents are those of model {row['fingerprint'][:12]}, not of "
                f"{fingerprint[:12]}; open it with that model, or move it to this one with: "
                "clara-mlx recompress"
            )
        return cls(store, row)

    # -- writing ---------------------------------------------------------------------------------

    def put(self, chunk_ids: Sequence[int], latents: Array, done: Sequence[int] = ()) -> None:
        """Keep latents (n, memory_tokens, hidden) of chunks; lift the marks of ``done`` contents.

        One transaction. Chunks that were forgotten meanwhile are left out.
        """
        blobs = self.codec.encode(latents)
        flat = latents.reshape(len(latents), -1)
        epoch, sketches = self._sketches(flat)
        crcs = [zlib.crc32(blob) for blob in blobs]
        with self.store.write() as connection:
            if self._read_epoch() != epoch:  # another process may have moved the mean
                _, sketches = self._sketches(flat)
            kept = []
            for chunk_id, crc, blob, sketch in zip(chunk_ids, crcs, blobs, sketches, strict=True):
                cursor = connection.execute(
                    "INSERT OR IGNORE INTO latents (space_id, chunk_id, crc, data) "
                    "SELECT ?, id, ?, ? FROM chunks WHERE id = ?",
                    (self.id, crc, blob, chunk_id),
                )
                if cursor.rowcount:
                    kept.append((chunk_id, sketch.tobytes()))
            sketch_table.add(connection, self.id, kept)
            connection.executemany(
                "DELETE FROM pending WHERE content_id = ?", [(id,) for id in done]
            )
        self._refresh_if_due()

    def _sketches(self, flat: Array) -> tuple[int, Array]:
        """Sketches (n, bits / 8) as of the file's mean, and the epoch they belong to."""
        with self._lock:
            self._sync_sketcher()
            return self._epoch, self._sketcher.sketch(flat)

    def finish(self, content_ids: Sequence[int]) -> None:
        """Lift the pending marks of contents that need nothing."""
        if content_ids:
            with self.store.write() as connection:
                connection.executemany(
                    "DELETE FROM pending WHERE content_id = ?", [(id,) for id in content_ids]
                )

    # -- reading ---------------------------------------------------------------------------------

    def count(self) -> int:
        """How many chunks have latents here."""
        (row,) = self.store.read("SELECT count(*) FROM latents WHERE space_id = ?", (self.id,))
        return int(row[0])

    def present(self, chunk_ids: Sequence[int]) -> set[int]:
        """Those of the chunks that have latents here."""
        return {row[0] for row in self._rows("chunk_id", chunk_ids)}

    def latents(self, chunk_ids: Sequence[int]) -> Array:
        """Latents (n, memory_tokens, hidden) float32 of chunks, in the order given.

        Raises:
            StoreError: a chunk has none, or its blob is damaged.
        """
        blobs = self._checked(chunk_ids)
        missing = [id for id in chunk_ids if id not in blobs]
        if missing:
            raise StoreError(f"{self.store.path}: chunks {missing} have no latents")
        return self.codec.decode([blobs[id] for id in chunk_ids])

    def _checked(self, chunk_ids: Sequence[int]) -> dict[int, bytes]:
        blobs = {}
        for row in self._rows("chunk_id, crc, data", chunk_ids):
            if zlib.crc32(row["data"]) != row["crc"]:
                raise StoreError(
                    f"{self.store.path}: the latents of chunk {row['chunk_id']} are damaged; "
                    "`clara-mlx verify --repair` compresses them again from the original"
                )
            blobs[row["chunk_id"]] = row["data"]
        return blobs

    def _rows(self, columns: str, chunk_ids: Sequence[int]) -> list[Any]:
        rows: list[Any] = []
        for start in range(0, len(chunk_ids), _BATCH):
            batch = list(chunk_ids[start : start + _BATCH])
            # Few different lengths, so that the statement is in SQLite's cache.
            batch += batch[-1:] * (-len(batch) % _BATCH_STEP)
            marks = ",".join("?" * len(batch))
            rows += self.store.read(
                f"SELECT {columns} FROM latents WHERE space_id = ? AND chunk_id IN ({marks})",
                [self.id, *batch],
            )
        return rows

    # -- searching -------------------------------------------------------------------------------

    def search(
        self,
        query: Array,
        k: int,
        allowed: Sequence[int] | None = None,
        *,
        sure: int | None = None,
        exact: bool = False,
    ) -> list[tuple[int, float]]:
        """Chunk ids and cosines of the k best chunks for a query (memory_tokens, hidden).

        Candidates come in the order of their sketches' Hamming distance and are scored exactly
        from their blobs, until no further one can be among the best (`index.rescore`).

        Args:
            query: an encoded question.
            k: how many; so many come back if so many are allowed.
            allowed: chunk ids that may be found; all without it.
            sure: how many of them the search is for; the others are what it scored for those.
            exact: score every allowed chunk instead.
        """
        with self._lock:
            self._sync_index()
            index = self._index
            mask = None if allowed is None else np.isin(index.ids, np.asarray(allowed, np.int64))
            if not exact:
                probe = self._sketcher.probe(query.reshape(-1).astype(np.float32))
                rotated = self.codec.rotated(probe.vectors.reshape(-1, *self.shape))
                ids, cosines = rescore(
                    index, probe, lambda some: self._scores(rotated, some), k, mask, sure=sure
                )
                return list(zip(ids.tolist(), cosines.tolist(), strict=True))
            candidates = index.ids if mask is None else index.ids[mask]
        rotated = self.codec.rotated(query)
        scores = np.concatenate(
            [np.empty(0, np.float32)]
            + [
                self._scores(rotated, candidates[i : i + _SCAN])[0]
                for i in range(0, len(candidates), _SCAN)
            ]
        )
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[scores[best] > -np.inf]
        return [(int(candidates[i]), float(scores[i])) for i in best]

    def _scores(self, rotated: Array, chunk_ids: Array) -> Array:
        """Cosines (queries, n) with `Codec.rotated` queries; -inf for chunks without latents."""
        place = {id: i for i, id in enumerate(chunk_ids.tolist())}
        rows = self._rows("chunk_id, data", list(place))
        scores = np.full((len(rotated), len(place)), -np.inf, np.float32)
        there = [place[row[0]] for row in rows]
        scores[:, there] = self.codec.scores_of(rotated, [row[1] for row in rows])
        return scores

    def centred(self, query: Array, chunk_ids: Sequence[int]) -> dict[int, float | None]:
        """Cosines less what all latents share, of those of the chunks that have latents.

        None for latents that are damaged. That is for the chunks that a search has found: it
        doesn't look itself, as checksums take longer than scoring.
        """
        rows = self._rows("chunk_id, crc, data", chunk_ids)
        found: dict[int, float | None] = {row[0]: None for row in rows}
        sound = [row for row in rows if zlib.crc32(row[2]) == row[1]]
        if sound:
            with self._lock:
                self._sync_sketcher()
                probe = self._sketcher.probe(query.reshape(-1).astype(np.float32))
            rotated = self.codec.rotated(probe.vectors.reshape(-1, *self.shape))
            cosines = probe.centred(self.codec.scores_of(rotated, [row[2] for row in sound]))
            found.update(zip((row[0] for row in sound), cosines.tolist(), strict=True))
        return found

    def _sync_sketcher(self) -> None:
        """Read the mean again if the file's sketches have changed."""
        if self._read_epoch() == self._epoch:
            return
        (row,) = self.store.read("SELECT epoch, mean FROM spaces WHERE id = ?", (self.id,))
        mean = None if row["mean"] is None else np.frombuffer(row["mean"], "<f4")
        self._sketcher = Sketcher(self.shape[0] * self.shape[1], self._bits, self._seed, mean)
        self._index, self._last = SketchIndex(self._bits), 0
        self._epoch = row["epoch"]

    def _read_epoch(self) -> int:
        (row,) = self.store.read("SELECT epoch FROM spaces WHERE id = ?", (self.id,))
        return int(row[0])

    def _sync_index(self) -> None:
        """Read the sketches that were added since the last search; all of them after a removal."""
        # Nearly always nothing has changed, and these two numbers are all that is read.
        state = "SELECT epoch, (SELECT coalesce(max(id), 0) FROM latents) FROM spaces WHERE id = ?"
        if tuple(self.store.read(state, (self.id,))[0]) == (self._epoch, self._last):
            return
        with self.store.snapshot() as connection:  # sketches of two epochs must not mix
            self._sync_sketcher()
            ((_, last),) = self.store.read(state, (self.id,))
            if self._last:
                # The + has SQLite go through the latents by their own ids.
                rows = self.store.read(
                    f"SELECT l.chunk_id, s.bits FROM latents l JOIN sketches_{self.id} s "
                    "ON s.rowid = l.chunk_id WHERE +l.space_id = ? AND l.id > ?",
                    (self.id, self._last),
                )
                if any(len(row[1]) != self._bits // 8 for row in rows):
                    raise StoreError(_DAMAGED.format(self.store.path))
                ids = np.array([row[0] for row in rows], np.int64)
                bits = np.frombuffer(b"".join(row[1] for row in rows), np.uint8)
                sketches = bits.reshape(len(ids), self._bits // 8)
            else:
                table = sketch_table.read_all(connection, self.id, self._bits)
                if table is None:
                    raise StoreError(_DAMAGED.format(self.store.path))
                ids, sketches = table
            self._index.extend(ids, sketches)
            self._last = last

    # -- centring --------------------------------------------------------------------------------

    def _refresh_if_due(self) -> None:
        """Make all sketches anew if the latents have doubled and their mean has moved."""
        (row,) = self.store.read(
            "SELECT mean_count, (SELECT coalesce(max(id), 0) FROM latents) AS most "
            "FROM spaces WHERE id = ?",
            (self.id,),
        )
        due = max(LEAST_FOR_MEAN, 2 * row["mean_count"])
        if row["most"] < due or (count := self.count()) < due:  # counting takes a while
            return
        (row,) = self.store.read("SELECT mean FROM spaces WHERE id = ?", (self.id,))
        mean = self._sample_mean(count)
        used = None if row["mean"] is None else np.frombuffer(row["mean"], "<f4")
        if mean.is_stale(used):
            self._sketch_anew(mean.mean, count)
        else:
            with self.store.write() as connection:
                connection.execute(
                    "UPDATE spaces SET mean_count = ? WHERE id = ?", (count, self.id)
                )

    def _sample_mean(self, count: int) -> RunningMean:
        ids = [
            row[0]
            for row in self.store.read(
                "SELECT chunk_id FROM latents WHERE space_id = ? AND id % ? = 0 "
                "ORDER BY id LIMIT ?",
                (self.id, max(1, count // _MEAN_SAMPLE), 2 * _MEAN_SAMPLE),
            )
        ]
        mean = RunningMean(self.shape[0] * self.shape[1])
        for start in range(0, len(ids), 64):
            mean.update(self._sound(ids[start : start + 64])[1])
        return mean

    def _sound(self, chunk_ids: Sequence[int]) -> tuple[list[int], Array]:
        """Flat latents (n, dims) of those of the chunks that have undamaged ones, and their ids."""
        rows = self._rows("chunk_id, crc, data", chunk_ids)
        blobs = {r["chunk_id"]: r["data"] for r in rows if zlib.crc32(r["data"]) == r["crc"]}
        if not blobs:
            return [], np.empty((0, self.shape[0] * self.shape[1]), np.float32)
        return list(blobs), self.codec.decode(list(blobs.values())).reshape(len(blobs), -1)

    def _sketch_anew(self, mean: Array, count: int) -> None:
        """Make all sketches with another mean; other writers wait for the exchange alone."""
        sketcher = Sketcher(len(mean), self._bits, self._seed, mean)
        made: dict[int, Array] = {}

        def make() -> None:
            """The sketches that are not made yet; none for damaged latents."""
            rows = self.store.read("SELECT chunk_id FROM latents WHERE space_id = ?", (self.id,))
            missing = [row[0] for row in rows if row[0] not in made]
            for start in range(0, len(missing), _SCAN):
                ids, latents = self._sound(missing[start : start + _SCAN])
                made.update(zip(ids, sketcher.sketch(latents), strict=True))
            for gone in made.keys() - {row[0] for row in rows}:
                del made[gone]

        make()
        with self.store.write() as connection:
            make()  # those that came meanwhile
            sketch_table.remove(connection, self.id, list(made))
            sketches = ((id, sketch.tobytes()) for id, sketch in made.items())
            sketch_table.add(connection, self.id, sketches)
            connection.execute(
                "UPDATE spaces SET mean = ?, mean_count = ? WHERE id = ?",
                (mean.astype("<f4").tobytes(), count, self.id),
            )
