"""A compressor of your own: one file, and one line of your package's pyproject.toml.

    [project.entry-points."clara_mlx.compressors"]
    first-lines = "first_lines:FirstLines"

It is then found by its name:

    clara-mlx flush --compressor first-lines
    clara-mlx evaluate --compressor first-lines --compressor extractive
"""

from __future__ import annotations

from clara_mlx.compressors.compressor import ESTIMATE, Tokens


class FirstLines:
    """Keeps the first lines of a text, as many whole ones as fit."""

    kind = "textual"  # it makes texts shorter; a latent one makes vectors
    name = "first-lines"  # as it is registered
    fingerprint = "first-lines 1"  # another rule or setting needs another one
    ratio = 4.0  # a memory stores a quarter of each chunk
    tokens = ESTIMATE  # counted as a token for four characters
    uses_question = False  # the result is the same whatever is asked

    def shorten(
        self, text: str, budget: int, tokens: Tokens, /, question: str | None = None
    ) -> str:
        """A text of at most ``budget`` tokens, as ``tokens`` counts them."""
        kept = ""
        for line in text.splitlines(keepends=True):
            if len(tokens.encode(kept + line)) > budget:
                break
            kept += line
        return kept


if __name__ == "__main__":  # python first_lines.py FILE
    import sys
    from pathlib import Path

    given = Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")
    print(FirstLines().shorten(given, len(ESTIMATE.encode(given)) // 4, ESTIMATE))
