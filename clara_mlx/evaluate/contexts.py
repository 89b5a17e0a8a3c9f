"""Text for the decoder to read in place of latents: all of it, or as much of it as fits."""

from __future__ import annotations

from clara_mlx.compressors.baselines import Bm25Lines
from clara_mlx.model.tokenizer import TextTokenizer

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
    """Makes these texts.

    Args:
        tokenizer: The decoder's.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer

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
                lines = Bm25Lines().shorten(text, budget, self._tokenizer, question=question)
                return self._tokenizer.encode(lines)
            case "nothing":
                return []
        raise ValueError(f"{way!r} is not a way to read; the ways are {', '.join(CONTEXTS)}")
