"""The sketches of all documents in memory, and the search that scores as few of them as it can.

`rescore` finds the k best by exact score: it scores the nearest sketches first, and stops where no
other is near enough to belong to them.
"""

from __future__ import annotations

import itertools
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

# Words of a sketch that are compared first; next, with the rows that are still near; the others
# last. How sure a row must be out to be passed over after one step.
_STEPS = (32, 32)
_DEVIATIONS = 4.0

# Rows looked at whole to find a few near ones.
_LEAST_LOOK = 256

# Rows compared at a time, in the first step and in the others: the best of 128 to 8192.
_HEAD_BLOCK = 4096
_REST_BLOCK = 512

# Documents scored at a time: the first time, and at most.
_FIRST_BATCH = 24
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
        # Ends of the steps in words. The words of the first step are kept word by word, so that
        # sums over words run along memory; the others sketch by sketch, as few are read.
        ends = [end for end in np.cumsum(_STEPS).tolist() if end < words]
        self._ends = [*ends, words]
        self._head = np.empty((self._ends[0], 0), np.uint64)
        self._rest = [np.empty((0, b - a), np.uint64) for a, b in itertools.pairwise(self._ends)]

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
        head, *rest = np.split(words, self._ends[:-1], axis=1)
        self._head[:, start:end] = head.T
        for kept, new in zip(self._rest, rest, strict=True):
            kept[start:end] = new
        self._count = end

    def _grow(self, capacity: int) -> None:
        n = self._count
        self._ids = np.pad(self._ids[:n], (0, capacity - n))
        self._head = np.pad(self._head[:, :n], ((0, 0), (0, capacity - n)))
        self._rest = [np.pad(words[:n], ((0, capacity - n), (0, 0))) for words in self._rest]

    def remove(self, ids: npt.NDArray[np.int64]) -> None:
        """Drop those of the ids that are here; the order of the others changes."""
        gone = np.isin(self.ids, ids)
        left = self._count - int(gone.sum())
        gaps = np.flatnonzero(gone[:left])
        movers = left + np.flatnonzero(~gone[left:])  # the last ones, as many as there are gaps
        self._ids[gaps] = self._ids[movers]
        self._head[:, gaps] = self._head[:, movers]
        for words in self._rest:
            words[gaps] = words[movers]
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
        distances: (n,) uint16, of the rows that a method returned.
    """

    def __init__(
        self, index: SketchIndex, sketch: Bits, allowed: npt.NDArray[np.bool_] | None = None
    ) -> None:
        self._index = index
        self._query = index._words(sketch[None])[0]
        n = len(index)
        head = self._head_distances(n)
        self._allowed = n
        if allowed is not None:
            if allowed.shape != (n,):
                raise ClaraError(f"allowed has the shape {allowed.shape}, not ({n},)")
            head[~allowed] = _FAR
            self._allowed = int(allowed.sum())
        # The distances after each step, in the words up to there.
        self._sums = [head, *(np.full(n, _FAR, np.uint16) for _ in index._rest)]
        self.distances = self._sums[-1]

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
        near = self.near(k)
        if not len(near):
            return near
        # The k nearest of all are no further away than these.
        return self.within(float(self.distances[near[-1]]))[:k]

    def near(self, k: int) -> Rows:
        """k near rows, or all that are allowed, the nearest first: the best of those whose first
        words are nearest."""
        k = min(k, self._allowed)
        if k < 1:
            return np.empty(0, np.intp)
        few = min(self._allowed, max(4 * k, _LEAST_LOOK))
        head = self._sums[0]
        radius = np.searchsorted(np.cumsum(np.bincount(head)), few)
        rows = np.flatnonzero(head <= radius)
        for step in range(1, len(self._sums)):
            self._compare(step, rows)
        return self._sorted(rows)[:k]

    def within(self, radius: float) -> Rows:
        """The allowed rows at most that far away, the nearest first.

        The bits' order is random, so the first ones are a sample: a row is passed over if its
        distance in them is `_DEVIATIONS` standard deviations (of the hypergeometric distribution)
        above its share of ``radius``. At 4, a step does that to at most 1 in 30,000 rows that lie
        just within the radius, and to fewer of the nearer ones. Of sketches of 8,192 bits, the
        first 2,048 and the first 4,096 are such samples; up to 2,048 bits are compared at once.
        """
        rows = np.flatnonzero(self._sums[0] <= self._bound(0, radius))
        for step in range(1, len(self._sums)):
            self._compare(step, rows)
            rows = rows[self._sums[step][rows] <= self._bound(step, radius)]
        return self._sorted(rows)

    def _bound(self, step: int, radius: float) -> float:
        """How far away, in the words up to a step, a row within the radius can be."""
        bits = self._index.bits
        share = min(radius / bits, 1.0)
        seen = min(bits, 64 * self._index._ends[step])
        p = min(share, 0.5)
        deviation = np.sqrt(seen * p * (1 - p) * (bits - seen) / (bits - 1))
        return min(seen * share + _DEVIATIONS * float(deviation), seen)

    def _compare(self, step: int, rows: Rows) -> None:
        """Take the words of a step into the distances of rows, where that is not done yet."""
        sums, before = self._sums[step], self._sums[step - 1]
        rows = rows[sums[rows] == _FAR]
        words = self._index._rest[step - 1]
        start, end = self._index._ends[step - 1 : step + 1]
        query = self._query[start:end]
        for first in range(0, len(rows), _REST_BLOCK):
            block = rows[first : first + _REST_BLOCK]
            differing = words.take(block, axis=0)
            differing ^= query
            sums[block] = before[block] + np.bitwise_count(differing).sum(axis=1, dtype=np.uint16)

    def _sorted(self, rows: Rows) -> Rows:
        return rows[np.argsort(self.distances[rows], kind="stable")]


def rescore(
    index: SketchIndex,
    probe: Probe,
    score: Callable[[Ids], Floats],
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    sure: int | None = None,
    deviations: float = 2.0,
    most: int | None = None,
) -> tuple[Ids, Floats]:
    """Ids and exact cosines (float32) of the k best documents, the best first.

    Scores some near ones, then all in order of Hamming distance. Once k are known, the worst of
    them by centred cosine says how far the sketches of better ones can be: `Probe.distance`. It
    stops when all sketches within that distance are scored. Easy queries end after one batch, hard
    ones need many.

    Args:
        index: the sketches.
        probe: the query, from the same `Sketcher` as they.
        score: takes ids (n,) and returns their cosines with `Probe.vectors`, (len(vectors), n), in
            the same order; -inf in the first row for one that isn't there any more.
        k: how many to find; so many come back if so many are allowed.
        allowed: (len(index),) which of ``index.ids`` may be found.
        sure: how many of the k it is about, the best ones; all without it. The others are the best
            of what was scored for them.
        deviations: how sure to be. A document as good as the worst of the k best is missed with the
            probability that a normal variable exceeds it: 2.3% at 2, better ones less often. More
            of them cost time and matter for weak queries only (bench/retrieval.py).
        most: documents to score at most, whatever is missed then; k at least.
    """
    k = max(k, 0)
    scan = Scan(index, probe.sketch, allowed)
    rows = scan.near(max(k, _FIRST_BATCH))
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
            worst = float(probe.centred(cosines[:, :sure]).min())
            radius = probe.distance(worst, deviations)
        rows = scan.within(radius)
        rows = rows[~is_scored[rows]]
    return index.ids[best], cosines[0]
