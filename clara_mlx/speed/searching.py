"""Finding the ten best, by how much is remembered: with the model's own encoding of the question.

A large memory is filled without hours of compression: some chunks are encoded by the model, and
the others get these latents with noise. Searching takes the same time whatever the latents say; the
chunks' texts, which the search by words reads, all differ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clara_mlx.compressors.compressor import Floats
from clara_mlx.memory.memory import Memory
from clara_mlx.model.clara import Clara
from clara_mlx.speed.sampling import seconds_of, spread
from clara_mlx.speed.settings import Settings
from clara_mlx.speed.texts import Texts
from clara_mlx.store.results import Hit

#: The ways to search.
MODES: tuple[Literal["hybrid", "latent", "text"], ...] = ("hybrid", "latent", "text")

# Chunks that the model itself encodes; the others are made of these.
_ENCODED = 32

# Of a latent's length: how far noise moves it, so that no two are equal.
_NOISE = 0.5

# Tokens of a remembered text, which is one chunk.
_TEXT_TOKENS = 48

# Different questions that are asked again and again.
_QUESTIONS = 8

# Texts that are remembered together.
_TOGETHER = 500


class Rehearsed:
    """A model that encodes questions itself, and gives chunks the latents of some with noise.

    It is a `clara_mlx.compressors.compressor.LatentCompressor`.
    """

    kind: Literal["latent"] = "latent"
    name = "clara"
    pooling: Literal["flat"] = "flat"
    searches = True
    separators = 1

    def __init__(self, clara: Clara) -> None:
        self._clara = clara
        self.fingerprint = f"rehearsed {clara.fingerprint}"
        self.tokenizer = clara.tokenizer
        self.chunk_tokens = clara.chunk_tokens
        self.latent_shape = clara.latent_shape
        texts = Texts(clara.tokenizer)
        tokens = min(_TEXT_TOKENS, clara.chunk_tokens)
        self._known = clara.encode_chunks([texts.of(tokens, n)[0] for n in range(_ENCODED)])
        self._random = np.random.default_rng(0)

    def encode_chunks(self, texts: Sequence[str], /) -> list[Floats]:
        """Latents of texts, made of known ones."""
        return [self._vary(self._known[n % _ENCODED]) for n in range(len(texts))]

    def _vary(self, latents: Floats) -> Floats:
        noise = self._random.standard_normal(latents.shape, dtype=np.float32)
        return latents + _NOISE * float(latents.std()) * noise

    def encode_query(self, text: str, /) -> Any:
        """A question's latents, by the model itself."""
        return self._clara.encode_query(text)

    def stream_answer(
        self, question: str, documents: Sequence[Floats], max_tokens: int, /
    ) -> Iterator[str]:
        """The model's own answer."""
        return self._clara.stream_answer(question, documents, max_tokens)

    def documents_that_fit(self, question: str, max_tokens: int, /) -> int:
        """The model's own number."""
        return self._clara.documents_that_fit(question, max_tokens)


def measure_retrieval(clara: Clara, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield a row for each size of a memory and each way to search; k is 10.

    The memory of one size grows into the next, so sizes should rise.
    """
    rehearsed = Rehearsed(clara)
    texts = Texts(clara.tokenizer)
    tokens = min(_TEXT_TOKENS, clara.chunk_tokens)
    asked = [f"Which line of {texts.of(12, 7 * n)[0]!r} failed?" for n in range(_QUESTIONS)]
    runs = max(settings.repeats, _QUESTIONS)
    with (
        tempfile.TemporaryDirectory(prefix="clara-mlx-bench-") as folder,
        Memory.open(Path(folder) / "memory.db", rehearsed) as memory,
    ):
        there = 0
        for size in sorted(settings.stores):
            for start in range(there, size, _TOGETHER):
                numbers = range(start, min(size, start + _TOGETHER))
                memory.remember_many([_given(texts.of(tokens, n)[0], n) for n in numbers])
            there = max(there, size)
            memory.flush()
            memory.recall(asked[0])  # the first measures what unrelated questions score
            chunks = memory.status().chunks
            for mode in MODES:

                def recall(number: int, mode: Any = mode) -> list[Hit]:
                    return memory.recall(asked[number % _QUESTIONS], 10, mode=mode)

                seconds = [seconds_of(lambda n=n: recall(n)) for n in range(runs)]  # type: ignore[misc]
                yield {"chunks": chunks, "mode": mode, **spread(seconds)}


def _given(text: str, number: int) -> dict[str, Any]:
    about = {"source": None, "session": None, "metadata": None}
    return {"text": text, "handle": f"bench{number}", **about}
