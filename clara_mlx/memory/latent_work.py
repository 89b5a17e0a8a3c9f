"""What a memory does with a latent compressor: encode chunks, keep the latents, search them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clara_mlx.memory import asking
from clara_mlx.memory.calibrating import Calibrator
from clara_mlx.memory.cutting import Measure, cut
from clara_mlx.model.thread import ModelThread
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.latent_search import open_latents
from clara_mlx.store.originals import Originals
from clara_mlx.store.stored import StoredChunk

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import LatentCompressor

# Bytes of a digest by which the latents of a text are found again.
_DIGEST_BYTES = 16


class LatentWork:
    """The latents of one compressor in one memory file.

    Attributes:
        backlog: The contents that have no latents yet.
        table: The latents.

    Raises:
        OtherModel: The file's latents are another model's.
    """

    def __init__(
        self,
        store: Originals,
        compressor: LatentCompressor,
        codec: str,
        model_thread: ModelThread,
        *,
        beside: bool = False,
    ) -> None:
        self.compressor = compressor
        self.table, self.index = open_latents(
            store,
            compressor.fingerprint,
            compressor.latent_shape,
            codec,
            compressor=compressor.name,
            pooling=compressor.pooling,
            beside=beside,
        )
        self.backlog = store.backlog_of(self.table.id)
        self._store = store
        self._model_thread = model_thread
        self._calibrator = (
            Calibrator(self.table, self.index, compressor, model_thread)
            if compressor.searches
            else None
        )

    @property
    def calibrator(self) -> Calibrator | None:
        """What unrelated questions score; None if only words are searched."""
        return self._calibrator

    def encode_query(self, query: str) -> Floats | None:
        """A query as latents are compared with it; None if there is nothing to compare."""
        if not self.compressor.searches or self.table.is_empty():
            return None
        return asking.encode_query(query, self.compressor, self._model_thread)

    # -- the background work ---------------------------------------------------------------------

    def missing(self, content: int) -> list[StoredChunk]:
        """The chunks of a content that have no latents; cuts it again if they don't fit the model.

        Chunks do not fit if they were cut without a tokenizer, or for a model with longer ones.
        """
        chunks = self._store.chunks(content)
        limit = self.compressor.chunk_tokens
        if any(chunk.tokens is None or chunk.tokens > limit for chunk in chunks):
            chunks = self.recut(content)
        encoded = self.table.present([chunk.id for chunk in chunks])
        return [chunk for chunk in chunks if chunk.id not in encoded]

    def finish(self) -> None:
        """If these are the latents of a new model and complete, let them take the others' place."""
        self._store.finish_second_space()

    def recut(self, content: int) -> list[StoredChunk]:
        """Cut a content into chunks that fit the model."""
        measure = Measure(self.compressor.tokenizer, self.compressor.chunk_tokens)
        self._store.rechunk(content, cut(self._store.text(content), measure))
        return self._store.chunks(content)

    def compress(self, texts: Sequence[str]) -> list[Floats]:
        """The latents of chunks, in the model's thread; those of known texts are not made again.

        So of an original that has grown, only the chunks where it has grown are encoded.
        """
        digests = [_digest(text) for text in texts]
        made = self.table.known(digests)
        new = {
            digest: text for digest, text in zip(digests, texts, strict=True) if digest not in made
        }
        if new:
            made |= zip(new, self.compressor.encode_chunks(list(new.values())), strict=True)
        return [made[digest] for digest in digests]

    def put(
        self,
        chunks: Sequence[StoredChunk],
        texts: Sequence[str],
        latents: Sequence[Floats],
        done: Sequence[int],
    ) -> None:
        """Store what `compress` made of the texts of chunks; see `LatentTable.put`."""
        ids = [chunk.id for chunk in chunks]
        self.table.put(ids, latents, done, [_digest(text) for text in texts])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
