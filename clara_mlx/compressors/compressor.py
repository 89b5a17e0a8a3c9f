"""Compressor: what a memory, the evaluation and the benches need of one, whoever wrote it.

There are two kinds. A *latent* compressor turns a chunk of text into vectors that its own decoder
reads: `Clara` is one. A *textual* compressor makes a text shorter, and anything that reads text can
read the result. A class is a compressor if it has the members below; it inherits nothing, and needs
neither MLX nor this module (tests/compressors/first_lines.py is one in a file).

How a compressor is found by its name: `clara_mlx.compressors.registry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard

import numpy as np

from clara_mlx.model.tokenizer import TextTokenizer

#: float32 values, as numpy keeps them.
Floats: TypeAlias = np.ndarray[Any, Any]


class Tokens(Protocol):
    """What budgets are counted by: a `TextTokenizer`, or anything that counts like one."""

    def encode(self, text: str, /) -> Sequence[int]:
        """The ids of a text, without any around it; only their number matters here."""

    def ends(self, text: str, /) -> list[int]:
        """For each token of a text, the character offset at which it ends."""


class LatentCompressor(Protocol):
    """Turns chunks of text into vectors, finds them by a question, and answers from them.

    A memory calls all methods from one thread, which owns MLX (`clara_mlx.model.thread`).

    Attributes:
        kind: ``latent``.
        name: The name it is registered by.
        fingerprint: Identifies checkpoint, quantisation and dtype. Every stored row belongs to one
            fingerprint, and rows of different ones are never mixed.
        tokenizer: What texts are cut into chunks by.
        chunk_tokens: Tokens of the longest chunk.
        latent_shape: The most vectors that a chunk becomes, and the length of each.
        pooling: What stands for a chunk in a search: ``flat``, all its vectors one after the other,
            where every chunk has as many; or ``mean``, their mean.
        searches: Whether `encode_query` can be called; if not, only words are searched.
        separators: Positions of the decoder that a document takes beside its vectors.

    It may have one attribute more, `takes_texts`. Where that is true, a memory also gives
    `stream_answer` the texts that the documents stand for, as ``texts=``: not to be read, but to
    make an answer faster that copies from them.
    """

    @property
    def kind(self) -> Literal["latent"]: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def tokenizer(self) -> TextTokenizer: ...  # noqa: D102
    @property
    def chunk_tokens(self) -> int: ...  # noqa: D102
    @property
    def latent_shape(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def pooling(self) -> Literal["flat", "mean"]: ...  # noqa: D102
    @property
    def searches(self) -> bool: ...  # noqa: D102
    @property
    def separators(self) -> int: ...  # noqa: D102

    def encode_chunks(self, texts: Sequence[str], /) -> list[Floats]:
        """The vectors of each text, (n, length) float32 with n from 1 to `latent_shape`'s.

        The same text always becomes the same vectors, but for rounding: a memory computes them
        once, also where the text stands in several originals, or in one that grows.

        Raises:
            TextTooLong: A text has more than `chunk_tokens` tokens; nothing is ever cut.
        """

    def encode_query(self, text: str, /) -> Any:
        """A question of one chunk as chunks are compared with it; an array that numpy can read.

        It has the shape `latent_shape` if pooling is ``flat``, else (1, length) or (length,).
        """

    def stream_answer(
        self, question: str, documents: Sequence[Floats], max_tokens: int, /
    ) -> Iterator[str]:
        """Answer a question, piece by piece, from what `encode_chunks` made; the best first.

        Raises:
            PromptTooLong: The documents do not fit; nothing is ever cut.
        """

    def documents_that_fit(self, question: str, max_tokens: int, /) -> int:
        """How many documents of the largest size fit beside a question and its answer."""


class TextualCompressor(Protocol):
    """Makes texts shorter.

    Attributes:
        kind: ``textual``.
        name: The name it is registered by.
        fingerprint: Identifies the checkpoint, or the rule and its settings, as it does for a
            latent compressor.
        ratio: Tokens of a text for each that a memory stores of it.
        tokens: What a memory counts these by: its own tokenizer, or `ESTIMATE`.
        uses_question: Whether a question changes what `shorten` returns.
    """

    @property
    def kind(self) -> Literal["textual"]: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def ratio(self) -> float: ...  # noqa: D102
    @property
    def tokens(self) -> Tokens: ...  # noqa: D102
    @property
    def uses_question(self) -> bool: ...  # noqa: D102

    def shorten(
        self, text: str, budget: int, tokens: Tokens, /, question: str | None = None
    ) -> str:
        """A text of at most ``budget`` tokens that stands for a longer one.

        Args:
            text: Any text, of any length; one within the budget is returned as it is.
            budget: The most tokens of the result, 0 or more.
            tokens: What they are counted by, which need not be what the compressor reads by.
            question: What the text is read for, if that is known.
        """


Compressor: TypeAlias = LatentCompressor | TextualCompressor


def is_latent(compressor: Compressor) -> TypeGuard[LatentCompressor]:
    """Whether a compressor makes vectors."""
    return compressor.kind == "latent"


def is_textual(compressor: Compressor) -> TypeGuard[TextualCompressor]:
    """Whether a compressor makes shorter texts."""
    return compressor.kind == "textual"


class FourCharacters:
    """Counts a token for every four characters begun, where no tokenizer is at hand."""

    def encode(self, text: str, /) -> Sequence[int]:
        """One number for each token."""
        return range(len(self.ends(text)))

    def ends(self, text: str, /) -> list[int]:
        """The character offsets at which tokens end."""
        return [min(start + 4, len(text)) for start in range(0, len(text), 4)]


#: What tokens are counted by where no tokenizer is at hand.
ESTIMATE = FourCharacters()
