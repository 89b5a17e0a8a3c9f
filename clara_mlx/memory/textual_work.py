"""What a memory does with a textual compressor: shorten chunks, keep the results, quote them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from clara_mlx.memory.asking import NOTHING_FOUND, Answer
from clara_mlx.model.thread import ModelThread, Priority
from clara_mlx.store.originals import Originals
from clara_mlx.store.results import Hit
from clara_mlx.store.shortened import ShortenedTable
from clara_mlx.store.stored import StoredChunk

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import TextualCompressor


class TextualWork:
    """The shortened texts of one compressor in one memory file.

    Attributes:
        backlog: The contents that have no shortened texts yet.
        table: The shortened texts.

    Raises:
        OtherModel: The file's shortened texts are another compressor's.
    """

    def __init__(
        self, store: Originals, compressor: TextualCompressor, model_thread: ModelThread
    ) -> None:
        self.compressor = compressor
        self.backlog = store.texts_backlog
        self.table = ShortenedTable.open(
            store, compressor.name, compressor.fingerprint, compressor.ratio
        )
        self._store = store
        self._model_thread = model_thread

    # -- the background work ---------------------------------------------------------------------

    def missing(self, content: int) -> list[StoredChunk]:
        """The chunks of a content that have no shortened text; any chunk will do."""
        chunks = self._store.chunks(content)
        made = self.table.present([chunk.id for chunk in chunks])
        return [chunk for chunk in chunks if chunk.id not in made]

    def finish(self) -> None:
        """Nothing is left to do when nothing waits."""

    def recut(self, content: int) -> list[StoredChunk]:
        """The chunks as they are: cutting them anew would drop the file's latents."""
        return self._store.chunks(content)

    def compress(self, texts: Sequence[str]) -> list[str]:
        """The shortened texts of chunks, in the model's thread."""
        return [self._shorten(text, None) for text in texts]

    def put(
        self,
        chunks: Sequence[StoredChunk],
        texts: Sequence[str],
        shortened: Sequence[str],
        done: Sequence[int],
    ) -> None:
        """Store what `compress` made of the texts of chunks; see `ShortenedTable.put`."""
        self.table.put([chunk.id for chunk in chunks], shortened, done)

    # -- reading ---------------------------------------------------------------------------------

    def shortened(self, handle: str) -> str:
        """A memory's shortened text; chunks that are not shortened yet are shortened now.

        Raises:
            StoreError: There is no such memory, or what was stored is damaged.
        """
        self._store.bring([handle])
        content = self._store.content_id(handle)
        text = self._store.text(content)
        chunks = self._store.chunks(content)
        made = self.table.texts([chunk.id for chunk in chunks])
        pieces = [
            made[chunk.id] if chunk.id in made else self._now(text[chunk.start : chunk.end], None)
            for chunk in chunks
        ]
        return "\n".join(piece.removesuffix("\n") for piece in pieces)

    def quote(self, question: str, hits: list[Hit]) -> Answer:
        """The hits' shortened texts in place of an answer, which a textual compressor can't give.

        If the compressor reads questions, they are made for this one, else they are those that
        are stored.
        """
        if not hits:
            return Answer(NOTHING_FOUND, [], 0, 0, 0, answered=False)
        for_question = question if self.compressor.uses_question else None
        made = {} if for_question else self.table.texts([hit.chunk_id for hit in hits])
        pieces = [made.get(hit.chunk_id) or self._now(hit.text, for_question) for hit in hits]
        text = "\n".join(piece.removesuffix("\n") for piece in pieces)
        read = self._count(text)
        whole = sum(self._count(hit.text) for hit in hits)
        return Answer(text, hits, read, whole - read, 0, answered=False)

    def _now(self, text: str, question: str | None) -> str:
        return self._model_thread.run(Priority.QUESTION, partial(self._shorten, text, question))

    def _shorten(self, text: str, question: str | None) -> str:
        budget = ceil(self._count(text) / self.compressor.ratio)
        return self.compressor.shorten(text, budget, self.compressor.tokens, question=question)

    def _count(self, text: str) -> int:
        return len(self.compressor.tokens.encode(text))
