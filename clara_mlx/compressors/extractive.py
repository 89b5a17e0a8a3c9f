"""Our own block as a compressor: how a run went, exact identifiers, and the lines asked for.

The gateway freezes the same lines (`clara_mlx.context.wording`), with a handle and a heading.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from clara_mlx.compressors.compressor import ESTIMATE, Tokens
from clara_mlx.compressors.fitting import both_ends, count, fits
from clara_mlx.compressors.ranking import best_lines
from clara_mlx.tool_outputs.identifier_lines import identifier_lines
from clara_mlx.tool_outputs.outcomes import key_lines
from clara_mlx.tool_outputs.quoting import exact_line
from clara_mlx.tool_outputs.undress import undress

# The share of a budget that the lines a question is about may take; the outcome and the
# identifiers have the rest, for what the question does not name.
_ASKED_FOR = 0.75

# The fewest tokens left over that both ends of the text are worth.
_LEAST_EXCERPT = 24


class Extractive:
    """Exact lines of a text: those a question is about, its outcome, its identifiers, its ends."""

    kind: ClassVar[Literal["textual"]] = "textual"
    name: ClassVar[str] = "extractive"
    fingerprint: ClassVar[str] = "extractive 1"
    ratio: ClassVar[float] = 4.0
    tokens: ClassVar[Tokens] = ESTIMATE
    uses_question: ClassVar[bool] = True

    def shorten(
        self, text: str, budget: int, tokens: Tokens, /, question: str | None = None
    ) -> str:
        """What the reader most likely needs of a text, a line for each thing."""
        if fits(text, budget, tokens):
            return text
        # Lines are chosen by characters and then counted, as counting each would take long.
        characters = int(budget * len(text) / count(text, tokens))
        kept: list[str] = []
        used = 0
        for line in self._lines(text, characters, question):
            size = count(f"{line}\n", tokens)
            if used + size <= budget:
                kept.append(line)
                used += size
        if budget - used >= _LEAST_EXCERPT:
            kept.append(both_ends(text, budget - used, tokens))
        while kept and not fits("\n".join(kept), budget, tokens):
            kept.pop()
        return "\n".join(kept) or both_ends(text, budget, tokens)

    def _lines(self, text: str, characters: int, question: str | None) -> Iterator[str]:
        """The lines of the block, what matters most first."""
        said: dict[str, None] = {}
        if question:
            lines = [line for line in undress(text).text.split("\n") if line.strip()]
            best = best_lines(lines, question, int(_ASKED_FOR * characters))
            said = dict.fromkeys(exact_line(lines[index]) for index in sorted(best))
            yield from said
        for line in key_lines(text):
            if not any(line in other for other in said):
                said[line] = None
                yield line
        shown = "\n".join(said)
        yield from identifier_lines(text, max(0, characters - len(shown)), shown)
