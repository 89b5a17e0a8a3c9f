"""Documents for clara-nano: brief outputs of tools, and noise, which teaches to copy."""

from __future__ import annotations

import random

from clara_mlx.evaluate.corpus import BRIEF_TOOLS, generate
from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.evaluate.queries import compose, distinctive, names_in
from clara_mlx.model.tokenizer import TextTokenizer

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
        vocabulary = tokenizer.full.get_vocab()
        self.printable = sorted(
            id for token, id in vocabulary.items() if not tokenizer.is_open(id) and len(token) < 12
        )

    def draw(self, rng: random.Random) -> Document:
        """A brief output, in one chunk, with at least two probes."""
        while True:
            output = generate(rng, rng.choice(BRIEF_TOOLS), self.split, "brief")
            ids = self.tokenizer.encode(output.text)
            if len(ids) <= self.limit and len(output.probes) > 1:
                return output, ids

    def noise(self, rng: random.Random, least: int, most: int, repeated: bool) -> Document:
        """Random tokens to be written out again: nothing but copying helps.

        Of realistic outputs alone, a small model learns their forms for thousands of steps
        before it learns to copy; of noise it learns that in 300.

        Args:
            rng: the only source of chance.
            least: tokens, at least.
            most: tokens, at most.
            repeated: few kinds of tokens occur again and again, so that what stood before the last
                one has to be heeded, too.
        """
        kinds = rng.choices(self.printable, k=rng.choice(KINDS)) if repeated else self.printable
        ids = rng.choices(kinds, k=rng.randint(least, most))
        return Output("noise", self.tokenizer.decode(ids), ()), ids


def named(output: Output, probe: Probe, rng: random.Random, *, unique: bool = False) -> str:
    """The question with a name of its document, as evaluation and good users ask a memory.

    Args:
        output: the document.
        probe: of it.
        rng: the only source of chance.
        unique: choose an identifier or a path if there is one, which hardly another document has.
    """
    usable = sorted(
        name
        for name in names_in(output.text)
        if name not in probe.answer and probe.answer not in name and name not in probe.question
    )
    if not usable:
        return probe.question
    return compose(
        probe.question, output.tool, rng.choice(distinctive(usable) if unique else usable)
    )
