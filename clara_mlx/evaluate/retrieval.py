"""A real memory of thousands of chunks: is the right one found, and is the question answered?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from clara_mlx.errors import Progress
from clara_mlx.evaluate import metrics
from clara_mlx.evaluate.batched import Reading, generate_answers
from clara_mlx.evaluate.cases import MOST_CHUNKS, chunks_with_evidence
from clara_mlx.evaluate.corpus import BRIEF_TOOLS, SIZES, TOOLS
from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.evaluate.queries import FORMS, Composer
from clara_mlx.evaluate.sets import ProbeSet, draw_outputs
from clara_mlx.memory.asking import NOTHING_FOUND
from clara_mlx.memory.memory import Memory, Mode
from clara_mlx.model import chunking
from clara_mlx.model.clara import Clara
from clara_mlx.store.results import Hit

#: Numbers of first hits among which recall is counted.
DEPTHS = (1, 5, 10)

#: Numbers of documents that `Memory.ask` reads.
ASK_DOCUMENTS = (1, 5)

#: Which chunks are relevant, as a report prints it.
RELEVANT = (
    "A chunk of the query's document that contains all of the evidence; if there is none, any "
    "chunk that contains a part of it."
)

_Span = tuple[int, int]


@dataclass(frozen=True)
class Query:
    """A probe's question, worded so that it fits one document of a memory only.

    Attributes:
        set: Name of the set that the probe comes from.
        document: Number of its output among all outputs in the memory.
        tool: The tool that printed the output.
        probe: The probe.
        form: One of `FORMS`.
        text: The query.
        relevant: Spans of the chunks that hold the evidence.
    """

    set: str
    document: int
    tool: str
    probe: Probe
    form: str
    text: str
    relevant: tuple[_Span, ...]


class Haystack:
    """The documents of a memory, and the queries that are asked of it.

    The documents of the sets come first, then other generated documents until there are enough
    chunks.

    Args:
        sets: The sets whose documents are remembered and whose probes are asked.
        clara: The model whose tokenizer decides what a chunk is.
        chunks: Smallest number of chunks.
        queries: Largest number of queries from each set.
        seed: Seed of the other documents and of the choice of queries.

    Attributes:
        outputs: The documents; no text comes twice.
        chunks: Number of their chunks.
        queries: The queries, set by set.
        unusable: Number of probes that no name makes unambiguous or whose evidence is in too many
            chunks.
    """

    def __init__(
        self, sets: Sequence[ProbeSet], clara: Clara, chunks: int, queries: int, seed: int
    ) -> None:
        self._clara = clara
        self._texts: set[str] = set()
        self.outputs: list[Output] = []
        self.chunks = 0
        self.queries: list[Query] = []
        self.unusable = 0
        documents = {
            probes.name: [self._add(output) for output in probes.outputs] for probes in sets
        }
        self._fill(chunks, seed)
        composer = Composer(self.outputs, seed)
        for name, numbers in documents.items():
            usable = []
            for number in numbers:
                if number is not None:
                    usable += self._compose(composer, number, name)
            random.Random(f"{seed} {name}").shuffle(usable)
            self.queries += usable[:queries]

    def _add(self, output: Output) -> int | None:
        """Add a document; returns its number, or None if its text was added before."""
        if output.text in self._texts:
            return None
        self._texts.add(output.text)
        self.outputs.append(output)
        self.chunks += len(self._split(output.text))
        return len(self.outputs) - 1

    def _fill(self, chunks: int, seed: int) -> None:
        """Add generated documents of every tool and size until there are enough chunks."""
        batch = 0
        while self.chunks < chunks:
            for size in SIZES:
                tools = list(BRIEF_TOOLS if size == "brief" else TOOLS)
                for output in draw_outputs(f"{seed} others {batch} {size}", tools, size, 1):
                    if self.chunks < chunks:
                        self._add(output)
            batch += 1

    def _split(self, text: str) -> list[chunking.Chunk]:
        clara = self._clara
        return list(chunking.split(text, clara.tokenizer, clara.config.doc_max_length))

    def _compose(self, composer: Composer, number: int, name: str) -> list[Query]:
        """The queries of one document; counts the probes that make none as unusable."""
        output = self.outputs[number]
        chunks = self._split(output.text)
        composed = []
        for probe in output.probes:
            holding = list(chunks_with_evidence(chunks, probe))
            text = output.text[holding[0].start : holding[-1].end]
            query = composer.query(number, probe, text) if len(holding) <= MOST_CHUNKS else None
            if query is None:
                self.unusable += 1
                continue
            spans = tuple((chunk.start, chunk.end) for chunk in holding)
            composed.append(Query(name, number, output.tool, probe, *query, spans))
        return composed


def measure(
    haystack: Haystack,
    clara: Clara,
    file: Path,
    *,
    max_tokens: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure recall of each way to search and exact answers of `Memory.ask`, ready for JSON.

    Args:
        haystack: The documents to remember and the queries to ask.
        clara: The model; not to be used elsewhere in the meantime.
        file: Where the memory is created; the file must not exist.
        max_tokens: Largest number of tokens in an answer.
        progress: Called for each document and each query.
    """
    report: Progress = progress or (lambda done, total, what="", /: None)
    queries = haystack.queries
    relevant = answer_from_relevant_chunks(haystack, clara, max_tokens, report)
    answers = {"the right chunk": answer_shares(queries, relevant)}
    recall: dict[str, Any] = {}
    with Memory.open(file, clara) as memory:
        documents: dict[str, int] = {}
        for number, output in enumerate(haystack.outputs):
            documents[memory.remember(output.text, source=output.tool)] = number
            report(number + 1, len(haystack.outputs), "remembering")
        memory.flush(
            progress=lambda done, total, _="", /: report(done, total, "compressing the memory")
        )
        for mode in get_args(Mode):
            ranks = []
            for number, asked in enumerate(queries, 1):
                hits = memory.recall(asked.text, max(DEPTHS), mode=mode)
                ranks.append(rank_of_relevant(asked, hits, documents))
                report(number, len(queries), f"{mode} search")
            recall[mode] = recall_shares(queries, ranks)
        for k in ASK_DOCUMENTS:
            texts = []
            for number, asked in enumerate(queries, 1):
                texts.append(memory.ask(asked.text, k, max_tokens=max_tokens).text)
                report(number, len(queries), f"asking {k} chunks")
            answers[f"ask, k = {k}"] = answer_shares(queries, texts)
        status = memory.status()
    return {
        "documents": len(haystack.outputs),
        "chunks": status.chunks,
        "compressed": status.compressed,
        "queries": len(queries),
        "unusable": haystack.unusable,
        "forms": FORMS,
        "relevant": RELEVANT,
        "depths": list(DEPTHS),
        "recall": recall,
        "answers": answers,
    }


def answer_from_relevant_chunks(
    haystack: Haystack, clara: Clara, max_tokens: int, progress: Progress
) -> list[str]:
    """Answer the queries from their relevant chunks, as if a search had found exactly these."""
    prompts = clara.prompts
    readings = []
    for asked in haystack.queries:
        text = haystack.outputs[asked.document].text
        chunks = [text[start:end] for start, end in asked.relevant]
        prompt = prompts.answer(asked.text, len(chunks))
        readings.append(Reading(prompt, np.array(clara.encode(chunks))))
    answers = [""] * len(readings)
    for done, (number, answer) in enumerate(generate_answers(clara, readings, max_tokens), 1):
        answers[number] = answer
        progress(done, len(readings), "asking the right chunks")
    return answers


def rank_of_relevant(asked: Query, hits: Sequence[Hit], documents: dict[str, int]) -> float:
    """Rank of the first relevant hit, counted from 1; infinite if there is none."""
    probe = asked.probe
    whole = [span for span in asked.relevant if span[0] <= probe.start and probe.end <= span[1]]
    relevant = whole or asked.relevant
    for rank, hit in enumerate(hits, 1):
        if documents[hit.handle] == asked.document and (hit.start, hit.end) in relevant:
            return rank
    return float("inf")


def recall_shares(queries: Sequence[Query], ranks: Sequence[float]) -> dict[str, Any]:
    """Recall at each of `DEPTHS`, given the rank of each query's first relevant hit."""
    ranked = np.array(ranks)
    return _break_down(queries, {str(depth): ranked <= depth for depth in DEPTHS})


def answer_shares(queries: Sequence[Query], texts: Sequence[str]) -> dict[str, Any]:
    """Shares of exact answers, their F1, and how often nothing relevant was found."""
    scores = metrics.scores(texts, [asked.probe.answer for asked in queries])
    nothing_found = np.array([text == NOTHING_FOUND for text in texts])
    return _break_down(queries, {**scores, "nothing_found": nothing_found})


def _break_down(queries: Sequence[Query], figures: dict[str, Any]) -> dict[str, Any]:
    groups = {
        "set": [asked.set for asked in queries],
        "form": [asked.form for asked in queries],
        "tool": [asked.tool for asked in queries],
    }
    documents = [asked.document for asked in queries]
    return metrics.break_down("queries", documents, figures, groups)
