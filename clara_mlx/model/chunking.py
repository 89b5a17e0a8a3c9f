"""Any text, of any length, as chunks of at most ``limit`` tokens whose spans cover it exactly."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clara_mlx.errors import ClaraError

if TYPE_CHECKING:  # a text that is cut by its characters needs no tokenizer
    from clara_mlx.model.tokenizer import TextTokenizer

# A text is tokenised in blocks: a BPE without a pre-tokenizer needs about 180 bytes per character.
# A block is longer than any chunk, so this is a minimum.
BLOCK_CHARACTERS = 1 << 15

# A piece tokenised alone can have a token or two more than inside its block: merges across the cut
# are gone, and a leading space is added.
SLACK = 2

# Where a chunk may end, best first, and how full it must be for that place to be taken: a blank
# line near the start is worth less than a line break near the end.
_BOUNDARIES = (
    (re.compile(r"\n(?:[ \t\r]*\n)+"), 1 / 2),  # blank lines
    (re.compile(r"\n"), 1 / 4),  # lines
    (re.compile(r"\s+"), 1 / 4),  # words
)


@dataclass(frozen=True)
class Chunk:
    """A piece of a text: ``text[start:end]``, which alone has ``tokens`` tokens."""

    start: int
    end: int
    tokens: int


def split(text: str, tokenizer: TextTokenizer, limit: int) -> Iterator[Chunk]:
    """Cut a text into chunks of at most ``limit`` tokens, at natural boundaries.

    Boundaries are blank lines, then lines, then words, then tokens; a boundary's white space stays
    with the chunk before it. ``text[chunk.start:chunk.end]`` over all chunks is the whole text; an
    empty text has no chunks. Works through the text in blocks, so memory stays bounded.

    Raises:
        ClaraError: A single character has more than ``limit`` tokens.
    """
    size = max(BLOCK_CHARACTERS, (limit + 1) * tokenizer.longest_token)
    start = 0
    while start < len(text):
        block = text[start : start + size]
        is_last = start + len(block) == len(text)
        cuts = _cuts(block, tokenizer.ends(block), limit, is_last)
        yield from _within_limit(text, start, cuts, tokenizer, limit)
        start += cuts[-1]


def _cuts(text: str, token_ends: list[int], limit: int, is_last: bool) -> list[int]:
    """Ends of successive chunks of a block, at least one; those of the last block cover it."""
    if is_last and len(token_ends) <= limit:
        return [len(text)]
    room = max(1, limit - SLACK)
    cuts: list[int] = []
    start = 0
    while start < len(text):
        first = bisect_right(token_ends, start)  # tokens that end after the chunk's start
        ends = token_ends[first : first + room + 1]
        if len(ends) <= room:
            if is_last or not cuts:
                cuts.append(len(text))
            break  # the rest belongs to the next block's first chunk
        # The last token doesn't fit; it may share its character with those before.
        whole = bisect_left(ends, ends[-1])
        end = ends[whole - 1] if whole else start + 1
        start = _boundary(text, start, end, [ends[int(room * full)] for _, full in _BOUNDARIES])
        cuts.append(start)
    return cuts


def _boundary(text: str, start: int, end: int, least: list[int]) -> int:
    """The best place to end a chunk that starts at ``start``, no later than ``end``.

    ``least`` has, for each kind of boundary, the position from which the chunk is full enough.
    """
    for (pattern, _), enough in zip(_BOUNDARIES, least, strict=True):
        places = [m.end() for m in pattern.finditer(text, start, end) if m.end() >= enough]
        if places:
            return places[-1]
    return end


def _within_limit(
    text: str, start: int, cuts: list[int], tokenizer: TextTokenizer, limit: int
) -> Iterator[Chunk]:
    """Chunks with the token counts they have alone; one that exceeds the limit is halved."""
    starts = [start, *(start + cut for cut in cuts[:-1])]
    pieces = [(a, start + cut) for a, cut in zip(starts, cuts, strict=True)]
    counts = [len(ids) for ids in tokenizer.encode_batch([text[a:b] for a, b in pieces])]
    for (a, b), count in zip(pieces, counts, strict=True):
        if count <= limit:
            yield Chunk(a, b, count)
        elif b - a == 1:
            raise ClaraError(
                f"character {a} ({text[a:b]!r}) alone has {count} tokens, but a chunk holds {limit}"
            )
        else:
            middle = (a + b + 1) // 2
            half = _boundary(text, a, middle, [(a + middle + 1) // 2] * len(_BOUNDARIES))
            yield from _within_limit(text, a, [half - a, b - a], tokenizer, limit)


def split_characters(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """Spans of at most ``limit`` characters, at the same boundaries, if there is no tokenizer."""
    start = 0
    while start < len(text):
        end = min(start + limit, len(text))
        if end < len(text):
            least = [start + max(1, int(limit * full)) for _, full in _BOUNDARIES]
            end = _boundary(text, start, end, least)
        yield start, end
        start = end
