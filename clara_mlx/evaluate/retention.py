"""Retention: the share of probes a model answers exactly, by what its decoder gets to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clara_mlx.evaluate import metrics
from clara_mlx.evaluate.answers import Answers
from clara_mlx.evaluate.batched import Reading
from clara_mlx.evaluate.cases import Case, cases, in_order
from clara_mlx.evaluate.contexts import CONTEXTS, Contexts
from clara_mlx.evaluate.sets import ProbeSet
from clara_mlx.model.clara import Clara
from clara_mlx.model.prompts import Prompts
from clara_mlx.store.codec import codec

#: All that a decoder can read, as a report states it.
METHODS = {
    "latents": "the chunk's latents, in float32 as they leave the encoder",
    **{f"latents {name}": f"the same, stored as {name}" for name in ("fp16", "int8", "int4")},
    **CONTEXTS,
}

#: Chunks encoded at a time.
_CHUNKS = 64

#: Called with (what is done, how many, how many in all).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcomes:
    """What one model gave for the cases of one set with one method.

    Attributes:
        model, set, method: their names.
        cases: the probes.
        answers: one for each.
        positions: decoder positions of what was read, for each.
    """

    model: str
    set: str
    method: str
    cases: list[Case]
    answers: list[str]
    positions: list[int]

    @property
    def exact(self) -> np.ndarray[Any, Any]:
        """1.0 for each answer that is exactly right, else 0.0."""
        pairs = zip(self.answers, self.cases, strict=True)
        return np.array([float(metrics.exact(a, case.probe.answer)) for a, case in pairs])

    @property
    def f1(self) -> np.ndarray[Any, Any]:
        """Token F1 of each answer."""
        pairs = zip(self.answers, self.cases, strict=True)
        return np.array([metrics.f1(a, case.probe.answer) for a, case in pairs])

    def to_dict(self, seed: int) -> dict[str, Any]:
        """Shares over all cases and by each of `Case.groups`, ready for JSON."""
        groups = [case.groups() for case in self.cases]
        scores = np.stack([self.exact, self.f1])
        by: dict[str, dict[str, Any]] = {}
        for dimension in groups[0]:
            values = [group[dimension] for group in groups]
            by[dimension] = {
                name: self._share(scores, [i for i, v in enumerate(values) if v == name], seed)
                for name in in_order(dimension, set(values))
            }
        return {
            "model": self.model,
            "set": self.set,
            "method": self.method,
            "positions": float(np.mean(self.positions)),
            "all": self._share(scores, list(range(len(self.cases))), seed),
            "by": by,
        }

    def _share(self, scores: np.ndarray[Any, Any], which: list[int], seed: int) -> dict[str, Any]:
        documents = [self.cases[i].document for i in which]
        exact, f1 = metrics.estimates(documents, scores[:, which], seed)
        return {
            "probes": len(which),
            "documents": len(set(documents)),
            "exact": exact.to_dict(),
            "f1": f1.to_dict(),
        }


def difference(a: Outcomes, b: Outcomes, seed: int) -> dict[str, Any]:
    """How many more probes a answers exactly than b, as a share, with its paired interval.

    Only probes that both have count: another tokenizer can leave out others.
    """
    other = {
        (case.document, case.probe): score for case, score in zip(b.cases, b.exact, strict=True)
    }
    pairs = [
        (case.document, score - other[case.document, case.probe])
        for case, score in zip(a.cases, a.exact, strict=True)
        if (case.document, case.probe) in other
    ]
    documents, differences = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    (estimate,) = metrics.estimates(documents, differences, seed)
    return {
        "set": a.set,
        "of": {"model": a.model, "method": a.method},
        "minus": {"model": b.model, "method": b.method},
        "probes": len(pairs),
        "exact": estimate.to_dict(),
    }


class Reader:
    """One model and one set: every method's readings over the same cases.

    Attributes:
        set: its name.
        cases: the probes that are asked.
    """

    def __init__(
        self, name: str, clara: Clara, probes: ProbeSet, progress: Progress | None = None
    ) -> None:
        self._name, self._clara, self._outputs = name, clara, probes.outputs
        self._progress = progress or (lambda what, done, total: None)
        self._prompts = Prompts(clara.config, clara.tokenizer)
        self.cases = cases(probes.outputs, clara.config, clara.tokenizer)
        self.set = probes.name
        self._latents: dict[tuple[int, int], np.ndarray[Any, Any]] = {}

    def run(self, method: str, answers: Answers, max_tokens: int) -> Outcomes:
        """The outcomes of one method of `METHODS`."""
        what = f"{self._name}, {self.set}: {method}"
        readings, positions = [], []
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
        done = 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            self._progress(what, done, len(readings))

        given = answers.of(self._clara, readings, max_tokens, about, tick)
        return Outcomes(self._name, self.set, method, self.cases, given, positions)

    def _readings(self, method: str) -> Iterator[tuple[Reading, int]]:
        """Each case's reading, and the decoder positions of what it reads."""
        if method.startswith("latents"):
            for case, latents in self._with_latents(method):
                prompt = self._prompts.answer(case.probe.question, len(case.chunks))
                yield Reading(prompt, latents), case.positions
            return
        with Contexts(self._clara.tokenizer) as contexts:
            for case in self.cases:
                question = case.probe.question
                text = self._outputs[case.document].text[case.span]
                ids = contexts.ids(method, text, question, case.positions)
                yield Reading(self._prompts.answer(question, 0, text=ids), None), len(ids)

    def _with_latents(self, method: str) -> Iterator[tuple[Case, np.ndarray[Any, Any]]]:
        """Cases with the latents (chunks, M, hidden) float32 of their chunks."""
        self._encode()
        config = self._clara.config
        kept = self._latents
        if method != "latents":
            stored = codec(
                method.removeprefix("latents "), config.memory_tokens, config.hidden_size
            )
            kept = {
                key: stored.decode(stored.encode(latents[None]))[0] for key, latents in kept.items()
            }
        for case in self.cases:
            first, *others = (kept[case.document, chunk.start] for chunk in case.chunks)
            # Nearly all have one chunk: a view, where a copy would be large.
            yield case, np.stack([first, *others]) if others else first[None]

    def _encode(self) -> None:
        """Compress the chunks that hold evidence, once."""
        wanted = {
            (case.document, chunk.start): chunk for case in self.cases for chunk in case.chunks
        }
        missing = [(key, chunk) for key, chunk in wanted.items() if key not in self._latents]
        # Of like length together, so that little is padded.
        missing.sort(key=lambda pair: pair[1].tokens)
        for start in range(0, len(missing), _CHUNKS):
            batch = missing[start : start + _CHUNKS]
            texts = [
                self._outputs[document].text[chunk.start : chunk.end]
                for (document, _), chunk in batch
            ]
            latents = np.array(self._clara.encode(texts))
            self._latents.update(zip((key for key, _ in batch), latents, strict=True))
            self._progress(
                f"{self._name}, {self.set}: compressing", start + len(batch), len(missing)
            )
