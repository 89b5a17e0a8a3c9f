"""The algorithm as the package ``llmlingua`` (0.2.2) carries it out, for those who compare.

`clara_mlx.compressors.llmlingua2.llmlingua2.LlmLingua2.shorten` is the one to use: this one is
approximate by design. It decides chunk by chunk, by a percentile; its result is put together from
tokens, so that spaces, lines and unusual characters are lost.

What the package does that looks wrong is done here, too, because its results depend on it:

- chunks begin and end with ``[CLS]`` and ``[SEP]`` for XLM-RoBERTa, too, whose vocabulary does not
  have them: both are read as unknown (its issue 181);
- a chunk is turned into a string and read again, and what then exceeds 512 positions is cut;
- special tokens in a text, and what the vocabulary does not have, are lost;
- a forced string of several tokens becomes a new token whose embedding is the mean of all;
- the percentile of a chunk counts each word as often as the prompt's tokenizer has tokens for it,
  with the ``▁`` before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import AddedToken, Tokenizer

from clara_mlx.compressors.compressor import Tokens
from clara_mlx.compressors.llmlingua2.encoder import TokenClassifier
from clara_mlx.compressors.llmlingua2.words import CHUNK_POSITIONS, Reader
from clara_mlx.errors import ClaraError
from clara_mlx.model.encoder import MemoryTokenEmbedding

# The most forced strings.
_MOST_FORCED = 100

# Rows of the table of embeddings that are added up at once.
_BLOCK_ROWS = 1 << 14

# Tokens at which a chunk may end before it is full.
_CHUNK_ENDS = (".", "\n")


@dataclass(frozen=True)
class Compression:
    """A compressed prompt, and which of its words were kept; at a rate of 1 it has no words."""

    text: str
    words: tuple[str, ...] = ()
    kept: tuple[bool, ...] = ()  # of each word
    probabilities: tuple[float, ...] = ()  # of each word


def compress_prompt(
    reader: Reader,
    contexts: Sequence[str],
    *,
    rate: float,
    target_token: int,
    force_tokens: Sequence[str],
    force_reserve_digit: bool,
    drop_consecutive: bool,
    tokens: Tokens,
) -> Compression:
    """Compress texts as the package's ``compress_prompt`` does without its filter of contexts.

    Args:
        reader: The encoder.
        contexts: The texts, which the result has with an empty line between them.
        rate: About the share of tokens that are kept.
        target_token: About the number of tokens that are kept, instead of ``rate``, if positive.
        force_tokens: Strings that are kept.
        force_reserve_digit: Whether tokens with digits count as certain.
        drop_consecutive: Whether forced strings that follow each other are dropped.
        tokens: What tokens are counted by; the package has GPT-3.5's tokenizer here.

    Raises:
        ClaraError: There are too many forced strings, or nothing would be kept.
    """
    if len(force_tokens) > _MOST_FORCED:
        raise ClaraError(f"at most {_MOST_FORCED} strings can be forced, not {len(force_tokens)}")
    if target_token > 0:
        whole = sum(len(tokens.encode(text)) for text in contexts)
        rate = min(target_token / max(whole, 1), 1.0)
    if rate <= 0:
        raise ClaraError(f"rate must be above 0, not {rate}")
    prompt = _Prompt(reader, force_tokens)
    chunks = [list(prompt.chunks(text)) for text in contexts]
    reduce_rate = max(0, 1 - rate)
    if reduce_rate <= 0:
        return Compression("\n\n".join(prompt.restore("".join(pieces)) for pieces in chunks))
    settings = _Settings(reduce_rate, drop_consecutive, tokens)
    read = iter(prompt.read([chunk for pieces in chunks for chunk in pieces]))
    texts: list[str] = []
    words: list[str] = []
    kept: list[bool] = []
    rated: list[float] = []
    for pieces in chunks:
        texts.append("")
        for _ in pieces:
            chunk_tokens, probabilities = next(read)
            its_words = prompt.words(chunk_tokens, probabilities, keep_digits=force_reserve_digit)
            its_kept = _select(its_words, prompt.forced, settings)
            texts[-1] += prompt.join(
                [word.text for word, is_kept in zip(its_words, its_kept, strict=True) if is_kept]
            )
            words += [prompt.without_space(word.text) for word in its_words]
            kept += its_kept
            rated += [float(word.probability) for word in its_words]
    return Compression("\n\n".join(texts), tuple(words), tuple(kept), tuple(rated))


@dataclass(frozen=True)
class _Settings:
    reduce_rate: float
    drop_consecutive: bool
    tokens: Tokens


@dataclass(frozen=True)
class _Word:
    text: str
    probability: Any  # numpy's float32, or 1.0: their rounding decides as in the package


class _Prompt:
    """A reader's tokenizer and encoder with the new tokens of one prompt's forced strings."""

    def __init__(self, reader: Reader, force_tokens: Sequence[str]) -> None:
        self._reader = reader
        self._is_roberta = reader.config.model_type == "xlm-roberta"
        self._tokenizer = Tokenizer.from_str(reader.tokenizer.full.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special = {
            token.content
            for token in self._tokenizer.get_added_tokens_decoder().values()
            if token.special and not token.content.startswith("[NEW")
        }
        self.forced = list(force_tokens)
        self._new = self._add_tokens()  # by the string that each stands for
        self._unknown = reader.id_of("<unk>" if self._is_roberta else "[UNK]")

    def _add_tokens(self) -> Mapping[str, str]:
        """Give each forced string of several tokens a token of its own."""
        several = [
            (number, text)
            for number, text in enumerate(self.forced)
            if len(self._tokens(text)) != 1
        ]
        names = [f"[NEW{number}]" for number in range(_MOST_FORCED)]
        self._tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
        return {text: names[number] for number, text in several}

    def _tokens(self, text: str) -> list[str]:
        return self._tokenizer.encode(text, add_special_tokens=False).tokens

    def chunks(self, text: str) -> Iterator[str]:
        """A text as chunks, each a string that was put together from its tokens."""
        for forced, name in self._new.items():
            text = text.replace(forced, name)
        ends = {*_CHUNK_ENDS, *(self._new[end] for end in _CHUNK_ENDS if end in self._new)}
        tokens = self._tokens(text)
        room = CHUNK_POSITIONS - 2
        start = 0
        while start < len(tokens):
            end = start + room
            if end > len(tokens) - 1:
                yield self.join(tokens[start:])
                return
            end = next((i for i in range(end, start, -1) if tokens[i] in ends), end)
            yield self.join(tokens[start : end + 1])
            start = end + 1

    def join(self, tokens: Sequence[str]) -> str:
        """The string that tokens make, by the tokenizer's decoder."""
        return self._tokenizer.decoder.decode(list(tokens)) if tokens else ""

    def restore(self, text: str) -> str:
        """A text with forced strings in place of the tokens that stood for them."""
        for forced, name in self._new.items():
            text = text.replace(name, forced)
        return text

    def without_space(self, word: str) -> str:
        """A word as it is listed."""
        return word.lstrip("▁") if self._is_roberta else word

    def read(self, chunks: Sequence[str]) -> list[tuple[list[str], np.ndarray[Any, Any]]]:
        """The tokens of each chunk with those around it, and their probabilities."""
        known = self._reader.config.vocab_size
        rows = []
        for chunk in chunks:
            tokens = ["[CLS]", *self._tokens(chunk), "[SEP]"][:CHUNK_POSITIONS]
            ids = (self._tokenizer.token_to_id(token) for token in tokens)
            rows.append([self._unknown if id is None else id for id in ids])
        with _new_rows(self._reader.network, needed=any(max(row) >= known for row in rows)):
            probabilities = self._reader.probabilities(rows)
        return [
            ([str(self._tokenizer.id_to_token(id)) for id in row], kept)
            for row, kept in zip(rows, probabilities, strict=True)
        ]

    def words(
        self, tokens: Sequence[str], probabilities: Iterable[Any], *, keep_digits: bool
    ) -> list[_Word]:
        """The words of a chunk's tokens, each with the mean probability of its tokens."""
        new = set(self._new.values())
        words: list[str] = []
        found: list[list[Any]] = []
        for token, probability in zip(tokens, probabilities, strict=True):
            if token in self._special:
                continue
            bare = token.lstrip("▁" if self._is_roberta else "#")
            named = token if self._is_roberta else bare
            if self._reader.begins_word(token) or named in self.forced or named in new or not words:
                if bare in self.forced or bare in new:
                    probability = 1.0
                words.append(self.restore(token))
                found.append([])
            else:
                words[-1] += bare
            has_digit = keep_digits and any(map(str.isdecimal, token))
            found[-1].append(1.0 if has_digit else probability)
        return [_Word(word, sum(p) / len(p)) for word, p in zip(words, found, strict=True)]


def _select(words: Sequence[_Word], forced: Sequence[str], settings: _Settings) -> list[bool]:
    """Which words of a chunk are kept: those above a percentile of its tokens' probabilities."""
    probabilities = [word.probability for word in words]
    if not words:
        return []
    if settings.drop_consecutive:
        _lower_repeated(words, probabilities, forced, settings.reduce_rate)
    by_token: list[Any] = []
    for word, probability in zip(words, probabilities, strict=True):
        by_token += [probability] * len(settings.tokens.encode(word.text))
    if not by_token:
        return [False] * len(words)
    threshold = np.percentile(by_token, int(100 * settings.reduce_rate + 1))
    kept: list[bool] = []
    last: str | None = None  # of the words that are kept
    for word, probability in zip(words, probabilities, strict=True):
        is_kept = probability > threshold or (threshold == 1.0 and probability == threshold)
        if is_kept and settings.drop_consecutive and word.text in forced and word.text == last:
            is_kept = False
        if is_kept:
            last = word.text
        kept.append(bool(is_kept))
    return kept


def _lower_repeated(
    words: Sequence[_Word], probabilities: list[Any], forced: Sequence[str], reduce_rate: float
) -> None:
    """Set the probability of a forced word to 0 if it repeats the one before with nothing between.

    Only words above a percentile count as something between.
    """
    threshold = np.percentile(probabilities, int(100 * reduce_rate))
    has_word_between = False
    last: str | None = None
    for number, word in enumerate(words):
        if word.text not in forced:
            has_word_between |= bool(probabilities[number] > threshold)
            continue
        if has_word_between:
            has_word_between = False
        elif word.text == last:
            probabilities[number] = 0.0
        last = word.text


@contextmanager
def _new_rows(network: TokenClassifier, *, needed: bool) -> Iterator[None]:
    """Give an encoder rows for new tokens while the block runs, if it needs them.

    transformers draws new rows from a normal distribution around the mean of all rows, with a
    billionth of their covariance; here each is the mean.
    """
    table: Any = network.embeddings.tokens
    if needed:
        rows = table.weight.shape[0]
        blocks = [mx.arange(i, min(i + _BLOCK_ROWS, rows)) for i in range(0, rows, _BLOCK_ROWS)]
        total = mx.zeros(())
        for block in blocks:
            total = total + table(block).astype(mx.float32).sum(0)
            mx.eval(total)
        mean = mx.broadcast_to(total / rows, (_MOST_FORCED, total.shape[-1]))
        dtype = network.embeddings.norm.weight.dtype
        network.embeddings.tokens = MemoryTokenEmbedding(table, mean, rows, dtype)
    try:
        yield
    finally:
        network.embeddings.tokens = table
