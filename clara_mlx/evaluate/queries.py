"""Probes as questions to a whole memory, where "Which test failed?" fits thousands of documents."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from clara_mlx.evaluate.probes.probe import Output, Probe

#: The two forms of a query, as a report prints them. A name is a run of letters, digits and
#: ``_ . / -`` of at least four characters that begins with a letter or an underscore.
FORMS = {
    "named": (
        "the question as it is: it contains a name that occurs in its document and in no other "
        "document of the memory"
    ),
    "composed": (
        'any other question with the tool and one name added, such as "Which test failed? (pytest, '
        'test_load)": a name in the chunk that holds the evidence, which occurs in no other '
        "document and shares nothing with the answer; an identifier or a path if there is one"
    ),
}

_NAME = re.compile(r"[A-Za-z_][\w./-]{2,}\w")
_COMPOUND = re.compile(r"[\d_./-]|[a-z][A-Z]")  # found in identifiers and paths, not in words


def names_in(text: str) -> set[str]:
    """The names in a text; `FORMS` says what a name is."""
    return set(_NAME.findall(text))


def distinctive(names: Iterable[str]) -> list[str]:
    """The identifiers and paths among names, or all names if there are none; sorted."""
    everything = sorted(names)
    return [name for name in everything if _COMPOUND.search(name)] or everything


def compose(question: str, tool: str, name: str) -> str:
    """Add to a question what identifies its document."""
    return f"{question} ({tool}, {name})"


class Composer:
    """Makes queries for the documents of one memory.

    Args:
        outputs: All documents of the memory.
        seed: Seed of the choice among names.
    """

    def __init__(self, outputs: Sequence[Output], seed: int) -> None:
        self._outputs = outputs
        self._seed = seed
        self._documents: Counter[str] = Counter()  # documents that each name occurs in
        for output in outputs:
            self._documents.update(names_in(output.text))

    def query(self, document: int, probe: Probe, chunk: str) -> tuple[str, str] | None:
        """The query for a probe: which of `FORMS` it has, and its text.

        None if nothing distinguishes the probe's document from all others.

        Args:
            document: Number of the probe's output.
            probe: One of the output's probes.
            chunk: The text of the chunk or chunks that hold the evidence.
        """
        output = self._outputs[document]
        if self._unique(names_in(probe.question) & names_in(output.text)):
            return "named", probe.question
        answer = probe.answer.lower()
        usable = [
            name
            for name in self._unique(names_in(chunk))
            if name.lower() not in answer and answer not in name.lower()
        ]
        if not usable:
            return None
        chooser = random.Random(f"{self._seed} {document} {probe.question}")
        chosen = chooser.choice(distinctive(usable))
        return "composed", compose(probe.question, output.tool, chosen)

    def _unique(self, names: Iterable[str]) -> list[str]:
        """The names that occur in one document only, sorted."""
        return sorted(name for name in names if self._documents[name] == 1)
