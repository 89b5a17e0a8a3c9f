"""From examples to padded arrays: which examples share a step, and what the losses are given.

Everything follows from the seed and the step's number, so that a run can go on at any step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import mlx.core as mx

from clara_mlx.model.decoder import sources
from clara_mlx.model.prompts import DecoderPrompt
from clara_mlx.train.data import Dataset, Example
from clara_mlx.train.losses import Arrays

# Padded lengths are multiples of this: fewer shapes to compile for, little padding.
LENGTH_STEP = 16
ROW_STEP = 4

# Steps whose examples are sorted by length together: enough for even batches, and still mixed.
_SORTED_STEPS = 16

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """How examples become steps.

    Attributes:
        batch_size: examples per optimiser step, at most.
        micro_batch_size: examples per forward pass, at most.
        questions_per_document: examples with the same documents that stay together, at most.
        seed: decides the order.
    """

    batch_size: int
    micro_batch_size: int
    questions_per_document: int
    seed: int

    def epoch(self, dataset: Dataset, number: int) -> list[list[list[Example]]]:
        """The steps of an epoch, each as its micro-batches; every example comes once."""
        order = random.Random(f"{self.seed} {number}")
        units = []
        for group in dataset.groups:
            mixed = [_one_prompt(e, order) for e in order.sample(group, len(group))]
            size = self.questions_per_document
            units += [mixed[i : i + size] for i in range(0, len(mixed), size)]
        order.shuffle(units)
        window = _SORTED_STEPS * max(1, self.batch_size // self.questions_per_document)
        steps: list[list[list[Example]]] = []
        for start in range(0, len(units), window):
            nearby = sorted(units[start : start + window], key=_length)
            steps += list(_packed(nearby, self.batch_size, self.micro_batch_size))
        order.shuffle(steps)
        return steps


def _one_prompt(example: Example, choice: random.Random) -> Example:
    """The example with one of its alternative prompts."""
    if len(example.prompts) < 2:
        return example
    return replace(example, prompts=(choice.choice(example.prompts),))


def _length(unit: list[Example]) -> int:
    return max(example.tokens for example in unit)


def _packed(
    units: list[list[Example]], batch_size: int, micro_batch_size: int
) -> Iterator[list[list[Example]]]:
    """Consecutive units as steps of micro-batches; a unit is never split."""
    step: list[list[Example]] = [[]]
    count = 0
    for unit in units:
        if count and count + len(unit) > batch_size:
            yield step
            step, count = [[]], 0
        if step[-1] and len(step[-1]) + len(unit) > micro_batch_size:
            step.append([])
        step[-1].extend(unit)
        count += len(unit)
    if count:
        yield step


@dataclass(frozen=True)
class Totals:
    """What a whole step is averaged over."""

    labels: int
    documents: int
    questions: int


class Collator:
    """Makes the arrays of micro-batches.

    Arrays (b examples, d distinct documents, n candidates, p labels of the longest answer):
        document_ids (d, length), document_starts (d,), document_weights (d,), where documents get
        gradient; else the trainer adds their latents (d, M, hidden), in the order of `distinct`;
        ids and sources (b, length), answer_starts (b,), targets and target_weights (b, p);
        query_ids (b, length), query_starts (b,), candidates and positives (b, n),
        question_weights (b,).
    Padding rows repeat the first one with weight 0, so that they can't bring a NaN in.

    Args:
        dataset: where documents are.
        memory_tokens: M.
        top_k: slots of a prompt whose documents are chosen; None where they are given.
        in_batch_negatives: whether every document of a micro-batch is a candidate.
    """

    def __init__(
        self,
        dataset: Dataset,
        memory_tokens: int,
        *,
        top_k: int | None = None,
        in_batch_negatives: bool = False,
    ) -> None:
        self._documents = dataset.documents
        self._memory_tokens = memory_tokens
        self._top_k = top_k
        self._in_batch = in_batch_negatives

    def totals(self, step: Sequence[Sequence[Example]]) -> Totals:
        """What the weights of all micro-batches of a step add up over."""
        examples = [example for micro in step for example in micro]
        labels = sum(_labels(e.prompts[0]) for e in examples if e.prompts)
        documents = sum(len(distinct(micro)) for micro in step)
        return Totals(labels, documents, len(examples))

    def arrays(self, micro: Sequence[Example], totals: Totals) -> tuple[Arrays, int]:
        """Arrays of a micro-batch, and its tokens without padding."""
        numbers = distinct(micro)
        place = {number: i for i, number in enumerate(numbers)}
        batch: Arrays = {}
        tokens = 0
        if self._top_k is None:
            batch, tokens = self._encoder("document", [self._documents[n] for n in numbers])
            batch["document_weights"] = _weights(len(numbers), totals.documents)
        rows = padded_rows(len(micro))
        if micro[0].prompts:
            decoder, used = self._decoder(micro, place, totals, rows)
            batch |= decoder
            tokens += used
        if micro[0].query:
            queries, used = self._encoder("query", [example.query for example in micro])
            batch |= queries | self._candidates(micro, place, rows)
            batch["question_weights"] = _weights(len(micro), totals.questions)
            tokens += used
        return batch, tokens

    def _encoder(self, name: str, inputs: list[list[int]]) -> tuple[Arrays, int]:
        tokens = sum(map(len, inputs))
        inputs = _filled(inputs, padded_rows(len(inputs)))
        starts = [len(ids) - self._memory_tokens for ids in inputs]
        return {f"{name}_ids": _rectangle(inputs, 0), f"{name}_starts": mx.array(starts)}, tokens

    def _decoder(
        self,
        micro: Sequence[Example],
        place: dict[int, int],
        totals: Totals,
        rows: int,
    ) -> tuple[Arrays, int]:
        prompts = [example.prompts[0] for example in micro]
        count = _up(max(map(_labels, prompts)), LENGTH_STEP // 2)
        starts = [_answer_from(prompt) - 1 for prompt in prompts]  # a label is predicted before it
        length = max(max(starts) + count, *(len(prompt.ids) for prompt in prompts))
        vectors = []
        for row, (example, prompt) in enumerate(zip(micro, prompts, strict=True)):
            if self._top_k is None:
                chosen = [place[number] for number in example.documents]
            else:  # the row's own top_k documents, made by the top-k
                chosen = list(range(row * self._top_k, (row + 1) * self._top_k))
            vectors.append(self._sources(prompt, chosen))
        targets = [prompt.ids[_answer_from(prompt) :] for prompt in prompts]
        weights = [[1 / totals.labels] * len(labels) for labels in targets]
        weights += [[0.0]] * (rows - len(micro))
        return {
            "ids": _rectangle(_filled([p.ids for p in prompts], rows), 0, length),
            "sources": _rectangle(_filled(vectors, rows), -1, length),
            "answer_starts": mx.array(_filled(starts, rows)),
            "targets": _rectangle(_filled(targets, rows), 0, count, exact=True),
            "target_weights": _rectangle(weights, 0.0, count, exact=True),
        }, sum(len(prompt.ids) for prompt in prompts)

    def _sources(self, prompt: DecoderPrompt, documents: list[int]) -> list[int]:
        m = self._memory_tokens
        return [
            -1 if vector < 0 else documents[vector // m] * m + vector % m
            for vector in sources(prompt)
        ]

    def _candidates(self, micro: Sequence[Example], place: dict[int, int], rows: int) -> Arrays:
        everything = list(place.values())
        candidates, positives = [], []
        for example in micro:
            own = [place[number] for number in example.documents]
            mine = everything if self._in_batch else own
            true = {place[number] for number in example.positives}
            candidates.append(mine)
            positives.append([i in true for i in mine])
        return {
            "candidates": _rectangle(_filled(candidates, rows), -1, step=ROW_STEP),
            "positives": _rectangle(_filled(positives, rows), False, step=ROW_STEP),
        }


def distinct(micro: Sequence[Example]) -> list[int]:
    """Numbers of the documents of a micro-batch, each once."""
    return list(dict.fromkeys(number for example in micro for number in example.documents))


def _answer_from(prompt: DecoderPrompt) -> int:
    assert prompt.answer_from is not None  # a training prompt has its answer
    return prompt.answer_from


def _labels(prompt: DecoderPrompt) -> int:
    return len(prompt.ids) - _answer_from(prompt)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def padded_rows(n: int) -> int:
    """How many rows the arrays of n things have."""
    return n if n <= 2 * ROW_STEP else _up(n, ROW_STEP)  # few rows are costly to pad


def _filled(rows: list[_T], count: int) -> list[_T]:
    return rows + rows[:1] * (count - len(rows))


def _weights(n: int, total: int) -> mx.array:
    return mx.array([1 / total] * n + [0.0] * (padded_rows(n) - n))


def _rectangle(
    rows: list[list[_T]],
    padding: _T,
    least: int = 0,
    *,
    step: int = LENGTH_STEP,
    exact: bool = False,
) -> mx.array:
    """Rows padded on the right to a multiple of ``step``, or to exactly ``least``."""
    width = least if exact else _up(max(least, *map(len, rows)), step)
    return mx.array([[*row, *[padding] * (width - len(row))] for row in rows])
