"""The words of a text as LLMLingua-2 sees them, each with its probability to be kept.

A word is the tokens from one that begins a word to the next one; its probability is the mean of
theirs, as published. Here a word also knows its place in the text, so that what is kept can be
copied from the text, character by character, instead of being put together from tokens.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clara_mlx.compressors.llmlingua2.encoder import (
    EncoderConfig,
    TokenClassifier,
    keep_probabilities,
)
from clara_mlx.errors import CheckpointError
from clara_mlx.model.chunking import split
from clara_mlx.model.encoder import batches
from clara_mlx.model.tokenizer import TextTokenizer

#: Positions of a chunk, those of the tokens around it included: what the models were trained on.
CHUNK_POSITIONS = 512

# The tokens around a chunk.
_AROUND = 2

Probabilities = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Word:
    """``text[start:end]``, and how probable it is that a summary would keep it."""

    start: int
    end: int
    probability: float


class Reader:
    """Reads texts with an encoder: their words and probabilities.

    Attributes:
        config: The encoder's sizes.
        network: The encoder.
        tokenizer: Its tokenizer; special tokens in a text are plain characters.
    """

    def __init__(
        self, config: EncoderConfig, network: TokenClassifier, tokenizer: TextTokenizer
    ) -> None:
        self.config = config
        self.network = network
        self.tokenizer = tokenizer
        around = ("<s>", "</s>") if config.model_type == "xlm-roberta" else ("[CLS]", "[SEP]")
        self._first, self._last = map(self.id_of, around)
        self._room = min(CHUNK_POSITIONS, config.longest_input) - _AROUND

    def id_of(self, token: str) -> int:
        """The id of a special token.

        Raises:
            CheckpointError: The tokenizer does not have it.
        """
        id = self.tokenizer.full.token_to_id(token)
        if id is None:
            raise CheckpointError(
                f"the tokenizer has no {token}, which its kind of encoder "
                f"({self.config.model_type}) needs; convert it with its own tokenizer.json"
            )
        return id

    def words(self, text: str) -> list[Word]:
        """The words of a text of any length, in their order; none overlap.

        The text is read in chunks that end where lines or sentences end, so memory stays bounded.
        """
        chunks = list(split(text, self.tokenizer, self._room))
        ids = self.tokenizer.encode_batch([text[chunk.start : chunk.end] for chunk in chunks])
        rows = [[self._first, *row, self._last] for row in ids]
        words: list[Word] = []
        for chunk, row, kept in zip(chunks, ids, self.probabilities(rows), strict=True):
            piece = text[chunk.start : chunk.end]
            tokens = (str(self.tokenizer.full.id_to_token(id)) for id in row)
            spans = _spans(piece, self.tokenizer.ends(piece))
            for word in _join(spans, kept[1:-1].tolist(), map(self.begins_word, tokens)):
                words.append(
                    Word(chunk.start + word.start, chunk.start + word.end, word.probability)
                )
        return words

    def probabilities(self, rows: Sequence[Sequence[int]]) -> list[Probabilities]:
        """For each input of token ids, its tokens' probabilities to be kept; in batches."""
        kept: list[Probabilities] = [np.empty(0, np.float32)] * len(rows)
        for batch in batches([len(row) for row in rows]):
            found = keep_probabilities(self.network, self.config, [rows[i] for i in batch])
            for number, row in zip(batch, found, strict=True):
                kept[number] = row
        return kept

    @property
    def begins_word(self) -> Callable[[str], bool]:
        """Whether a token begins a word, as published for this kind of encoder."""
        return _begins_bert_word if self.config.model_type == "bert" else _begins_roberta_word


def _begins_bert_word(token: str) -> bool:
    return not token.startswith("##")


def _begins_roberta_word(token: str) -> bool:
    # Several signs that follow one another in ASCII's order count, too, as published.
    return token.startswith("▁") or token in string.punctuation


def _spans(text: str, ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each token of a text stands, without the white space before it."""
    before = 0
    for end in ends:
        end = max(end, before)
        token = text[before:end]
        yield before + len(token) - len(token.lstrip()), end
        before = end


def _join(
    spans: Iterator[tuple[int, int]], probabilities: Sequence[float], begins: Iterator[bool]
) -> Iterator[Word]:
    """The words that tokens make up; one that covers no character is left out."""
    start = end = 0
    found: list[float] = []
    for (first, last), probability, is_first in zip(spans, probabilities, begins, strict=True):
        if is_first and found:
            if end > start:
                yield Word(start, end, sum(found) / len(found))
            found = []
        if not found or start == end:
            start = first
        found.append(probability)
        end = last
    if end > start:
        yield Word(start, end, sum(found) / len(found))
