"""Chunks: spans that cover the text exactly, within the limit, ending where a reader would cut."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hostile_texts import HOSTILE, anything
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers_of_all_kinds import GOLDEN_JSON, KINDS, tokenizer

from clara_mlx.errors import ClaraError
from clara_mlx.model import chunking
from clara_mlx.model.chunking import Chunk, split
from clara_mlx.model.tokenizer import TextTokenizer

#: For the long-line test; 50 takes half a minute for each kind of line.
MEGABYTES = float(os.environ.get("CLARA_LONG_LINE_MB", "1"))

SOURCE_CODE = Path(argparse.__file__).read_text(encoding="utf-8")
PROSE = "The stale cache service must flush every socket before the ledger is closed. " * 200

BREAKS = ["\n", "\n\n", "\r\n", "\r\n\r\n", " \n\t\n", "    ", "\t", "\u2028"]
WORDLIKE = ["word", "two words ", "====", "x" * 30, "数据", "🚀🎉", "👨‍👩‍👧", "\ud83d", "\0"]
_pieces = st.sampled_from([*BREAKS, *WORDLIKE])
#: Long texts of runs of pieces, and anything.
texts = st.one_of(
    anything,
    st.lists(st.tuples(_pieces, st.integers(1, 40)), max_size=12).map(
        lambda runs: "".join(piece * count for piece, count in runs)
    ),
)


def chunk(text: str, limit: int, texts: TextTokenizer | None = None) -> list[Chunk]:
    """The chunks of a text, after checking what holds for every text."""
    texts = texts or tokenizer()
    chunks = list(split(text, texts, limit))
    edges = [0, *(chunk.end for chunk in chunks)]
    assert [chunk.start for chunk in chunks] == edges[:-1]
    assert edges[-1] == len(text)
    assert all(a < b for a, b in pairwise(edges))
    for piece in chunks:
        assert piece.tokens == len(texts.encode(text[piece.start : piece.end])) <= limit
    return chunks


def cut(text: str, limit: int) -> list[str]:
    return [text[piece.start : piece.end] for piece in chunk(text, limit)]


# -- any text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [5, 16, 64, 256])
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(text=texts)
@example(text="")
@example(text=HOSTILE["joined emoji"])
@example(text=HOSTILE["long white space"])
def test_spans_cover_any_text_within_the_limit(kind: str, limit: int, text: str) -> None:
    chunks = chunk(text, limit, tokenizer(kind))
    if len(tokenizer(kind).encode(text)) <= limit:
        assert len(chunks) == bool(text)


@settings(deadline=None, max_examples=60)
@given(text=texts, limit=st.sampled_from([5, 16]))
def test_the_same_holds_where_blocks_meet(text: str, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "BLOCK_CHARACTERS", 1)  # blocks of little more than a chunk
        chunks = chunk(text, limit)
    if len(tokenizer().encode(text)) <= limit:
        assert len(chunks) == bool(text)


def test_blocks_leave_no_trace() -> None:
    text = SOURCE_CODE + PROSE
    assert len(text) > 3 * chunking.BLOCK_CHARACTERS
    in_blocks = chunk(text, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "BLOCK_CHARACTERS", len(text))
        assert chunk(text, 64) == in_blocks


def test_a_text_longer_than_a_block_is_one_chunk_if_it_fits() -> None:
    text = " " * (8 * 8000)  # 8 spaces are one token
    assert len(text) > chunking.BLOCK_CHARACTERS
    assert len(chunk(text, 8001)) == 1
    assert len(chunk(text, 8000)) == 2


def test_a_character_that_no_chunk_can_hold_is_an_error() -> None:
    assert len(chunk("🚀" * 3, 5)) == 3  # a space symbol and four bytes each
    with pytest.raises(ClaraError, match=r"character 2 \('🚀'\) alone has 5 tokens.*holds 4"):
        list(split("ab🚀", tokenizer(), 4))


class Growing(TextTokenizer):
    """A piece alone has two tokens per character; inside its text it seemed to have one."""

    longest_token = 1

    def __init__(self) -> None:
        pass

    def ends(self, text: str) -> list[int]:
        return list(range(1, len(text) + 1))

    def encode(self, text: str) -> list[int]:
        return [0] * (2 * len(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


def test_a_piece_that_grows_when_it_stands_alone_is_cut_again() -> None:
    chunks = chunk("ab cd efgh ijklmnopqr" * 9, 16, Growing())
    assert all(piece.tokens >= 4 for piece in chunks)


# -- natural boundaries --------------------------------------------------------------------------

LINE = "the service failed while it read the index of shard seven\n"  # 24 tokens
PARAGRAPH = LINE * 2
WORDS = "the service failed while it read the index " * 9


@pytest.mark.parametrize("blank", ["\n", "\r\n", " \t\n", "\n\n\n", "\n \n"])
def test_blank_lines_come_before_lines(blank: str) -> None:
    paragraph = f"the cache\n{PARAGRAPH}{blank}"  # a chunk has room for the next one's first line
    assert cut(paragraph * 9, 72) == [paragraph] * 9


def test_lines_come_before_words() -> None:
    assert cut(LINE * 10, 72) == [LINE * 2] * 5
    # Indentation stays with the line that it belongs to.
    assert cut(f"    {LINE}" * 10, 72) == [f"    {LINE}" * 2] * 5


def test_words_come_before_tokens() -> None:
    pieces = cut(PROSE, 64)
    assert all(piece.endswith(" ") for piece in pieces)
    assert not any(piece.startswith(" ") for piece in pieces)


def test_tokens_come_last() -> None:
    chunks = chunk("abcdef0123456789" * 100, 64)
    assert all(piece.tokens >= 62 for piece in chunks[:-1])


@pytest.mark.parametrize("boundary", ["\n\n", "\n", " "])
@pytest.mark.parametrize("rest", [WORDS, "x" * 1000])
def test_a_boundary_near_the_start_does_not_make_a_small_chunk(boundary: str, rest: str) -> None:
    first = cut(f"Title{boundary}{rest}", 72)[0]
    assert len(tokenizer().encode(first)) > 60


def test_a_good_boundary_early_against_a_poor_one_late() -> None:
    # A blank line after two thirds beats the line break after it, ...
    assert cut(f"{PARAGRAPH}\nthe cache\n{WORDS}", 72)[0] == f"{PARAGRAPH}\n"
    # ... but a blank line after one third does not.
    assert cut(f"{LINE}\n{LINE}{WORDS}", 72)[0] == f"{LINE}\n{LINE}"
    # A line break after one third beats words.
    assert cut(f"{LINE}{WORDS}", 72)[0] == LINE


@pytest.mark.parametrize(
    ("text", "limit", "least"),
    [
        (PROSE, 256, 0.95),
        (PROSE, 64, 0.85),
        (SOURCE_CODE, 256, 0.75),
        (SOURCE_CODE, 64, 0.65),
        ("数据服务🚀" * 2000, 256, 0.95),
    ],
)
def test_chunks_are_well_filled(text: str, limit: int, least: float) -> None:
    counts = [piece.tokens for piece in chunk(text, limit)[:-1]]
    assert sum(counts) >= least * limit * len(counts)
    assert min(counts) >= limit // 4 - 1


# -- fifty megabytes -----------------------------------------------------------------------------

CHILD = """
import base64, pathlib, random, resource, sys
from clara_mlx.model.chunking import split
from clara_mlx.model.tokenizer import TextTokenizer

kind, size = sys.argv[1], int(sys.argv[2])
tokenizer = TextTokenizer(sys.stdin.read())
if kind == "words":
    text = ("every worker flushes the cache and closes its socket " * (size // 50))[:size]
elif kind == "no spaces":
    text = base64.b64encode(random.Random(0).randbytes(size * 3 // 4)).decode()
else:
    text = "a" * size
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
end = 0
for chunk in split(text, tokenizer, 256):
    assert chunk.start == end and 0 < chunk.tokens <= 256
    end = chunk.end
assert end == len(text) >= size - 4
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", ["words", "no spaces", "one character"])
def test_a_very_long_line_takes_little_memory(kind: str) -> None:
    """Tokenised as a whole it would take 180 bytes a character."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, kind, str(int(MEGABYTES * 1e6))],
        input=GOLDEN_JSON,
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    assert int(child.stdout) * unit < 100e6
