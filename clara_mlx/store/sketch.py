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
    """The mean (dims,) float32 of vectors scaled to length one, updated as they are added."""

    def __init__(self, dims: int) -> None:
        self.mean = np.zeros(dims, np.float32)
        self.count = 0

    def update(self, vectors: Floats) -> None:
        """Take vectors (n, dims) into the mean; they may have any length but zero."""
        if len(vectors):
            total = _inverse_lengths(vectors) @ vectors
            self.count += len(vectors)
            self.mean += (total - len(vectors) * self.mean) / np.float32(self.count)

    def is_stale(self, used: Floats | None) -> bool:
        """Whether sketches made with the mean ``used`` should be remade with this one.

        Remaking all sketches reads all latents, so ask only when their number has doubled since
        the last time: the work then stays in proportion to that of adding them.
        """
        if self.count < LEAST_FOR_MEAN:
            return False
        if used is None:
            return True
        scatter = 1 - float(self.mean @ self.mean)  # mean squared distance of unit vectors from it
        drift = self.mean - used
        return float(drift @ drift) > _TOLERATED_DRIFT * scatter


class SketchedQuery:
    """A query in the forms that a search needs; made by `Sketcher.sketch_query`.

    Attributes:
        sketch: The query's sketch (bits / 8,) uint8.
        bits: Length of the sketch in bits.
        vectors: The query, and the mean if there is one, (1 or 2, dims) float32: exact scoring
            needs the cosines of documents with both.
    """

    def __init__(self, sketch: Bits, bits: int, vectors: Floats) -> None:
        self.sketch = sketch
        self.bits = bits
        self.vectors = vectors
        # No BLAS: it has several threads for long vectors, and they are slow on a busy machine.
        self._dots = np.einsum("id,jd->ij", vectors, vectors)

    def centred(self, cosines: Floats) -> Floats:
        """Cosines (n,) of the centred query and documents, whose angles the sketches estimate.

        Args:
            cosines: Those of the documents with `vectors`, (len(vectors), n).
        """
        if len(self.vectors) == 1:
            return cosines[0]
        # With unit vectors q and d of query and document and the mean m: (q - m) . (d - m) and the
        # two lengths.
        q_q, q_m, m_m = self._dots[0, 0], self._dots[0, 1], self._dots[1, 1]
        scale = 1 / (np.sqrt(q_q) or 1.0)
        d_m = cosines[1] * np.sqrt(m_m)
        product = cosines[0] - scale * q_m - d_m + m_m
        query = (scale**2 * q_q) - 2 * scale * q_m + m_m
        document = 1 - 2 * d_m + m_m
        lengths = np.sqrt(np.maximum(query, 1e-12) * np.maximum(document, 1e-12))
        centred: Floats = np.clip(product / lengths, -1, 1)
        return centred

    def distance(self, cosine: float, deviations: float) -> float:
        """A Hamming distance that documents of at least this centred cosine hardly ever exceed.

        Those that do are in the tail of a normal distribution, ``deviations`` standard deviations
        out.
        """
        p = float(np.arccos(np.clip(cosine, -1, 1))) / np.pi
        return float(self.bits * p + deviations * np.sqrt(self.bits * p * (1 - p)))


class Sketcher:
    """Vectors (n, dims) float32 -> sketches (n, bits / 8) uint8, as sqlite-vec's ``vec_bit`` takes.

    Equal arguments give equal sketches on every machine, but for bits whose value rounds to zero.

    Args:
        dims: Length of a vector; of flattened latents, memory_tokens * hidden.
        bits: Length of a sketch, a multiple of 8; fewer if the vectors have fewer dimensions.
        seed: Seed of the rotation.
        mean: The mean of the unit vectors (`RunningMean`). It is subtracted from documents and
            queries alike, because centring only one of them is worse than centring neither.
    """

    def __init__(
        self, dims: int, bits: int = 8192, seed: int = 0, mean: Floats | None = None
    ) -> None:
        if dims < 1 or bits < 8 or bits % 8:
            raise ClaraError(f"no sketches of {bits} bits for {dims} dimensions")
        if mean is not None and mean.shape != (dims,):
            raise ClaraError(f"the mean has the shape {mean.shape}, not ({dims},)")
        self.dims = dims
        self._padded = max(8, 1 << (dims - 1).bit_length())  # a power of two
        self.bits = min(bits, self._padded)
        self._signs = hadamard.signs(dims, seed)
        keys = hadamard.random_bytes(8 * self._padded, f"coordinates {seed}").view("<u8")
        # In random order, so that the first bits are a fair sample of all: see `SketchIndex`.
        self._coordinates = np.argsort(keys, kind="stable")[: self.bits]
        self._means = [] if mean is None else [mean]
        # After the rotation, (bits,).
        self._mean = self._rotate((np.zeros(dims, np.float32) if mean is None else mean)[None])[0]

    def sketch(self, vectors: Floats) -> Bits:
        """Sketches (n, bits / 8) uint8 of vectors (n, dims)."""
        if vectors.shape[1:] != (self.dims,):
            raise ClaraError(f"vectors have the shape {vectors.shape}, not (n, {self.dims})")
        sketches = np.empty((len(vectors), self.bits // 8), np.uint8)
        step = max(1, _BATCH_VALUES // self._padded)
        for start in range(0, len(vectors), step):
            batch = np.asarray(vectors[start : start + step], np.float32)
            # Centring after the rotation is the same, and there are fewer values to subtract.
            lengths = np.linalg.norm(batch, axis=1)
            is_set = self._rotate(batch) > lengths[:, None] * self._mean
            sketches[start : start + step] = np.packbits(is_set, axis=1)
        return sketches

    def sketch_query(self, query: Floats) -> SketchedQuery:
        """The forms of a query (dims,) that a search needs."""
        vectors = np.stack([query, *self._means])
        return SketchedQuery(self.sketch(query[None])[0], self.bits, vectors)

    def _rotate(self, vectors: Floats) -> Floats:
        """Rotate vectors (n, dims), and keep some of their coordinates, (n, bits)."""
        x = vectors * self._signs
        if self._padded > self.dims:
            x = np.pad(x, ((0, 0), (0, self._padded - self.dims)))
        return hadamard.transform(x)[:, self._coordinates]


def _inverse_lengths(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1)
    return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
