"""Text for the decoder to read in place of latents: all of it, or as much of it as fits."""

from __future__ import annotations

from clara_mlx.model.tokenizer import TextTokenizer
from clara_mlx.store import asked, words
from clara_mlx.store.driver import driver

#: The ways to read text, as a report prints them. The budget is the number of decoder positions
#: that the latents of the same chunks take, including ``<SEP>``.
CONTEXTS = {
    "text": "the chunk's whole text, read by the same decoder",
    "head": "the first tokens of the chunk, as many as its latents take positions",
    "tail": "the last tokens of the chunk, the same number",
    "bm25": (
        "the chunk's lines that match the question best (SQLite FTS5, lines without a match last), "
        "in their own order, up to the same number of tokens; the line that exceeds it is cut"
    ),
    "nothing": "the question alone",
}


class Contexts:
    """Makes these texts with a full-text index in memory, which must be closed."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._index = driver().connect(":memory:")
        self._index.execute(
            "CREATE VIRTUAL TABLE lines USING fts5("
            "text, parts, tokenize = \"unicode61 tokenchars '_'\")"
        )

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def ids(self, way: str, text: str, question: str, budget: int) -> list[int]:
        """Token ids of what the decoder reads of a text, in one of the ways of `CONTEXTS`.

        Args:
            way: A key of `CONTEXTS`.
            text: The text of the chunks that hold the evidence.
            question: The question, which decides which lines ``bm25`` reads.
            budget: Largest number of ids; ``text`` ignores it.
        """
        match way:
            case "text":
                return self._tokenizer.encode(text)
            case "head":
                return self._tokenizer.encode(text)[:budget]
            case "tail":
                return self._tokenizer.encode(text)[-budget:]
            case "bm25":
                return self._best_lines(text, question, budget)
            case "nothing":
                return []
        raise ValueError(f"{way!r} is not a way to read; the ways are {', '.join(CONTEXTS)}")

    def _best_lines(self, text: str, question: str, budget: int) -> list[int]:
        """Ids of the lines that match the question best, in the order of the text.

        The line that exceeds the budget is cut to the longest beginning that still fits.
        """
        lines = [line for line in text.split("\n") if line.strip()]
        chosen: dict[int, str] = {}
        ids: list[int] = []
        for number in self._rank_lines(lines, question):
            with_all = self._encode_lines({**chosen, number: lines[number]})
            if len(with_all) <= budget:
                chosen[number] = lines[number]
                ids = with_all
                continue
            for end in reversed(self._tokenizer.ends(lines[number])):
                part = self._encode_lines({**chosen, number: lines[number][:end]})
                if len(part) <= budget:
                    return part
            break
        return ids

    def _encode_lines(self, lines: dict[int, str]) -> list[int]:
        return self._tokenizer.encode("\n".join(lines[number] for number in sorted(lines)))

    def _rank_lines(self, lines: list[str], question: str) -> list[int]:
        """Numbers of all lines, best first; lines without a match come last, in their own order."""
        self._index.execute("DELETE FROM lines")
        for number, line in enumerate(lines):
            readable = line.encode("utf-8", "replace").decode()
            self._index.execute(
                "INSERT INTO lines (rowid, text, parts) VALUES (?, ?, ?)",
                (number, *words.columns(readable)),
            )
        match = asked.query(question)
        ranked: list[int] = []
        if match is not None:
            rows = self._index.execute(
                "SELECT rowid FROM lines WHERE lines MATCH ? ORDER BY bm25(lines, 1.0, 0.5), rowid",
                (match,),
            )
            ranked = [row[0] for row in rows]
        return ranked + [number for number in range(len(lines)) if number not in ranked]
