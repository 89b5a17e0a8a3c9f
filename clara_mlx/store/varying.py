"""Latents of which chunks have different numbers, as blobs that begin with what a search compares.

A blob is a row of records, each one vector (hidden) as `Codec` writes it: the mean of the chunk's
vectors, and then these. So a search reads one record of each chunk, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clara_mlx.errors import ClaraError
from clara_mlx.store.codec import Codec
from clara_mlx.store.hadamard import Floats


class VaryingCodec:
    """Writes latents (n, hidden), n from 1 to ``most``, as a blob.

    Attributes:
        name: One of `codec.CODECS`.
        most: Vectors of the largest chunk.
        hidden: Length of a vector.

    Raises:
        ClaraError: There is no such codec, or a size is not positive.
    """

    def __init__(self, name: str, most: int, hidden: int) -> None:
        self._one = Codec(name, 1, hidden)
        self.name = name
        self.most = most
        self.hidden = hidden

    def encode(self, latents: Floats | Sequence[Floats]) -> list[bytes]:
        """Blobs of latents, each (n, hidden) float32.

        Raises:
            ClaraError: They have another shape, or values that are not finite or too large.
        """
        return [self._encode(np.asarray(one, np.float32)) for one in latents]

    def _encode(self, latents: Floats) -> bytes:
        if latents.ndim != 2 or not 1 <= len(latents) <= self.most:
            raise ClaraError(
                f"latents have the shape {latents.shape}, not (1 to {self.most}, {self.hidden})"
            )
        records = np.concatenate([latents.mean(axis=0, keepdims=True), latents])
        return b"".join(self._one.encode(records[:, None]))

    def decode(self, blobs: Sequence[bytes]) -> list[Floats]:
        """The latents (n, hidden) float32 of each blob.

        Raises:
            ClaraError: A blob has a length that no number of vectors has.
        """
        return [self._one.decode(self._records(blob)[1:])[:, 0] for blob in blobs]

    def pool(self, latents: Floats | Sequence[Floats]) -> Floats:
        """What a search compares with of each latents, (n, hidden): their mean."""
        return np.stack([np.asarray(one, np.float32).mean(axis=0) for one in latents])

    def search_vectors(self, blobs: Sequence[bytes]) -> Floats:
        """What a search compares with of each blob, (blobs, hidden) float32."""
        return self._one.decode([self._records(blob)[0] for blob in blobs])[:, 0]

    def rotate_queries(self, queries: Floats) -> Floats:
        """Queries (1, hidden) or (q, 1, hidden) in the form that `scores` takes."""
        return self._one.rotate_queries(queries)

    def scores(self, rotated: Floats, blobs: Sequence[bytes]) -> Floats:
        """Cosines (q, n) float32 of queries and of the means in n blobs."""
        return self._one.scores(rotated, [self._records(blob)[0] for blob in blobs])

    def _records(self, blob: bytes) -> list[bytes]:
        """The records of a blob, at least two."""
        size = self._one.nbytes
        count, rest = divmod(len(blob), size)
        if rest or not 2 <= count <= self.most + 1:
            raise ClaraError(
                f"a latent blob has {len(blob)} bytes, but {self.name} with vectors of "
                f"{self.hidden} takes {size} for each: it is damaged, or was written with another "
                "codec"
            )
        return [blob[start : start + size] for start in range(0, len(blob), size)]
