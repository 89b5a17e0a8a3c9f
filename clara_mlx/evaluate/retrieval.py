"""A real memory of thousands of chunks: is the right one found, and is the question answered?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from clara_mlx.evaluate import batched, metrics
from clara_mlx.evaluate.batched import Reading
from clara_mlx.evaluate.cases import MOST_CHUNKS, holders
from clara_mlx.evaluate.corpus import BRIEF_TOOLS, SIZES, TOOLS
from clara_mlx.evaluate.probes.probe import Output
from clara_mlx.evaluate.queries import FORMS, Composer, Query
from clara_mlx.evaluate.retention import Progress
from clara_mlx.evaluate.sets import ProbeSet, draw
from clara_mlx.memory.asking import NOTHING_FOUND
from clara_mlx.memory.memory import Memory, Mode
from clara_mlx.model import chunking
from clara_mlx.model.clara import Clara
from clara_mlx.model.prompts import Prompts
from clara_mlx.store.results import Hit

#: Recall is counted among so many chunks.
DEPTHS = (1, 5, 10)

#: Documents that `ask` reads.
ASK_DOCUMENTS = (1, 5)

RELEVANT = (
    "A chunk of the query's document that contains all of the evidence; where none does, any that "
    "holds a part of it."
)

_Span = tuple[int, int]


@dataclass(frozen=True)
class _Asked:
    """A query with the set it comes from and the spans that are relevant."""

    query: Query
    set: str
    tool: str
    relevant: tuple[_Span, ...]


class Corpus:
    """The documents of a memory: those of the sets, then others until there are enough chunks.

    Args:
        sets: whose documents are in it, and whose probes are asked.
        clara: its tokenizer decides what a chunk is.
        chunks: how many there are at least.
        queries: how many are asked of each set at most.
        seed: of the other documents and of the choice.
    """

    def __init__(
        self, sets: Sequence[ProbeSet], clara: Clara, chunks: int, queries: int, seed: int
    ) -> None:
        self._clara = clara
        self.outputs: list[Output] = []
        self.chunks = 0
        self._seen: set[str] = set()
        of_set = {probes.name: [self._add(output) for output in probes.outputs] for probes in sets}
        batch = 0
        while self.chunks < chunks:
            for size in SIZES:
                tools = list(BRIEF_TOOLS if size == "brief" else TOOLS)
                for output in draw(f"{seed} others {batch} {size}", tools, size, 1):
                    if self.chunks < chunks:
                        self._add(output)
            batch += 1
        composer = Composer(self.outputs, seed)
        self.asked: list[_Asked] = []
        #: Probes that no name makes self-sufficient, or whose evidence is in too many chunks.
        self.unusable = 0
        for name, numbers in of_set.items():
            usable = []
            for number in numbers:
                if number is not None:
                    usable += self._queries(composer, number, name)
            random.Random(f"{seed} {name}").shuffle(usable)
            self.asked += usable[:queries]

    def _add(self, output: Output) -> int | None:
        """The number of a new document; None if its text is there already."""
        if output.text in self._seen:
            return None
        self._seen.add(output.text)
        self.outputs.append(output)
        self.chunks += len(self._split(output.text))
        return len(self.outputs) - 1

    def _split(self, text: str) -> list[chunking.Chunk]:
        clara = self._clara
        return list(chunking.split(text, clara.tokenizer, clara.config.doc_max_length))

    def _queries(self, composer: Composer, number: int, name: str) -> list[_Asked]:
        output = self.outputs[number]
        chunks = self._split(output.text)
        made = []
        for probe in output.probes:
            holding = list(holders(chunks, probe))
            text = output.text[holding[0].start : holding[-1].end]
            query = composer.query(number, probe, text) if len(holding) <= MOST_CHUNKS else None
            if query is None:
                self.unusable += 1
                continue
            spans = tuple((chunk.start, chunk.end) for chunk in holding)
            made.append(_Asked(query, name, output.tool, spans))
        return made


def measure(
    corpus: Corpus,
    clara: Clara,
    file: Path,
    *,
    max_tokens: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Recall of each way to search, and exact answers of `Memory.ask`, ready for JSON.

    Args:
        corpus: what is remembered and asked.
        clara: the model; not to be used elsewhere meanwhile.
        file: where the memory is made; nothing may be there.
        max_tokens: of an answer.
        seed: of the intervals.
        progress: told what is going on.
    """
    asked = corpus.asked
    told = _Told(asked, seed)
    given = _from_the_chunks(corpus, clara, max_tokens, progress)
    answers = {"the right chunk": told.answers(given)}
    recall: dict[str, Any] = {}
    with Memory.open(file, clara) as memory:
        documents: dict[str, int] = {}
        for number, output in enumerate(corpus.outputs):
            documents[memory.remember(output.text, source=output.tool)] = number
            progress("remembering", number + 1, len(corpus.outputs))
        memory.flush(
            progress=lambda done, total, _="": progress("compressing the memory", done, total)
        )
        for mode in get_args(Mode):
            ranks = []
            for number, one in enumerate(asked, 1):
                hits = memory.recall(one.query.text, max(DEPTHS), mode=mode)
                ranks.append(_rank(one, hits, documents))
                progress(f"{mode} search", number, len(asked))
            recall[mode] = told.recalls(ranks)
        for k in ASK_DOCUMENTS:
            texts = []
            for number, one in enumerate(asked, 1):
                texts.append(memory.ask(one.query.text, k, max_tokens=max_tokens).text)
                progress(f"asking {k} chunks", number, len(asked))
            answers[f"ask, k = {k}"] = told.answers(texts)
        status = memory.status()
    return {
        "documents": len(corpus.outputs),
        "chunks": status.chunks,
        "compressed": status.compressed,
        "queries": len(asked),
        "unusable": corpus.unusable,
        "forms": FORMS,
        "relevant": RELEVANT,
        "depths": list(DEPTHS),
        "recall": recall,
        "answers": answers,
    }


def _from_the_chunks(
    corpus: Corpus, clara: Clara, max_tokens: int, progress: Progress
) -> list[str]:
    """The answers that the right chunks give to the same queries, nothing having been searched."""
    prompts = Prompts(clara.config, clara.tokenizer)
    readings = []
    for one in corpus.asked:
        text = corpus.outputs[one.query.document].text
        pieces = [text[start:end] for start, end in one.relevant]
        prompt = prompts.answer(one.query.text, len(pieces))
        readings.append(Reading(prompt, np.array(clara.encode(pieces))))
    given = [""] * len(readings)
    for done, (number, answer) in enumerate(batched.answers(clara, readings, max_tokens), 1):
        given[number] = answer
        progress("asking the right chunks", done, len(readings))
    return given


def _rank(one: _Asked, hits: Sequence[Hit], documents: dict[str, int]) -> float:
    """Rank of the first relevant hit, from 1; infinite if there is none."""
    probe = one.query.probe
    whole = [span for span in one.relevant if span[0] <= probe.start and probe.end <= span[1]]
    relevant = whole or one.relevant
    for rank, hit in enumerate(hits, 1):
        if documents[hit.handle] == one.query.document and (hit.start, hit.end) in relevant:
            return rank
    return float("inf")


class _Told:
    """Figures of the same queries, as shares in all and by set, form and tool."""

    def __init__(self, asked: Sequence[_Asked], seed: int) -> None:
        self._asked, self._seed = asked, seed

    def recalls(self, ranks: Sequence[float]) -> dict[str, Any]:
        """Recall at each of `DEPTHS`."""
        ranked = np.array(ranks)
        return self._shares({str(depth): ranked <= depth for depth in DEPTHS})

    def answers(self, texts: Sequence[str]) -> dict[str, Any]:
        """Exact answers, their F1, and how often nothing relevant was found."""
        expected = [one.query.probe.answer for one in self._asked]
        pairs = list(zip(texts, expected, strict=True))
        return self._shares(
            {
                "exact": np.array([metrics.exact(text, answer) for text, answer in pairs]),
                "f1": np.array([metrics.f1(text, answer) for text, answer in pairs]),
                "nothing_found": np.array([text == NOTHING_FOUND for text in texts]),
            }
        )

    def _shares(self, figures: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        by: dict[str, dict[str, Any]] = {}
        groups = {
            "set": [one.set for one in self._asked],
            "form": [one.query.form for one in self._asked],
            "tool": [one.tool for one in self._asked],
        }
        for dimension, names in groups.items():
            by[dimension] = {
                name: self._share(figures, [i for i, n in enumerate(names) if n == name])
                for name in sorted(set(names))
            }
        return {"all": self._share(figures, list(range(len(self._asked)))), "by": by}

    def _share(self, figures: dict[str, np.ndarray[Any, Any]], which: list[int]) -> dict[str, Any]:
        documents = [self._asked[i].query.document for i in which]
        table = [values[which] for values in figures.values()]
        estimates = metrics.estimates(documents, table, self._seed)
        return {
            "queries": len(which),
            "documents": len(set(documents)),
            **{name: e.to_dict() for name, e in zip(figures, estimates, strict=True)},
        }
