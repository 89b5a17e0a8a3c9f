"""Probes as questions to a whole memory, where "Which test failed?" could mean any of thousands."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clara_mlx.evaluate.probes.probe import Output, Probe

#: The two forms of a query, as a report states them. A name is a run of letters, digits and
#: ``_ . / -`` of at least four characters that begins with a letter or an underscore.
FORMS = {
    "named": (
        "the question as it is: it holds a name that stands in its document and in no other of "
        "the memory"
    ),
    "composed": (
        'any other question, with the tool and one name added, "Which test failed? (pytest, '
        'test_load)": a name of the chunk that holds the evidence, which stands in no other '
        "document and shares nothing with the answer; an identifier or a path, if there is one"
    ),
}

_NAME = re.compile(r"[A-Za-z_][\w./-]{2,}\w")
_COMPOUND = re.compile(r"[\d_./-]|[a-z][A-Z]")  # in a name: no plain word


@dataclass(frozen=True)
class Query:
    """A probe's question, made self-sufficient.

    Attributes:
        document: number of the output among all of the memory.
        probe: what was asked, and the evidence.
        form: one of `FORMS`.
        text: the query.
    """

    document: int
    probe: Probe
    form: str
    text: str


def names(text: str) -> set[str]:
    """The names in a text, see `FORMS`."""
    return set(_NAME.findall(text))


def telling(found: Iterable[str]) -> list[str]:
    """Identifiers and paths among names, or all names if there are none; sorted."""
    everything = sorted(found)
    return [name for name in everything if _COMPOUND.search(name)] or everything


def compose(question: str, tool: str, name: str) -> str:
    """A question with what identifies its document."""
    return f"{question} ({tool}, {name})"


class Composer:
    """Makes queries for the documents of one memory.

    Args:
        outputs: all its documents.
        seed: of the names that are chosen.
    """

    def __init__(self, outputs: Sequence[Output], seed: int) -> None:
        self._outputs, self._seed = outputs, seed
        self._documents: Counter[str] = Counter()
        for output in outputs:
            self._documents.update(names(output.text))

    def query(self, document: int, probe: Probe, chunk: str) -> Query | None:
        """The query for a probe; None if nothing tells its document from all others.

        Args:
            document: number of the probe's output.
            probe: one of its probes.
            chunk: text of the chunk or chunks that hold the evidence.
        """
        output = self._outputs[document]
        if self._unique(names(probe.question) & names(output.text)):
            return Query(document, probe, "named", probe.question)
        answer = probe.answer.lower()
        usable = [
            name
            for name in self._unique(names(chunk))
            if name.lower() not in answer and answer not in name.lower()
        ]
        if not usable:
            return None
        chooser = random.Random(f"{self._seed} {document} {probe.question}")
        chosen = chooser.choice(telling(usable))
        return Query(document, probe, "composed", compose(probe.question, output.tool, chosen))

    def _unique(self, found: Iterable[str]) -> list[str]:
        """Those names that one document alone has, sorted."""
        return sorted(name for name in found if self._documents[name] == 1)
