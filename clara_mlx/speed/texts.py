"""Texts with exactly as many tokens as a measurement asks for."""

from __future__ import annotations

from clara_mlx.model.tokenizer import TextTokenizer

#: A question, as an agent asks it.
QUESTION = "Which test failed, and on which line?"

_MODULES = ("io", "parser", "server", "cache", "network", "config", "routing", "storage")

# A text is looked for among so many cuts around the one that should have the right length.
_CUTS = 12

# Lines that one text begins after the other: no two that are compressed together are equal.
_STEP = 3


class Texts:
    """Makes texts that look like a test runner's output.

    Args:
        tokenizer: What tokens are counted by.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer

    def of(self, tokens: int, number: int = 0) -> tuple[str, int]:
        """The ``number``-th text of as many tokens as asked for, and how many it has.

        It has fewer if no cut of the text has exactly this many, and at least one.
        """
        text = _lines(number * _STEP, tokens)
        ends = self._tokenizer.ends(text)
        best = (text[: ends[0]], 1)
        for place in range(max(0, tokens - _CUTS), min(len(ends), tokens + _CUTS)):
            cut = text[: ends[place]]
            count = len(self._tokenizer.encode(cut))
            if best[1] < count <= tokens:
                best = (cut, count)
            if count == tokens:
                break
        return best


def _lines(first: int, count: int) -> str:
    """Lines that differ from all others, more than ``count`` tokens of them."""
    return "".join(
        f"tests/test_{_MODULES[n % len(_MODULES)]}.py::test_case_{n} "
        f"{'FAILED' if n % 3 else 'PASSED'} line {37 * n}: expected {n}, got {n + 1}\n"
        for n in range(first, first + 2 + count // 8)
    )
