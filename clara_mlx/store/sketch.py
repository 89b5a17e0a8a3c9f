"""Sketches: a kilobyte of sign bits for each vector, whose Hamming distance estimates the angle.

A vector is scaled to length one, centred, rotated at random (`hadamard`), and the signs of some of
its coordinates are kept. Two vectors at an angle of p half turns then differ in a share p of their
bits, give or take sqrt(p (1 - p) / bits). Centring matters because latents share a large common
part, which leaves all angles nearly the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clara_mlx.errors import ClaraError
from clara_mlx.store import hadamard
from clara_mlx.store.hadamard import Floats

Bits = npt.NDArray[np.uint8]

#: Vectors that a first mean needs, see `RunningMean.is_stale`.
LEAST_FOR_MEAN = 64

# How far a mean may be off, as a share of the scatter around it. Off by this much, all centred
# cosines grow by about as much; 64 unrelated vectors give a mean that is off by 0.016.
_TOLERATED_DRIFT = 0.05

# Values sketched at a time: bounds the rotated copies.
_BATCH_VALUES = 1 << 20


class RunningMean:
    """The mean of unit vectors (dims,) float32, updated as they come.

    Args:
        dims: length of a vector.
        mean, count: the state to go on from, as stored earlier.
    """

    def __init__(self, dims: int, mean: Floats | None = None, count: int = 0) -> None:
        self.mean = np.zeros(dims, np.float32) if mean is None else mean.astype(np.float32)
        self.count = count

    def update(self, vectors: Floats) -> None:
        """Take in vectors (n, dims), of any length but zero."""
        if len(vectors):
            total = _inverse_lengths(vectors) @ vectors
            self.count += len(vectors)
            self.mean += (total - len(vectors) * self.mean) / np.float32(self.count)

    def is_stale(self, used: Floats | None) -> bool:
        """Whether the sketches, made with the mean ``used``, should be made anew with this one.

        Making all sketches anew reads all latents, so ask when the count has doubled since the
        last time: the work then stays in proportion to that of adding them.
        """
        if self.count < LEAST_FOR_MEAN:
            return False
        if used is None:
            return True
        scatter = 1 - float(self.mean @ self.mean)  # mean squared distance of unit vectors from it
        drift = self.mean - used
        return float(drift @ drift) > _TOLERATED_DRIFT * scatter


class Probe:
    """A query as a search needs it; made by `Sketcher.probe`.

    Attributes:
        sketch: the query's sketch (bits / 8,) uint8.
        bits: how many bits that is.
        vectors: (1, 2 or 3, dims) float32, the query and the means that were subtracted; exact
            scoring needs cosines with all of them.
    """

    def __init__(self, sketch: Bits, bits: int, vectors: Floats) -> None:
        self.sketch, self.bits, self.vectors = sketch, bits, vectors
        # No BLAS: it has several threads for long vectors, and they are slow on a busy machine.
        self._dots = np.einsum("id,jd->ij", vectors, vectors)

    def centred(self, cosines: Floats) -> Floats:
        """Cosines (n,) of the centred query and documents, whose angles the sketches estimate.

        ``cosines`` (len(vectors), n) are those of the documents with `vectors`.
        """
        if len(self.vectors) == 1:
            return cosines[0]
        # With unit vectors q and d of query and document and the means m and w of documents and
        # queries: (q - w) . (d - m) and the two lengths. Without a w of its own, w is m.
        dots, q, m, w = self._dots, 0, 1, -1
        scale = 1 / (np.sqrt(dots[q, q]) or 1.0)
        d_m = cosines[m] * np.sqrt(dots[m, m])
        d_w = cosines[w] * np.sqrt(dots[w, w])
        product = cosines[q] - scale * dots[q, m] - d_w + dots[w, m]
        query = (scale**2 * dots[q, q]) - 2 * scale * dots[q, w] + dots[w, w]
        document = 1 - 2 * d_m + dots[m, m]
        lengths = np.sqrt(np.maximum(query, 1e-12) * np.maximum(document, 1e-12))
        centred: Floats = np.clip(product / lengths, -1, 1)
        return centred

    def distance(self, cosine: float, deviations: float) -> float:
        """The Hamming distance that documents with that centred cosine, or more, stay below.

        All but the share of a normal distribution that lies so many standard deviations out.
        """
        p = float(np.arccos(np.clip(cosine, -1, 1))) / np.pi
        return float(self.bits * p + deviations * np.sqrt(self.bits * p * (1 - p)))


class Sketcher:
    """Vectors (n, dims) float32 -> sketches (n, bits / 8) uint8, as sqlite-vec's ``vec_bit`` takes.

    Equal arguments give equal sketches on every machine, but for bits whose value rounds to zero.

    Args:
        dims: length of a vector; the flattened latents' (memory_tokens * hidden).
        bits: length of a sketch, a multiple of 8; fewer if the vectors have fewer dimensions.
        seed: of the rotation.
        mean: of the unit vectors (`RunningMean`); subtracted from both sides, because centring only
            one is worse than neither.
        query_mean: subtracted from queries instead, where theirs is known to differ.
    """

    def __init__(
        self,
        dims: int,
        bits: int = 8192,
        seed: int = 0,
        mean: Floats | None = None,
        query_mean: Floats | None = None,
    ) -> None:
        if dims < 1 or bits < 8 or bits % 8:
            raise ClaraError(f"no sketches of {bits} bits for {dims} dimensions")
        if mean is None and query_mean is not None:
            raise ClaraError("queries are centred only together with the vectors they search")
        for each in (mean, query_mean):
            if each is not None and each.shape != (dims,):
                raise ClaraError(f"a mean has the shape {each.shape}, not ({dims},)")
        self.dims = dims
        self._padded = max(8, hadamard.power_of_two(dims))
        self.bits = min(bits, self._padded)
        self._signs = hadamard.signs(dims, seed)
        keys = hadamard.random_bytes(8 * self._padded, f"coordinates {seed}").view("<u8")
        # In random order, so that the first bits are a fair sample of all: see `SketchIndex`.
        self._coordinates = np.argsort(keys, kind="stable")[: self.bits]
        self._means = [each for each in (mean, query_mean) if each is not None]
        none = np.zeros(dims, np.float32)
        rotated = self._rotate(np.stack((self._means or [none]) * 2))
        # After the rotation, (bits,): the mean of the vectors and that of the queries.
        self._mean, self._query_mean = rotated[0], rotated[len(self._means) or 1]

    def sketch(self, vectors: Floats) -> Bits:
        """Sketches (n, bits / 8) uint8 of vectors (n, dims)."""
        return self._sketch(vectors, self._mean)

    def sketch_query(self, queries: Floats) -> Bits:
        """Sketches (n, bits / 8) uint8 of queries (n, dims)."""
        return self._sketch(queries, self._query_mean)

    def probe(self, query: Floats) -> Probe:
        """What a search for the query (dims,) needs."""
        vectors = np.stack([query, *self._means])
        return Probe(self.sketch_query(query[None])[0], self.bits, vectors)

    def _sketch(self, vectors: Floats, mean: Floats) -> Bits:
        if vectors.shape[1:] != (self.dims,):
            raise ClaraError(f"vectors have the shape {vectors.shape}, not (n, {self.dims})")
        sketches = np.empty((len(vectors), self.bits // 8), np.uint8)
        step = max(1, _BATCH_VALUES // self._padded)
        for start in range(0, len(vectors), step):
            batch = np.asarray(vectors[start : start + step], np.float32)
            # Centring after the rotation is the same, and there are fewer values to subtract.
            lengths = np.linalg.norm(batch, axis=1)
            is_set = self._rotate(batch) > lengths[:, None] * mean
            sketches[start : start + step] = np.packbits(is_set, axis=1)
        return sketches

    def _rotate(self, vectors: Floats) -> Floats:
        """(n, dims) -> (n, bits), some coordinates of the rotated vectors."""
        x = vectors * self._signs
        if self._padded > self.dims:
            x = np.pad(x, ((0, 0), (0, self._padded - self.dims)))
        return hadamard.transform(x)[:, self._coordinates]


def _inverse_lengths(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1)
    return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
