"""Documents for clara-nano: generated outputs, each within one chunk, with the probes inside it."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from clara_mlx.chunking import split
from clara_mlx.outputs.generate import LEFT_OUT, TOOLS, generate
from clara_mlx.outputs.probe import Output, Probe, kind_of
from clara_mlx.tokenizer import TextTokenizer

LONG = 0.35  # share of documents that are chunks of long outputs
FULL = 0.6  # share of the others that are filled up
PIECE = re.compile(r"[A-Za-z0-9]{1,8}|[/._-]")  # of a drill's names and values
LINES = (2, 6)  # of a drill
KINDS = (4, 6, 10, 16, 1000)  # of tokens in a noise
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
        vocabulary = tokenizer.full.get_vocab()
        self.pieces = sorted({piece for piece in vocabulary if PIECE.fullmatch(piece)})
        self.printable = sorted(
            id for token, id in vocabulary.items() if not tokenizer.is_open(id) and len(token) < 12
        )

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

    def noise(self, rng: random.Random, least: int, most: int, plain: bool) -> Document:
        """Random tokens to be written out again: nothing but copying helps.

        Of realistic outputs alone, a small model learns their forms for thousands of steps
        before it learns to copy; of noise it learns that in 450. Unless it is plain, few tokens
        occur again and again, so that what stood before the last one has to be heeded, too.
        """
        kinds = self.printable if plain else rng.choices(self.printable, k=rng.choice(KINDS))
        ids = rng.choices(kinds, k=rng.randint(least, most))
        return Output("noise", self.tokenizer.decode(ids), ()), ids

    def drill(self, rng: random.Random, plain: bool) -> Document:
        """Lines of random names and values: the value has to be found and copied.

        Args:
            rng: the only source of chance.
            plain: all lines have one form and only values are asked for. Else some questions ask
                for the line: these are learned first, for the name is copied and what follows it
                is copied on. After them, plain drills are learned in 200 steps; before, or amid
                other tasks, not in a thousand.
        """
        text, probes = "", []
        names = rng.sample(self.pieces, rng.randint(*LINES))
        between = ": " if plain else rng.choice((" ", ": ", "=", " = "))
        for name in names:
            value = "".join(rng.choices(self.pieces, k=rng.randint(1, 2 if plain else 4)))
            line = f"{name}{between}{value}"
            end = len(text) + len(line)
            question, answer = f"{name}?", value
            if not plain and rng.random() < 0.4:
                question, answer = f"Which line has {name}?", line
            elif not plain and rng.random() < 0.5:
                question = f"What is {name}?"
            probes.append(Probe(question, answer, kind_of(answer), end - len(answer), end))
            text += f"{line}\n"
        output = Output("drill", text, tuple(probes))
        return output, self.tokenizer.encode(text)

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
