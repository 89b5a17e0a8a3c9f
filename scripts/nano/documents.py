"""Documents for clara-nano: generated outputs, each within one chunk, with the probes inside it."""

from __future__ import annotations

import random
from dataclasses import replace

from clara_mlx.chunking import split
from clara_mlx.outputs.generate import LEFT_OUT, TOOLS, generate
from clara_mlx.outputs.probe import Output
from clara_mlx.tokenizer import TextTokenizer

LONG = 0.35  # share of documents that are chunks of long outputs
FULL = 0.6  # share of the others that are filled up
Document = tuple[Output, list[int]]  # and its token ids


class Documents:
    """Draws documents of one split.

    Args:
        tokenizer: clara-nano's.
        limit: tokens that a chunk holds.
        split: ``train``, or ``test`` for names and values that training never shows.
    """

    def __init__(self, tokenizer: TextTokenizer, limit: int, split: str = "train") -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        self.split = split
        self.tools = [tool for tool in TOOLS if tool != LEFT_OUT]

    def draw(self, rng: random.Random, full: float = FULL) -> Document:
        """A document of any trained tool with at least two probes.

        Args:
            rng: the only source of chance.
            full: share of the short outputs that are filled up.
        """
        while True:
            size = "long" if rng.random() < LONG else "short"
            output = generate(rng, rng.choice(self.tools), self.split, size, full=full)
            ids = self.tokenizer.encode(output.text)
            if len(ids) > self.limit:
                output = self._part(output, rng)
                ids = self.tokenizer.encode(output.text)
            if len(output.probes) > 1:
                return output, ids

    def _part(self, output: Output, rng: random.Random) -> Output:
        """One chunk of an output, with the probes whose evidence is in it."""
        parts = []
        for chunk in split(output.text, self.tokenizer, self.limit):
            inside = [
                replace(probe, start=probe.start - chunk.start, end=probe.end - chunk.start)
                for probe in output.probes
                if chunk.start <= probe.start and probe.end <= chunk.end
            ]
            parts.append(Output(output.tool, output.text[chunk.start : chunk.end], tuple(inside)))
        most = max(len(part.probes) for part in parts)
        return rng.choice([part for part in parts if len(part.probes) in (most, most - 1)])
