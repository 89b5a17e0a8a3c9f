"""What a search of the memory finds for a question: by words, and by the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clara_mlx.compressors.question import shorten
from clara_mlx.errors import OtherModel
from clara_mlx.memory import Memory
from clara_mlx.store.results import Hit
from clara_mlx.tool_outputs.quoting import indent, quote_markers

# The number of hits that the model reads.
_HITS_READ = 5

# The number of hits by words. Most of what an agent thinks of is in sight.
_HITS = 30

# The number of hits by words in one handle's text.
_HITS_INSIDE = 50

# Bonus of a line in the best hit that the model read: this share of the best line's score is added
# to its own. It falls with a hit's rank, to a half at the rank given below.
_IN_EVIDENCE = 1.0

# The same for hits by words, if the question asks for one thing.
_IN_HIT = 0.3

# And if it is what an agent thinks: then what stands together in the best hits is given as a whole.
_IN_HIT_OF_THOUGHT = 3.0

# See above.
_HALF_AT = 7


@dataclass(frozen=True)
class Found:
    """What a search of the memory gave.

    Attributes:
        answer: What the model says; None without a model, or without evidence.
        evidence: The hits that the model read.
        by_words: The hits that words found.
        grounded: Whether any word of the answer stands in that evidence.
    """

    answer: str | None
    evidence: list[Hit]
    by_words: list[Hit]
    grounded: bool = True

    @property
    def answer_lines(self) -> list[str]:
        """The line that gives the model's answer, if there is one."""
        # Its further lines are indented, so that none of them looks like a handle's heading.
        if not self.answer:
            return []
        note = "" if self.grounded else " (not grounded: none of its words stands in the evidence)"
        return [f"answer: {indent(quote_markers(self.answer))}{note}"]

    @property
    def hits(self) -> list[Hit]:
        """All hits, the evidence first."""
        return self.evidence + self.by_words

    @property
    def handles(self) -> list[str]:
        """The handles of every hit, the best first."""
        return list(dict.fromkeys(hit.handle for hit in self.hits))

    def weighted_hits(self, handle: str, *, thought: bool) -> list[tuple[float, Hit]]:
        """The hits in one original, each with the bonus of its lines.

        Args:
            handle: The original's.
            thought: Whether the question is what an agent thinks, see `question.is_thought`.
        """
        by_words = _IN_HIT_OF_THOUGHT if thought else _IN_HIT
        return [
            (bonus * _HALF_AT / (_HALF_AT + rank), hit)
            for hits, bonus in ((self.evidence, _IN_EVIDENCE), (self.by_words, by_words))
            for rank, hit in enumerate(hits)
            if hit.handle == handle
        ]


def search(
    memory: Memory, question: str, where: Mapping[str, Any] | None, handle: str | None = None
) -> Found:
    """Search the memory by words, those of commands included, and by the model.

    What words find is kept whatever the model says, which may not know such outputs. The
    transcripts behind folds are left out, because each of their blocks has its own original.

    Args:
        memory: The memory to search.
        question: What to look for.
        where: Narrows the search.
        handle: Search only the text behind this handle.
    """
    where = {**(where or {}), **({"fold": None} if handle is None else {"handle": handle})}
    question = shorten(question)
    by_words = memory.recall(question, _HITS_INSIDE if handle else _HITS, where, mode="text")
    if memory.answers:
        with suppress(OtherModel):  # then only the text can be searched
            answer = memory.ask(question, _HITS_READ, where)
            if answer.evidence:
                return Found(answer.text, answer.evidence, by_words, answer.grounded)
    return Found(None, [], by_words)
