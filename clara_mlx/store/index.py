"""The sketches of all documents in memory, and the search that scores as few of them as it can.

`rescore` finds the k best by exact score: it scores the nearest sketches first, and stops where no
other is near enough to belong to them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from clara_mlx.errors import ClaraError
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.sketch import Bits, Probe

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]

# More than any distance: not computed yet, or not allowed.
_FAR = 0xFFFF

# Words of a sketch that are compared first, and how sure a row must be out to be passed over.
_HEAD_WORDS = 32
_HEAD_DEVIATIONS = 4.0

# Rows looked at whole to guess how far the k nearest go.
_LEAST_LOOK = 256

# Rows compared at a time, in their first words and in the others: the best of 128 to 8192.
_HEAD_BLOCK = 4096
_TAIL_BLOCK = 512

# Documents scored at a time: the first time, and at most.
_FIRST_BATCH = 32
_LARGEST_BATCH = 256


class SketchIndex:
    """Sketches in memory, with the ids of what they stand for.

    A search compares the first bits of all sketches, then all bits of those that could still be
    near. Callers keep changes and searches apart with a lock.
    """

    def __init__(self, bits: int) -> None:
        if bits < 8 or bits % 8 or bits >= _FAR:
            raise ClaraError(f"no index of sketches of {bits} bits")
        self.bits = bits
        words = -(-bits // 64)
        self._count = 0
        self._ids = np.empty(0, np.int64)
        # The first words of the sketches word by word, so that sums over words run along memory;
        # the other words sketch by sketch, as they are read for a few sketches only.
        self._head = np.empty((min(words, _HEAD_WORDS), 0), np.uint64)
        self._tail = np.empty((0, words - len(self._head)), np.uint64)

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """The ids (n,) int64, in the order that ``allowed`` is in."""
        return self._ids[: self._count]

    def extend(self, ids: npt.NDArray[np.int64], sketches: Bits) -> None:
        """Add ids (n,) that are new, with their sketches (n, bits / 8)."""
        words = self._words(sketches)
        if len(ids) != len(words):
            raise ClaraError(f"{len(ids)} ids for {len(words)} sketches")
        start, end = self._count, self._count + len(ids)
        if end > len(self._ids):
            self._grow(max(end, start * 5 // 4))
        self._ids[start:end] = ids
        self._head[:, start:end] = words[:, : len(self._head)].T
        self._tail[start:end] = words[:, len(self._head) :]
        self._count = end

    def _grow(self, capacity: int) -> None:
        n, ids, head, tail = self._count, self._ids, self._head, self._tail
        self._ids = np.empty(capacity, ids.dtype)
        self._head = np.empty((len(head), capacity), head.dtype)
        self._tail = np.empty((capacity, tail.shape[1]), tail.dtype)
        self._ids[:n], self._head[:, :n], self._tail[:n] = ids[:n], head[:, :n], tail[:n]

    def remove(self, ids: npt.NDArray[np.int64]) -> None:
        """Drop those of the ids that are here; the order of the others changes."""
        gone = np.isin(self.ids, ids)
        left = self._count - int(gone.sum())
        gaps = np.flatnonzero(gone[:left])
        movers = left + np.flatnonzero(~gone[left:])  # the last ones, as many as there are gaps
        self._ids[gaps] = self._ids[movers]
        self._head[:, gaps] = self._head[:, movers]
        self._tail[gaps] = self._tail[movers]
        self._count = left

    def nearest(
        self, sketch: Bits, k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and Hamming distances of the k nearest, the nearest first.

        Ties are in the order of `ids`. ``allowed`` (n,) says which of `ids` may be found: k of them
        are, if there are as many. What may be lost is stated at `Scan.within`.
        """
        scan = Scan(self, sketch, allowed)
        rows = scan.nearest(k)
        return self.ids[rows], scan.distances[rows].astype(np.int64)

    def _words(self, sketches: Bits) -> npt.NDArray[np.uint64]:
        """(n, bits / 8) uint8 -> (n, words) uint64, padded with zeros."""
        if sketches.shape[1:] != (self.bits // 8,):
            raise ClaraError(f"sketches have the shape {sketches.shape}, not (n, {self.bits // 8})")
        padding = -sketches.shape[1] % 8
        return np.ascontiguousarray(np.pad(sketches, ((0, 0), (0, padding)))).view(np.uint64)


class Scan:
    """The Hamming distances of one query to an index, computed as far as they are needed.

    Rows are positions in the index's ``ids``; the index must not change meanwhile.

    Attributes:
        distances: (n,) uint16, of the rows that `nearest` or `within` returned.
    """

    def __init__(
        self, index: SketchIndex, sketch: Bits, allowed: npt.NDArray[np.bool_] | None = None
    ) -> None:
        self._index = index
        self._query = index._words(sketch[None])[0]
        n = len(index)
        self._head_bits = min(index.bits, 64 * len(index._head))
        self._head = self._head_distances(n)
        self._allowed = n
        if allowed is not None:
            if allowed.shape != (n,):
                raise ClaraError(f"allowed has the shape {allowed.shape}, not ({n},)")
            self._head[~allowed] = _FAR
            self._allowed = int(allowed.sum())
        is_all = self._head_bits == index.bits
        self.distances = self._head if is_all else np.full(n, _FAR, np.uint16)

    def _head_distances(self, n: int) -> npt.NDArray[np.uint16]:
        head = self._index._head
        query = self._query[: len(head), None]
        distances = np.empty(n, np.uint16)
        differing = np.empty((len(head), _HEAD_BLOCK), np.uint64)
        counts = np.empty((len(head), _HEAD_BLOCK), np.uint8)
        for start in range(0, n, _HEAD_BLOCK):
            end = min(start + _HEAD_BLOCK, n)
            x, c = differing[:, : end - start], counts[:, : end - start]
            np.bitwise_xor(head[:, start:end], query, out=x)
            np.bitwise_count(x, out=c)
            np.add.reduce(c, axis=0, dtype=np.uint16, out=distances[start:end])
        return distances

    def nearest(self, k: int) -> Rows:
        """The k nearest rows, or all that are allowed, the nearest first."""
        k = min(k, self._allowed)
        if k < 1:
            return np.empty(0, np.intp)
        # The k nearest of a few that look near are no nearer than the k nearest of all.
        few = min(self._allowed, max(4 * k, _LEAST_LOOK))
        rows = np.argpartition(self._head, few - 1)[:few]
        self._complete(rows)
        radius = np.partition(self.distances[rows], k - 1)[k - 1]
        return self.within(float(radius))[:k]

    def within(self, radius: float) -> Rows:
        """The allowed rows at most that far away, the nearest first.

        The bits' order is random, so the first ones are a sample: a row is passed over if its
        distance in them is `_HEAD_DEVIATIONS` standard deviations (of the hypergeometric
        distribution) above its share of ``radius``. At 4, that befalls at most 1 in 30,000 rows
        that lie just within the radius, and fewer of the nearer ones. Sketches of up to 2,048 bits
        are compared whole.
        """
        head_bits, bits = self._head_bits, self._index.bits
        share = min(radius / bits, 1.0)
        deviation = 0.0
        if head_bits < bits:
            p = min(share, 0.5)
            deviation = np.sqrt(head_bits * p * (1 - p) * (bits - head_bits) / (bits - 1))
        bound = min(head_bits * share + _HEAD_DEVIATIONS * deviation, head_bits)
        rows = np.flatnonzero(self._head <= bound)
        self._complete(rows)
        distances = self.distances[rows]
        if (distances > radius).any():
            rows, distances = rows[distances <= radius], distances[distances <= radius]
        return rows[np.argsort(distances, kind="stable")]

    def _complete(self, rows: Rows) -> None:
        """Compute the distances of rows that don't have them."""
        if self.distances is self._head:
            return
        rows = rows[self.distances[rows] == _FAR]
        tail, query = self._index._tail, self._query[len(self._index._head) :]
        for start in range(0, len(rows), _TAIL_BLOCK):
            block = rows[start : start + _TAIL_BLOCK]
            differing = tail.take(block, axis=0)
            differing ^= query
            counts = np.bitwise_count(differing).sum(axis=1, dtype=np.uint16)
            self.distances[block] = self._head[block] + counts


def rescore(
    index: SketchIndex,
    probe: Probe,
    score: Callable[[Ids], Floats],
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    deviations: float = 2.0,
    most: int | None = None,
) -> tuple[Ids, Floats]:
    """Ids and exact cosines (float32) of the k best documents, the best first.

    Scores in order of Hamming distance. Once k are known, the worst of them by centred cosine says
    how far the sketches of better ones can be: `Probe.distance`. It stops when all sketches within
    that distance are scored. Easy queries end after one batch, hard ones need many.

    Args:
        index: the sketches.
        probe: the query, from the same `Sketcher` as they.
        score: takes ids (n,) and returns their cosines with `Probe.vectors`, (len(vectors), n), in
            the same order; -inf in the first row for one that isn't there any more.
        k: how many to find; so many come back if so many are allowed.
        allowed: (len(index),) which of ``index.ids`` may be found.
        deviations: how sure to be. A document as good as the worst of the k best is missed with the
            probability that a normal variable exceeds it: 2.3% at 2, better ones less often. More
            of them cost time and matter for weak queries only (bench/retrieval.py).
        most: documents to score at most, whatever is missed then; k at least.
    """
    k = max(k, 0)
    scan = Scan(index, probe.sketch, allowed)
    rows = scan.nearest(max(k, _FIRST_BATCH))
    is_scored = np.zeros(len(index), bool)
    best, cosines = np.empty(0, np.intp), np.empty((len(probe.vectors), 0), np.float32)
    batch, left = max(k, _FIRST_BATCH), len(index) if most is None else max(most, k)
    while k and len(rows) and left > 0:
        rows = rows[: min(batch, left)]
        new = score(index.ids[rows])
        is_scored[rows] = True
        left -= len(rows)
        batch = min(2 * batch, _LARGEST_BATCH)
        best, cosines = np.concatenate([best, rows]), np.concatenate([cosines, new], axis=1)
        # The best first; ties in the order of distance, as they came.
        order = np.argsort(-cosines[0], kind="stable")[:k]
        order = order[cosines[0, order] > -np.inf]
        best, cosines = best[order], cosines[:, order]
        radius = float(index.bits)
        if len(best) == k:
            radius = probe.distance(float(probe.centred(cosines).min()), deviations)
        rows = scan.within(radius)
        rows = rows[~is_scored[rows]]
    return index.ids[best], cosines[0]
