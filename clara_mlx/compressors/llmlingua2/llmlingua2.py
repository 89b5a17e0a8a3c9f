"""LlmLingua2: shortens texts by what an encoder would keep of them, never cutting a name apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from clara_mlx.compressors.compressor import Tokens
from clara_mlx.compressors.llmlingua2 import published
from clara_mlx.compressors.llmlingua2.folder import NAME, EncoderFolder
from clara_mlx.compressors.llmlingua2.published import Compression
from clara_mlx.compressors.llmlingua2.selection import choose
from clara_mlx.compressors.llmlingua2.units import render, runs, units
from clara_mlx.compressors.llmlingua2.words import Reader, Word
from clara_mlx.errors import ClaraError
from clara_mlx.model.folder import resolve
from clara_mlx.model.tokenizer import TextTokenizer
from clara_mlx.tool_outputs.undress import undress

Span = tuple[int, int]
"""Where something starts and ends in a text, in characters."""

#: Tokens of a text for each that a memory stores; the paper's results are at 2 to 5.
RATIO = 3.0

# Grows when the same encoder shortens a text to another one than before.
_RULE = 1


class Shortened(str):
    """A shortened text, which also knows what it was made of.

    Attributes:
        original: The text as it was given.
        kept: The parts of the original that it was made of, in their order; between two of them
            stands a space or a line feed.
        tokens: Its tokens, by what the budget was counted by.
    """

    original: str
    kept: tuple[Span, ...]
    tokens: int

    def __new__(  # noqa: D102
        cls, text: str, *, original: str, kept: Sequence[Span], tokens: int
    ) -> Shortened:
        self = super().__new__(cls, text)
        self.original = original
        self.kept = tuple(kept)
        self.tokens = tokens
        return self

    @property
    def dropped(self) -> tuple[Span, ...]:
        """The other parts of the original, in their order, but for those of white space only."""
        gaps: list[Span] = []
        last = 0
        for start, end in (*self.kept, (len(self.original), len(self.original))):
            if self.original[last:start].strip():
                gaps.append((last, start))
            last = max(last, end)
        return tuple(gaps)


def load(path_or_hub_id: str | Path) -> LlmLingua2:
    """Load a folder that ``clara-mlx convert`` made of an LLMLingua-2 checkpoint.

    Raises:
        CheckpointError: The folder can't be found, or is damaged; the message says which file.
    """
    folder = EncoderFolder.open(resolve(path_or_hub_id))
    reader = Reader(folder.config, folder.load_network(), folder.tokenizer())
    return LlmLingua2(reader, folder.fingerprint)


class LlmLingua2:
    """LLMLingua-2: an encoder rates each word of a text, and the best words are kept. See `load`.

    It is a `clara_mlx.compressors.compressor.TextualCompressor`. Not thread-safe: use it from one
    thread at a time, as `Clara`.

    Attributes:
        reader: The encoder with its tokenizer.
        tokenizer: The encoder's, which budgets are counted by where no other is given.
        fingerprint: Identifies checkpoint, quantisation and dtype, and the settings that texts are
            shortened with.
        ratio: Tokens of a text for each that a memory stores of it.
    """

    name: ClassVar[str] = NAME
    kind: ClassVar[Literal["textual"]] = "textual"
    uses_question: ClassVar[bool] = False

    def __init__(self, reader: Reader, fingerprint: str, *, ratio: float = RATIO) -> None:
        self.ratio = ratio
        self.fingerprint = _fingerprint_of(fingerprint, ratio)
        self.reader = reader

    @property
    def tokenizer(self) -> TextTokenizer:
        """The encoder's tokenizer."""
        return self.reader.tokenizer

    @property
    def tokens(self) -> TextTokenizer:
        """What a memory counts by: the encoder's tokenizer."""
        return self.tokenizer

    def words(self, text: str) -> list[Word]:
        """The words of a text of any length, with their places and probabilities to be kept."""
        return self.reader.words(text)

    def shorten(
        self,
        text: str,
        budget: int | None = None,
        tokens: Tokens | None = None,
        /,
        question: str | None = None,
        *,
        rate: float | None = None,
        target_tokens: int | None = None,
        force_tokens: Sequence[str] = (),
        keep_digits: bool = False,
        protect: bool = True,
    ) -> Shortened:
        """A text of at most a number of tokens that stands for a longer one.

        A text within the budget is returned as it is. Otherwise the budget is used up as far as
        whole words allow, and never exceeded. What is read, and returned, is the text as a reader
        sees it, without codes of a terminal and overwritten progress bars.

        Args:
            text: Any text, of any length.
            budget: The most tokens of the result; or give ``target_tokens`` or ``rate``.
            tokens: What tokens are counted by; the encoder's tokenizer if none is given.
            question: Not used; the encoder rates a text for any reader.
            rate: The budget as a share of the text's own tokens, from 0 to 1.
            target_tokens: The budget by its name.
            force_tokens: Strings that are kept before all else, with the words that they stand in.
            keep_digits: Whether words with digits are kept before others, too.
            protect: Whether identifiers (paths, tests, hashes, names of code) are kept or dropped
                whole, and before other words, and the ends of lines stay where lines are kept.

        Raises:
            ClaraError: Not exactly one budget is given, or it is out of range.
        """
        tokens = tokens or self.tokenizer
        before = len(tokens.encode(text))
        limit = _limit(before, budget, target_tokens, rate)
        if before <= limit:
            return Shortened(text, original=text, kept=[(0, len(text))], tokens=before)
        view = undress(text)
        found = units(
            view.text,
            self.words(view.text) if limit else (),
            force_tokens=force_tokens,
            keep_digits=keep_digits,
            protect=protect,
        )

        def render_units(numbers: Sequence[int]) -> str:
            return render(view.text, runs(found, numbers), lines=protect)

        kept = choose(view.text, found, limit, tokens, render_units) if limit else []
        shortened = render_units(kept)
        return Shortened(
            shortened,
            original=text,
            kept=[view.original_span(start, end) for start, end in runs(found, kept)],
            tokens=len(tokens.encode(shortened)),
        )

    def compress_prompt(
        self,
        context: str | Sequence[str],
        *,
        rate: float = 0.5,
        target_token: int = -1,
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        drop_consecutive: bool = False,
        tokens: Tokens | None = None,
    ) -> Compression:
        """What the package ``llmlingua`` gives for a prompt, with the names of its arguments.

        For comparisons and for those who come from it; see `published.compress_prompt`.
        """
        return published.compress_prompt(
            self.reader,
            [context] if isinstance(context, str) else context,
            rate=rate,
            target_token=target_token,
            force_tokens=force_tokens,
            force_reserve_digit=force_reserve_digit,
            drop_consecutive=drop_consecutive,
            tokens=tokens or self.tokenizer,
        )


def _fingerprint_of(checkpoint: str, ratio: float) -> str:
    """The hash that tells what a memory stores of a text from what another setting would."""
    identity = {"checkpoint": checkpoint, "ratio": ratio, "rule": _RULE}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _limit(tokens: int, budget: int | None, target: int | None, rate: float | None) -> int:
    """The budget in tokens, of whichever kind was given."""
    given = [value for value in (budget, target, rate) if value is not None]
    if len(given) != 1:
        raise ClaraError("give one budget: rate, or target_tokens")
    if rate is not None:
        if not 0 <= rate <= 1:
            raise ClaraError(f"rate must be from 0 to 1, not {rate}")
        return int(rate * tokens + 1e-9)  # 0.29 * 100 is a little less than 29
    limit = int(given[0])
    if limit < 0:
        raise ClaraError(f"a text can't have {limit} tokens; target_tokens must be 0 or more")
    return limit
