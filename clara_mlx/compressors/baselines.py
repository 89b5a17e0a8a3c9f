"""Compressors that cost nothing: what any other has to be better than."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import ClassVar, Literal

from clara_mlx.compressors.compressor import ESTIMATE, Tokens
from clara_mlx.compressors.fitting import both_ends, fits, lines_in_order
from clara_mlx.store import asked, words
from clara_mlx.store.driver import driver


class Verbatim:
    """The whole text, whatever the budget: what a reader knows who has all of it."""

    kind: ClassVar[Literal["textual"]] = "textual"
    name: ClassVar[str] = "verbatim"
    fingerprint: ClassVar[str] = "verbatim 1"
    ratio: ClassVar[float] = 1.0
    tokens: ClassVar[Tokens] = ESTIMATE
    uses_question: ClassVar[bool] = False

    def shorten(
        self, text: str, budget: int, tokens: Tokens, /, question: str | None = None
    ) -> str:
        """The text as it is."""
        return text


class HeadTail:
    """The beginning and the end of a text, where most outputs say what matters."""

    kind: ClassVar[Literal["textual"]] = "textual"
    name: ClassVar[str] = "head-tail"
    fingerprint: ClassVar[str] = "head-tail 1"
    ratio: ClassVar[float] = 4.0
    tokens: ClassVar[Tokens] = ESTIMATE
    uses_question: ClassVar[bool] = False

    def shorten(
        self, text: str, budget: int, tokens: Tokens, /, question: str | None = None
    ) -> str:
        """Both ends of the text, each with about half of the budget."""
        return both_ends(text, budget, tokens)


class Bm25Lines:
    """The lines that share words with a question, the rarest words first (SQLite's BM25)."""

    kind: ClassVar[Literal["textual"]] = "textual"
    name: ClassVar[str] = "bm25"
    fingerprint: ClassVar[str] = "bm25 1"
    ratio: ClassVar[float] = 4.0
    tokens: ClassVar[Tokens] = ESTIMATE
    uses_question: ClassVar[bool] = True

    def shorten(
        self, text: str, budget: int, tokens: Tokens, /, question: str | None = None
    ) -> str:
        """The best lines in the order of the text; lines without a match come last.

        Without a question, that is the beginning of the text.
        """
        if fits(text, budget, tokens):
            return text
        lines = [line for line in text.split("\n") if line.strip()]
        return lines_in_order(lines, _rank(lines, question or ""), budget, tokens)


def _rank(lines: Sequence[str], question: str) -> list[int]:
    """Numbers of all lines, best first; lines without a match come last, in their own order."""
    match = asked.query(question)
    ranked: dict[int, None] = {}
    if match is not None:
        with closing(driver().connect(":memory:")) as index:
            index.execute(
                "CREATE VIRTUAL TABLE lines USING fts5("
                "text, parts, tokenize = \"unicode61 tokenchars '_'\")"
            )
            index.executemany(
                "INSERT INTO lines (rowid, text, parts) VALUES (?, ?, ?)",
                (
                    (number, *words.columns(line.encode("utf-8", "replace").decode()))
                    for number, line in enumerate(lines)
                ),
            )
            rows = index.execute(
                "SELECT rowid FROM lines WHERE lines MATCH ? ORDER BY bm25(lines, 1.0, 0.5), rowid",
                (match,),
            )
            ranked = dict.fromkeys(row[0] for row in rows)
    return [*ranked, *(number for number in range(len(lines)) if number not in ranked)]
