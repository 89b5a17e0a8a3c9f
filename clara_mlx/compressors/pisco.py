"""PISCO: CLaRa's ancestor, a compressor and a decoder on one base, and nothing that finds texts.

Its passes and prompts are those that CLaRa has kept, so it runs on `Clara`'s network. What it does
not have is not offered: there is no encoder for questions, so a memory finds by words, and it was
never trained to write a text out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

import mlx.core as mx
import numpy as np

from clara_mlx.errors import ClaraError, Progress
from clara_mlx.model import clara
from clara_mlx.model.clara import Clara, Compressed, Latents
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.generation import Sampling
from clara_mlx.model.prompts import Prompts
from clara_mlx.model.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from mlx_lm.generate import GenerationResponse


def load(path_or_hub_id: str | Path, *, revision: str | None = None) -> Pisco:
    """Load a model folder that ``clara-mlx convert`` has made of a PISCO checkpoint.

    Raises:
        CheckpointError: The folder can't be found, or is damaged; the message says which file.
    """
    return Pisco(clara.load(path_or_hub_id, revision=revision))


class Pisco:
    """A PISCO model; made by `load`. Texts are content, and nothing is cut, as in `Clara`.

    It is a `clara_mlx.compressors.compressor.LatentCompressor`, whose docstring has the rest.

    Attributes:
        config: Token counts and ids.
        prompts: Builds the inputs of encoder and decoder.
    """

    name: ClassVar[str] = "pisco"
    kind: ClassVar[Literal["latent"]] = "latent"
    pooling: ClassVar[Literal["flat"]] = "flat"
    searches: ClassVar[bool] = False
    separators: ClassVar[int] = 1  # <SEP>
    takes_texts: ClassVar[bool] = True

    def __init__(self, model: Clara) -> None:
        self._model = model
        self.config: ClaraConfig = model.config
        self.prompts: Prompts = model.prompts
        self.tokenizer: TextTokenizer = model.tokenizer
        self.fingerprint: str = model.fingerprint

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the model's adapters."""
        return self._model.adapters

    @property
    def chunk_tokens(self) -> int:
        """Tokens of the longest chunk, doc_max_length."""
        return self._model.chunk_tokens

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Shape of a chunk's latents, (memory_tokens, hidden)."""
        return self._model.latent_shape

    def encode(self, texts: str | Sequence[str], *, truncate: bool = False) -> mx.array:
        """Compress texts of one chunk each: (n, memory_tokens, hidden) float32; see `Clara`.

        Raises:
            TextTooLong: A text has more than doc_max_length tokens and ``truncate`` is off.
        """
        return self._model.encode(texts, truncate=truncate)

    def encode_chunks(self, texts: Sequence[str], /) -> list[np.ndarray[Any, Any]]:
        """`encode` as numpy arrays, one (memory_tokens, hidden) float32 for each text."""
        return self._model.encode_chunks(texts)

    def encode_query(self, text: str, /) -> Any:
        """Refuse: nothing in PISCO encodes a question.

        Raises:
            ClaraError: Always.
        """
        raise ClaraError("PISCO has no encoder for questions; search by words")

    def compress(self, text: str, *, progress: Progress | None = None) -> Compressed:
        """Split a text of any length into chunks and compress them; see `Compressed`."""
        return self._model.compress(text, progress=progress)

    def compress_batch(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> list[Compressed]:
        """Compress several texts; their chunks share batches. An empty text has no chunks."""
        return self._model.compress_batch(texts, progress=progress)

    def answer(
        self,
        question: str,
        latents: Latents,
        max_tokens: int = 128,
        *,
        texts: Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> str:
        """Answer a question from compressed documents (k, memory_tokens, hidden); see `Clara`.

        Raises:
            PromptTooLong: Question, documents and answer exceed the window.
        """
        return self._model.answer(question, latents, max_tokens, texts=texts, **sampling)

    def stream_answer(
        self,
        question: str,
        latents: Latents,
        max_tokens: int = 128,
        *,
        texts: Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> Iterator[str]:
        """`answer` piece by piece, as the text becomes certain; errors are raised at once."""
        return self._model.stream_answer(question, latents, max_tokens, texts=texts, **sampling)

    def stream_responses(
        self,
        question: str,
        latents: Latents,
        max_tokens: int = 128,
        *,
        texts: Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> Iterator[GenerationResponse]:
        """`answer` token by token: mlx-lm's responses, with token ids, counts and rates."""
        return self._model.stream_responses(question, latents, max_tokens, texts=texts, **sampling)

    def documents_that_fit(self, question: str, max_tokens: int = 128) -> int:
        """Number of documents that `answer` can read with this question and room for its answer."""
        return self._model.documents_that_fit(question, max_tokens)
