"""Compressing texts of any length: ids, pooled states of their windows, and latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from clara_mlx.compressors.lclm.encoder import Adapter, Encoder
from clara_mlx.compressors.lclm.regions import Region
from clara_mlx.compressors.lclm.states import StateCache
from clara_mlx.errors import Progress
from clara_mlx.model.chunking import Chunk
from clara_mlx.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class CompressedText:
    """A text of any length as latents; give it to `Lclm.answer`, or its `region` to a message."""

    states: mx.array  # pooled, (latents, encoder hidden) float32
    latents: mx.array  # (latents, hidden) float32
    chunks: tuple[Chunk, ...]  # the encoder's windows, in order; together they cover the text

    @property
    def region(self) -> Region:
        """What stands for the text in a prompt."""
        return Region(latents=self.latents)

    @property
    def source_tokens(self) -> int:
        """Tokens of the text."""
        return sum(chunk.tokens for chunk in self.chunks)

    @property
    def memory_tokens(self) -> int:
        """Latents that the text has become; none for an empty one."""
        return self.latents.shape[0] if self.chunks else 0

    @property
    def ratio(self) -> float:
        """Source tokens per latent; 0 for an empty text."""
        return self.source_tokens / self.memory_tokens if self.chunks else 0.0


class Compressing:
    """The encoder's half of a model, and the states that it has computed so far.

    Attributes:
        encoder: Runs windows.
        encoded_tokens: Tokens that it has run; windows that are known are not run again.
    """

    def __init__(self, encoder: Encoder, adapter: Adapter, tokenizer: TextTokenizer) -> None:
        self.encoder = encoder
        self.encoded_tokens = 0
        self._adapter = adapter
        self._tokenizer = tokenizer
        self._known = StateCache()

    def ids(self, text: str, *, parse_specials: bool = False) -> list[int]:
        """The ids of a text, in which special-token strings are text unless they are to be parsed.

        No token is added at either end.
        """
        if parse_specials:
            ids: list[int] = self._tokenizer.full.encode(text, add_special_tokens=False).ids
            return ids
        return self._tokenizer.encode(text)

    def states(
        self, tokenised: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> list[mx.array]:
        """Pooled states of texts, each (n, encoder hidden) float32; runs unknown windows only."""
        windows = [self.encoder.windows(ids) for ids in tokenised]
        states = {
            tuple(window): self._known.get(window) for of_text in windows for window in of_text
        }
        new = [window for window, found in states.items() if found is None]
        self.encoded_tokens += sum(map(len, new))
        for window, pooled in zip(new, self.encoder.pool_windows(new, progress), strict=True):
            states[window] = pooled
            self._known.put(window, pooled)
        return [
            mx.concatenate([found for w in of_text if (found := states[tuple(w)]) is not None])
            if of_text
            else self.encoder.empty()
            for of_text in windows
        ]

    def latents(self, states: mx.array | np.ndarray[Any, Any]) -> mx.array:
        """Latents (n, hidden) float32 of pooled states (n, encoder hidden)."""
        latents = self._adapter(mx.array(states)).astype(mx.float32)
        mx.eval(latents)
        return latents

    def compress(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> list[CompressedText]:
        """Compress several texts, whose windows share batches."""
        tokenised = self._tokenizer.encode_batch(texts)
        return [
            CompressedText(states, self.latents(states), self._spans(text))
            for text, states in zip(texts, self.states(tokenised, progress), strict=True)
        ]

    def _spans(self, text: str) -> tuple[Chunk, ...]:
        """The characters of a text's windows."""
        ends = self._tokenizer.ends(text)
        chunks: list[Chunk] = []
        for i in range(0, len(ends), self.encoder.window):
            window = ends[i : i + self.encoder.window]
            chunks.append(Chunk(chunks[-1].end if chunks else 0, window[-1], len(window)))
        if chunks and chunks[-1].end < len(text):  # what no token has
            chunks[-1] = replace(chunks[-1], end=len(text))
        return tuple(chunks)
