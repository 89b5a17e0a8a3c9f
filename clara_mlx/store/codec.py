"""Latents (memory_tokens, hidden) float32 as blobs, and cosines straight from the blobs.

A blob is ``norm`` (float32, of the latents as decoded), then one float32 scale for each group of
values (none in fp16), then the values, all little-endian:

- int8: each token is rotated (signs and Hadamard), which evens out the outlier dimensions, and gets
  one scale. 1 - cosine to the original is about 4e-5; groups of 64 without rotation are no better,
  larger, and slower to score.
- int4: rotated too, in groups of 64; a code u in 0..15 means u - 7.5. Two codes in a byte: the
  first half of them in the low nibbles. 1 - cosine is about 5e-3.
- fp16: the values as they are.

The rotation works in blocks of the largest power of two that divides the hidden size (4096: the
whole token; 5120: five blocks of 1024, each with its own scale). Where that is less than 64, the
token is padded with zeros to a multiple of 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clara_mlx.errors import ClaraError
from clara_mlx.store import hadamard
from clara_mlx.store.hadamard import Floats

#: Names of the codecs; the first is the default.
CODECS = ("int8", "int4", "fp16")

# The largest stored value; scales map the largest value of a group to it.
_LARGEST = {"int8": 127, "int4": 7.5}

# The most values that share a scale; in int8 all of a rotated block do.
_GROUP = {"int8": 1 << 30, "int4": 64}

# The fewest values that are rotated together.
_LEAST_BLOCK = 64

# Bits of a stored value.
_BITS = {"int8": 8, "int4": 4, "fp16": 16}

# Gaussian values are best cut off a little below the largest of a group when there are only 16
# levels; each group takes the one of these shares of its maximum that fits it best.
_INT4_CLIPS = (1.0, 0.9, 0.8, 0.7)

# Below this a group counts as zero: its scale would be subnormal.
_TINY = 1e-30

# Latents encoded or decoded at a time, in values: bounds the float32 copies.
_BATCH_VALUES = 1 << 20


class Codec:
    """One way to write latents (memory_tokens, hidden) as a blob.

    Attributes:
        name: One of `CODECS`.
        memory_tokens: Vectors of one chunk's latents.
        hidden: Length of such a vector.
        nbytes: Size of a blob.

    Raises:
        ClaraError: There is no such codec, or a size is not positive.
    """

    def __init__(self, name: str, memory_tokens: int, hidden: int) -> None:
        if name not in CODECS:
            raise ClaraError(f"no latent codec {name!r}; choose one of {', '.join(CODECS)}")
        if memory_tokens < 1 or hidden < 1:
            raise ClaraError(f"latents can't have the shape ({memory_tokens}, {hidden})")
        self.name = name
        self.memory_tokens = memory_tokens
        self.hidden = hidden
        self._quantised = name != "fp16"
        block = hidden & -hidden  # the largest power of two that divides it
        self._width = hidden  # of a token as stored
        if self._quantised and block < _LEAST_BLOCK:
            block = _LEAST_BLOCK
            self._width = -(-hidden // block) * block
        self._block = block
        self._signs = hadamard.signs(self._width, seed=0)
        group = min(block, _GROUP[name]) if self._quantised else hidden
        # One latent in the form that is stored: (groups, values in a group).
        self._shape = (memory_tokens * self._width // group, group)
        self._values = memory_tokens * self._width
        self._header = 4 + 4 * self._shape[0] * self._quantised
        self.nbytes = self._header + _BITS[name] * self._values // 8

    def encode(self, latents: Floats | Sequence[Floats]) -> list[bytes]:
        """Blobs of latents (n, memory_tokens, hidden) float32.

        Raises:
            ClaraError: They have another shape, or values that are not finite or too large.
        """
        latents = np.asarray(latents)
        expected = (self.memory_tokens, self.hidden)
        if latents.shape[1:] != expected:
            raise ClaraError(f"latents have the shape {latents.shape}, not (n, {expected})")
        blobs: list[bytes] = []
        step = max(1, _BATCH_VALUES // self._values)
        for start in range(0, len(latents), step):
            blobs += self._encode(np.asarray(latents[start : start + step], np.float32))
        return blobs

    def _encode(self, latents: Floats) -> Iterator[bytes]:
        """Rotate, scale and round latents (n, memory_tokens, hidden), and pack each into a blob."""
        n = len(latents)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported below
            x = self._rotate(latents)
            if self._quantised:
                scales = self._scales(x)
                x *= _inverse(scales)[..., None]
                self._round(x)
                norms = self._norms(x, scales)
            else:
                halves = x.astype("<f2")
                scales = np.empty((n, 0), np.float32)
                x = halves.astype(np.float32)
                norms = np.sqrt(np.vecdot(x, x).sum(axis=1))
        if not np.isfinite(norms).all():
            raise ClaraError("latents have values that are not finite, or too large to store")
        if self.name == "int8":
            values = x.astype(np.int8)
        elif self.name == "int4":
            codes = (x + 7.5).astype(np.uint8).reshape(n, 2, -1)
            values = codes[:, 0] | codes[:, 1] << 4
        else:
            values = halves
        headers = np.concatenate([norms[:, None], scales], axis=1).astype("<f4")
        for header, row in zip(headers, values, strict=True):
            yield header.tobytes() + row.tobytes()

    def _norms(self, x: Floats, scales: Floats) -> Floats:
        """Lengths (n,) that the latents will have when they are decoded."""
        if self._width == self.hidden:
            norms: Floats = np.sqrt((scales**2 * np.vecdot(x, x)).sum(axis=1))
            return norms
        # Decoding drops the padding, into which rounding has moved some of the length.
        return np.linalg.norm(self._unrotate(x * scales[..., None]).reshape(len(x), -1), axis=1)

    def _scales(self, x: Floats) -> Floats:
        """The step between two values of each group, (n, groups)."""
        largest = np.maximum(x.max(axis=-1), -x.min(axis=-1))
        scales: Floats = (largest / _LARGEST[self.name]).astype(np.float32)
        if self.name == "int4":
            errors = []
            for clip in _INT4_CLIPS:
                steps = (scales * np.float32(clip))[..., None]
                levels = x * _inverse(steps)
                self._round(levels)
                error = x - levels * steps
                errors.append(np.vecdot(error, error))
            scales = scales * np.asarray(_INT4_CLIPS, np.float32)[np.argmin(errors, axis=0)]
        scales[largest < _TINY] = 0
        return scales

    def _round(self, x: Floats) -> None:
        """Round in place to values that can be stored: whole ones, or in int4 -7.5, -6.5 .. 7.5."""
        if self.name == "int4":
            x += 7.5
            np.clip(x, 0, 15, out=x)
        np.rint(x, out=x)
        if self.name == "int4":
            x -= 7.5

    def decode(self, blobs: Sequence[bytes]) -> Floats:
        """Latents (n, memory_tokens, hidden) float32 of blobs.

        Raises:
            ClaraError: A blob is not `nbytes` long.
        """
        latents = np.empty((len(blobs), self.memory_tokens, self.hidden), np.float32)
        step = max(1, _BATCH_VALUES // self._values)
        for start in range(0, len(blobs), step):
            batch = blobs[start : start + step]
            x = np.empty((len(batch), *self._shape), np.float32)
            for row, blob in zip(x, batch, strict=True):
                header = self._read(blob, row)
                if self._quantised:
                    row *= header[1:, None]
            latents[start : start + step] = self._unrotate(x)
        return latents

    def pool(self, latents: Floats | Sequence[Floats]) -> Floats:
        """What a search compares with of each latents: all values, (n, memory_tokens * hidden)."""
        return np.asarray(latents, np.float32).reshape(len(latents), -1)

    def search_vectors(self, blobs: Sequence[bytes]) -> Floats:
        """`pool` of what blobs hold."""
        return self.pool(self.decode(blobs))

    def rotate_queries(self, queries: Floats) -> Floats:
        """Queries in the form that `scores` takes: rotated as blobs are, and of length one.

        Args:
            queries: One (memory_tokens, hidden), or several (q, memory_tokens, hidden).

        Raises:
            ClaraError: They have another shape.
        """
        expected = (self.memory_tokens, self.hidden)
        if queries.ndim not in (2, 3) or queries.shape[-2:] != expected:
            raise ClaraError(f"queries have the shape {queries.shape}, not (q, {expected})")
        rotated = self._rotate(np.asarray(queries, np.float32).reshape(-1, *expected))
        lengths = np.linalg.norm(rotated.reshape(len(rotated), -1), axis=1)
        lengths[lengths == 0] = 1
        return rotated / lengths[:, None, None]

    def scores(self, rotated: Floats, blobs: Sequence[bytes]) -> Floats:
        """Cosines (q, n) float32 of queries and n blobs, as if decoded; both sides are flattened.

        The cosine with a zero vector is 0. Only one blob's values at a time are held as float32.

        Args:
            rotated: What `rotate_queries` returned.
            blobs: Latents as they are stored.

        Raises:
            ClaraError: A blob is not `nbytes` long.
        """
        x = np.empty(self._shape, np.float32)
        dots = np.empty((len(rotated), self._shape[0]), np.float32)
        cosines = np.zeros((len(rotated), len(blobs)), np.float32)
        for i, blob in enumerate(blobs):
            header = self._read(blob, x)
            np.vecdot(rotated, x, out=dots)
            if header[0] > 0:  # the norm
                dot = dots @ header[1:] if self._quantised else dots.sum(axis=1)
                cosines[:, i] = dot / header[0]
        return cosines

    def _read(self, blob: bytes, values: Floats) -> Floats:
        """Unpack a blob's values, not yet scaled, into ``values``; returns the norm and scales."""
        if len(blob) != self.nbytes:
            raise ClaraError(
                f"a latent blob has {len(blob)} bytes, but {self.name} with "
                f"{self.memory_tokens} x {self.hidden} has {self.nbytes}: it is damaged, or was "
                "written with another codec"
            )
        if self.name == "int4":
            codes = np.frombuffer(blob, np.uint8, offset=self._header)
            low, high = values.reshape(2, -1)
            np.copyto(low, codes & 15)
            np.copyto(high, codes >> 4)
            values -= 7.5
        else:
            dtype = "<f2" if self.name == "fp16" else np.int8
            np.copyto(values.reshape(-1), np.frombuffer(blob, dtype, offset=self._header))
        return np.frombuffer(blob, "<f4", count=self._header // 4)

    def _rotate(self, latents: Floats) -> Floats:
        """Rotate (n, memory_tokens, hidden) into (n, groups, group), a copy unless fp16."""
        n = len(latents)
        if not self._quantised:
            return latents.reshape(n, *self._shape)
        if self._width > self.hidden:
            latents = np.pad(latents, ((0, 0), (0, 0), (0, self._width - self.hidden)))
        x = (latents * self._signs).reshape(n, -1, self._block)
        return hadamard.transform(x).reshape(n, *self._shape)

    def _unrotate(self, x: Floats) -> Floats:
        """Rotate (n, groups, group) back into (n, memory_tokens, hidden)."""
        n = len(x)
        if not self._quantised:
            return x.reshape(n, self.memory_tokens, self.hidden)
        x = hadamard.transform(x.reshape(n, -1, self._block))
        x = x.reshape(n, self.memory_tokens, self._width) * self._signs
        return x[..., : self.hidden]


def _inverse(scales: Floats) -> Floats:
    """1 / scale, and 0 where a group is zero."""
    return np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
