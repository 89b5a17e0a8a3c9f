"""Retention: the share of probes a model answers exactly, by what its decoder gets to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clara_mlx.errors import Progress
from clara_mlx.evaluate import metrics
from clara_mlx.evaluate.answer_cache import AnswerCache
from clara_mlx.evaluate.batched import Reading
from clara_mlx.evaluate.cases import Case, find_cases
from clara_mlx.evaluate.contexts import CONTEXTS, Contexts
from clara_mlx.evaluate.sets import ProbeSet
from clara_mlx.model.clara import Clara
from clara_mlx.store.codec import Codec

#: Everything a decoder can be given to read, as a report prints it.
METHODS = {
    "latents": "the chunk's latents, in float32 as they leave the encoder",
    **{f"latents {name}": f"the same, stored as {name}" for name in ("fp16", "int8", "int4")},
    **CONTEXTS,
}

_CHUNKS_AT_ONCE = 64  # chunks that are encoded together


@dataclass(frozen=True)
class Outcomes:
    """One model's answers to the cases of one set, read with one method.

    Attributes:
        model: Name of the model.
        set: Name of the set.
        method: One of `METHODS`.
        cases: The probes.
        answers: One answer for each case.
        positions: Decoder positions taken by what was read, for each case.
    """

    model: str
    set: str
    method: str
    cases: list[Case]
    answers: list[str]
    positions: list[int]

    def scores(self) -> dict[str, np.ndarray[Any, Any]]:
        """The `metrics.scores` of the answers."""
        return metrics.scores(self.answers, [case.probe.answer for case in self.cases])

    def to_dict(self) -> dict[str, Any]:
        """Shares over all cases and by each of `Case.groups`, ready for JSON."""
        groups = [case.groups() for case in self.cases]
        shares = metrics.break_down(
            "probes",
            [case.document for case in self.cases],
            self.scores(),
            {dimension: [group[dimension] for group in groups] for dimension in groups[0]},
        )
        return {
            "model": self.model,
            "set": self.set,
            "method": self.method,
            "positions": float(np.mean(self.positions)),
            **shares,
        }


def compare(a: Outcomes, b: Outcomes) -> dict[str, Any]:
    """Share of probes that ``a`` answers exactly beside the share of ``b``, with paired intervals.

    Both the difference and the ratio; the ratio is None if ``b`` answers nothing. Only probes that
    both were asked count, because another tokenizer can leave out other probes.
    """
    exact_a, exact_b = (outcomes.scores()["exact"] for outcomes in (a, b))
    other = {
        (case.document, case.probe): score for case, score in zip(b.cases, exact_b, strict=True)
    }
    pairs = [
        (case.document, score, other[case.document, case.probe])
        for case, score in zip(a.cases, exact_a, strict=True)
        if (case.document, case.probe) in other
    ]
    documents, of_a, of_b = zip(*pairs, strict=True) if pairs else ((), (), ())
    kept = metrics.kept(documents, of_a, of_b)
    return {
        "set": a.set,
        "of": {"model": a.model, "method": a.method},
        "minus": {"model": b.model, "method": b.method},
        "probes": len(pairs),
        "exact": asdict(metrics.difference(documents, np.subtract(of_a, of_b))),
        "kept": kept and asdict(kept),
    }


class Reader:
    """One model that reads one set, by every method over the same cases.

    Attributes:
        set: Name of the set.
        cases: The probes that are asked.
    """

    def __init__(
        self, name: str, clara: Clara, probes: ProbeSet, progress: Progress | None = None
    ) -> None:
        self._name = name
        self._clara = clara
        self._outputs = probes.outputs
        self._progress = progress
        self._prompts = clara.prompts
        self.cases = find_cases(probes.outputs, clara.config, clara.tokenizer)
        self.set = probes.name

    def ask(self, method: str, cache: AnswerCache, max_tokens: int) -> Outcomes:
        """Ask every probe while the decoder reads by one of `METHODS`."""
        readings = []
        positions = []
        for reading, count in self._readings(method):
            readings.append(reading)
            positions.append(count)
        about = [
            {
                "model": self._name,
                "set": self.set,
                "method": method,
                "tool": case.tool,
                "question": case.probe.question,
                "expected": case.probe.answer,
            }
            for case in self.cases
        ]

        def progress(done: int, total: int, what: str = "", /) -> None:
            self._report(done, total, method)

        answers = cache.answer(self._clara, readings, max_tokens, about, progress)
        return Outcomes(self._name, self.set, method, self.cases, answers, positions)

    def _report(self, done: int, total: int, what: str) -> None:
        if self._progress:
            self._progress(done, total, f"{self._name}, {self.set}: {what}")

    def _readings(self, method: str) -> Iterator[tuple[Reading, int]]:
        """Yield each case's reading, and the decoder positions taken by what it reads."""
        if method.startswith("latents"):
            for case, latents in self._cases_with_latents(method):
                prompt = self._prompts.answer(case.probe.question, len(case.chunks))
                yield Reading(prompt, latents), case.positions
            return
        contexts = Contexts(self._clara.tokenizer)
        for case in self.cases:
            question = case.probe.question
            text = self._outputs[case.document].text[case.span]
            ids = contexts.ids(method, text, question, case.positions)
            yield Reading(self._prompts.answer(question, 0, text=ids), None), len(ids)

    def _cases_with_latents(self, method: str) -> Iterator[tuple[Case, np.ndarray[Any, Any]]]:
        """Yield cases with the latents (chunks, M, hidden) float32 of their chunks."""
        latents = self._latents
        if method != "latents":
            config = self._clara.config
            stored = Codec(
                method.removeprefix("latents "), config.memory_tokens, config.hidden_size
            )
            latents = {
                key: stored.decode(stored.encode(exact[None]))[0] for key, exact in latents.items()
            }
        for case in self.cases:
            first, *others = (latents[case.document, chunk.start] for chunk in case.chunks)
            # Nearly all cases have one chunk: for them this is a view, where a copy would be large.
            yield case, np.stack([first, *others]) if others else first[None]

    @cached_property
    def _latents(self) -> dict[tuple[int, int], np.ndarray[Any, Any]]:
        """The latents of the chunks that hold evidence, by document and start of the chunk."""
        wanted = {
            (case.document, chunk.start): chunk for case in self.cases for chunk in case.chunks
        }
        chunks = sorted(wanted.items(), key=lambda pair: pair[1].tokens)  # pads batches little
        latents: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        for start in range(0, len(chunks), _CHUNKS_AT_ONCE):
            batch = chunks[start : start + _CHUNKS_AT_ONCE]
            texts = [
                self._outputs[document].text[chunk.start : chunk.end]
                for (document, _), chunk in batch
            ]
            encoded = np.array(self._clara.encode(texts))
            latents.update(zip((key for key, _ in batch), encoded, strict=True))
            self._report(start + len(batch), len(chunks), "compressing")
        return latents
