"""Documents for clara-nano: brief outputs of tools, and noise, which teaches the model to copy."""

from __future__ import annotations

import random

from clara_mlx.evaluate.corpus import BRIEF_TOOLS, generate
from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.evaluate.queries import compose, distinctive, names_in
from clara_mlx.model.tokenizer import TextTokenizer

KINDS = (4, 6, 10, 16, 1000)  # numbers of different tokens that a noise document may have
Document = tuple[Output, list[int]]  # an output and its token ids


class Documents:
    """Draws documents of one split.

    Args:
        tokenizer: clara-nano's tokenizer.
        limit: Number of tokens that a chunk holds.
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
        """Draw a brief output that fits one chunk and has at least two probes."""
        while True:
            output = generate(rng, rng.choice(BRIEF_TOOLS), self.split, "brief")
            ids = self.tokenizer.encode(output.text)
            if len(ids) <= self.limit and len(output.probes) > 1:
                return output, ids

    def draw_noise(self, rng: random.Random, least: int, most: int, repeated: bool) -> Document:
        """Draw random tokens to be written out again, which only copying can do.

        From realistic outputs alone, a small model learns their forms for thousands of steps
        before it learns to copy; from noise it learns to copy in 300 steps.

        Args:
            rng: The only source of chance.
            least: Least number of tokens.
            most: Greatest number of tokens.
            repeated: Repeat tokens of few kinds, so that the last token alone does not tell which
                one comes next.
        """
        kinds = rng.choices(self.printable, k=rng.choice(KINDS)) if repeated else self.printable
        ids = rng.choices(kinds, k=rng.randint(least, most))
        return Output("noise", self.tokenizer.decode(ids), ()), ids


def name_document(output: Output, probe: Probe, rng: random.Random, *, unique: bool = False) -> str:
    """A probe's question with a name of its document added, as good users ask a memory.

    Args:
        output: The document.
        probe: One of its probes.
        rng: The only source of chance.
        unique: Prefer an identifier or a path, which hardly any other document has.
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
