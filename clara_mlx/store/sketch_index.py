"""The sketches of all documents in memory, and the choice of the few that are scored exactly.

`NearestFirst` finds the k best by exact score: it has the documents with the nearest sketches
scored first, and stops when the others are too far away to belong to the best, in all probability.
"""

from __future__ import annotations

import itertools
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clara_mlx.errors import ClaraError
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.sketch import Bits, SketchedQuery

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]  # positions in `SketchIndex.ids`
Words = npt.NDArray[np.uint64]  # sketches, 64 bits at a time
Distances = npt.NDArray[np.uint16]  # in bits
Mask = npt.NDArray[np.bool_]

# A distance that is not computed yet, or of a row that is not allowed: more than any real one.
_FAR = 0xFFFF

# Words of a sketch compared in the first step, for all rows, and in the second, for those that are
# still near; a third step compares the rest of the words.
_STEPS = (32, 32)

# A row is passed over after a step if it is too far away by this many standard deviations.
_STEP_DEVIATIONS = 4.0

# Standard deviations beyond the expected distance of an equally good document at which a search
# stops. At 2, a document as good as the worst of the k best is missed with a probability of 2.3%,
# better ones less often. A higher value costs time and matters for weak queries only
# (bench/retrieval.py).
_STOP_DEVIATIONS = 2.0

# The fewest rows that are compared with all their bits to find a few near ones.
_LEAST_COMPARED = 256

# Rows compared at a time in the first step: the fastest of 128 to 8192.
_FIRST_STEP_BLOCK = 4096

# Rows compared at a time in the other steps: the fastest of 128 to 8192.
_LATER_STEP_BLOCK = 512

# Documents scored in the first batch; each later batch is twice as large.
_FIRST_BATCH = 24

# The most documents scored in one batch.
_LARGEST_BATCH = 256


class SketchIndex:
    """Sketches in memory, with the ids of their documents, laid out to be compared in steps.

    The first step compares the first bits of all sketches, the later ones more bits of those that
    could still be near. Callers keep changes and searches apart with a lock.

    Attributes:
        bits: Length of a sketch.
        step_bits: For each step, the number of bits that are compared when it is done.
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
        self.step_bits = [min(bits, 64 * end) for end in self._ends]
        self._head = np.empty((self._ends[0], 0), np.uint64)
        self._rest = [np.empty((0, b - a), np.uint64) for a, b in itertools.pairwise(self._ends)]

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Ids:
        """The ids (n,) of the documents, in the order of all rows and masks."""
        return self._ids[: self._count]

    def extend(self, ids: Ids, sketches: Bits) -> None:
        """Add ids (n,) that are new, with their sketches (n, bits / 8)."""
        words = self.as_words(sketches)
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

    def as_words(self, sketches: Bits) -> Words:
        """Sketches (n, bits / 8) as words (n, words), padded with zeros."""
        if sketches.shape[1:] != (self.bits // 8,):
            raise ClaraError(f"sketches have the shape {sketches.shape}, not (n, {self.bits // 8})")
        padding = -sketches.shape[1] % 8
        return np.ascontiguousarray(np.pad(sketches, ((0, 0), (0, padding)))).view(np.uint64)

    def first_distances(self, query: Words) -> Distances:
        """Hamming distances (n,) of all sketches to a query (words,), in the words of step 0."""
        words = query[: len(self._head), None]
        distances = np.empty(self._count, np.uint16)
        differing = np.empty((len(self._head), _FIRST_STEP_BLOCK), np.uint64)
        counts = np.empty((len(self._head), _FIRST_STEP_BLOCK), np.uint8)
        for start in range(0, self._count, _FIRST_STEP_BLOCK):
            end = min(start + _FIRST_STEP_BLOCK, self._count)
            bits = differing[:, : end - start]
            ones = counts[:, : end - start]
            np.bitwise_xor(self._head[:, start:end], words, out=bits)
            np.bitwise_count(bits, out=ones)
            np.add.reduce(ones, axis=0, dtype=np.uint16, out=distances[start:end])
        return distances

    def add_distances(
        self, step: int, query: Words, rows: Rows, before: Distances, after: Distances
    ) -> None:
        """Set the distances of rows after a later step, from those before it."""
        words = self._rest[step - 1]
        part = query[self._ends[step - 1] : self._ends[step]]
        for start in range(0, len(rows), _LATER_STEP_BLOCK):
            block = rows[start : start + _LATER_STEP_BLOCK]
            differing = words.take(block, axis=0)
            differing ^= part
            after[block] = before[block] + np.bitwise_count(differing).sum(axis=1, dtype=np.uint16)


class Scan:
    """The Hamming distances of one query to an index, computed as far as they are needed.

    The index must not change in the meantime.

    Attributes:
        bits: Length of a sketch.
        distances: (n,) uint16, valid for the rows that a method has returned.
    """

    def __init__(self, index: SketchIndex, sketch: Bits, allowed: Mask | None = None) -> None:
        self._index = index
        self.bits = index.bits
        self._query = index.as_words(sketch[None])[0]
        n = len(index)
        first = index.first_distances(self._query)
        self._allowed = n
        if allowed is not None:
            if allowed.shape != (n,):
                raise ClaraError(f"allowed has the shape {allowed.shape}, not ({n},)")
            first[~allowed] = _FAR
            self._allowed = int(allowed.sum())
        # The distances after each step, in the words up to there.
        self._after = [first, *(np.full(n, _FAR, np.uint16) for _ in index.step_bits[1:])]
        self.distances = self._after[-1]

    @property
    def ids(self) -> Ids:
        """The documents (n,) of all rows, those of the index."""
        return self._index.ids

    def near(self, k: int) -> Rows:
        """k near rows, the nearest first; fewer only if fewer are allowed.

        They are the best of those whose first words are nearest, not the k nearest of all.
        """
        k = min(k, self._allowed)
        if k < 1:
            return np.empty(0, np.intp)
        compared = min(self._allowed, max(4 * k, _LEAST_COMPARED))
        radius = np.searchsorted(np.cumsum(np.bincount(self._after[0])), compared)
        rows = np.flatnonzero(self._after[0] <= radius)
        for step in range(1, len(self._after)):
            self._compare(step, rows)
        return self._sorted(rows)[:k]

    def within(self, radius: float) -> Rows:
        """The allowed rows that are at most ``radius`` away, the nearest first.

        The bits' order is random, so the first ones are a sample: a row is passed over if its
        distance in them is `_STEP_DEVIATIONS` standard deviations (of the hypergeometric
        distribution) above its share of ``radius``. At 4, a step does that to at most 1 in 30,000
        rows that lie just within the radius, and to fewer of the nearer ones. Of sketches of 8,192
        bits, the first 2,048 and the first 4,096 are such samples; up to 2,048 bits are compared
        at once.
        """
        rows = np.flatnonzero(self._after[0] <= self._bound(0, radius))
        for step in range(1, len(self._after)):
            self._compare(step, rows)
            rows = rows[self._after[step][rows] <= self._bound(step, radius)]
        return self._sorted(rows)

    def _bound(self, step: int, radius: float) -> float:
        """The distance after a step that a row within the radius hardly exceeds."""
        bits = self._index.bits
        share = min(radius / bits, 1.0)
        seen = self._index.step_bits[step]
        p = min(share, 0.5)
        deviation = np.sqrt(seen * p * (1 - p) * (bits - seen) / (bits - 1))
        return min(seen * share + _STEP_DEVIATIONS * float(deviation), seen)

    def _compare(self, step: int, rows: Rows) -> None:
        """Compute the distances of rows after a step, where that is not done yet."""
        before, after = self._after[step - 1], self._after[step]
        rows = rows[after[rows] == _FAR]
        self._index.add_distances(step, self._query, rows, before, after)

    def _sorted(self, rows: Rows) -> Rows:
        return rows[np.argsort(self.distances[rows], kind="stable")]


class Nearest(Protocol):
    """The documents near one query by their sketches, wherever those are.

    Attributes:
        bits: Length of a sketch.
    """

    bits: int

    @property
    def ids(self) -> Ids:
        """The documents (n,) in the order of all rows; there may be more after each call."""

    def near(self, k: int) -> Rows:
        """k near rows, the nearest first; fewer only if fewer are allowed."""

    def within(self, radius: float) -> Rows:
        """The rows that are at most ``radius`` away, the nearest first."""


class NearestFirst:
    """Finds the k best documents by exact cosine, and has few of them scored.

    It has a few near documents scored, then others in the order of their distance. Once k are
    known, the worst of them by centred cosine says how far away the sketches of better ones can be
    (`SketchedQuery.distance`); the search ends when all sketches within that distance are scored.
    Easy queries end after one batch, hard ones need many. Use it like this:

        while len(ids := search.next_ids()):
            search.add_scores(cosines_with(query.vectors, ids))
        ids, cosines = search.best()

    Args:
        scan: The documents near the query.
        query: The query, from the same `Sketcher` as their sketches.
        k: Number of documents to find; fewer only if fewer are allowed.
        sure: Guarantee only this many of the k; the others are the best of what was scored for
            those. All k are guaranteed without it.
    """

    def __init__(
        self, scan: Nearest, query: SketchedQuery, k: int, *, sure: int | None = None
    ) -> None:
        self._scan = scan
        self._query = query
        self._k = max(k, 0)
        self._sure = sure
        self._batch = max(self._k, _FIRST_BATCH)
        # Near rows that are not scored yet, and those of them that are being scored now.
        self._candidates = scan.near(self._batch) if self._k else np.empty(0, np.intp)
        self._scoring = np.empty(0, np.intp)
        self._is_scored = np.zeros(len(scan.ids), bool)
        # The best rows so far, the best first, and their cosines with the query's vectors.
        self._best = np.empty(0, np.intp)
        self._cosines: Floats = np.empty((len(query.vectors), 0), np.float32)

    def next_ids(self) -> Ids:
        """The documents (n,) to score next; none when the best are known."""
        self._scoring = self._candidates[: self._batch]
        self._batch = min(2 * self._batch, _LARGEST_BATCH)
        return self._scan.ids[self._scoring]

    def add_scores(self, cosines: Floats) -> None:
        """Take in the cosines of the documents that `next_ids` gave.

        Args:
            cosines: Those with the query's vectors, (len(vectors), n), in the order of the ids;
                -inf in the first row for a document that has been removed since.
        """
        self._is_scored[self._scoring] = True
        best = np.concatenate([self._best, self._scoring])
        cosines = np.concatenate([self._cosines, cosines], axis=1)
        # The best first; ties stay in the order of distance.
        order = np.argsort(-cosines[0], kind="stable")[: self._k]
        order = order[cosines[0, order] > -np.inf]
        self._best, self._cosines = best[order], cosines[:, order]
        radius = float(self._scan.bits)
        if len(self._best) == self._k:
            worst = float(self._query.centred(self._cosines[:, : self._sure]).min())
            radius = self._query.distance(worst, _STOP_DEVIATIONS)
        rows = self._scan.within(radius)
        added = len(self._scan.ids) - len(self._is_scored)
        self._is_scored = np.pad(self._is_scored, (0, added))
        self._candidates = rows[~self._is_scored[rows]]

    def best(self) -> tuple[Ids, Floats]:
        """Ids and exact cosines (float32) of the best documents, the best first."""
        return self._scan.ids[self._best], self._cosines[0]
