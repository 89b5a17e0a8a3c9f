"""From examples to padded arrays: which examples share a step, and the arrays of the losses.

Everything follows from the seed and the step's number, so that a run can be resumed at any step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import mlx.core as mx

from clara_mlx.model.clara import Clara
from clara_mlx.model.decoder import sources
from clara_mlx.model.encoder import batches, encode_batch, is_plain
from clara_mlx.model.prompts import DecoderPrompt
from clara_mlx.train.data import Dataset, Example
from clara_mlx.train.losses import Arrays

# Padded sizes are multiples of these: few shapes to compile for, and little padding.
LENGTH_STEP = 16  # tokens
ROW_STEP = 4  # rows

# Steps whose examples are sorted by length together: enough for even batches, and still mixed.
_SORTED_STEPS = 16

_T = TypeVar("_T")


@dataclass(frozen=True)
class Batching:
    """Puts examples into steps, each of several micro-batches."""

    batch_size: int  # the most examples of an optimiser step
    micro_batch_size: int  # the most examples of a forward pass
    questions_per_document: int  # the most examples with the same documents that stay together
    seed: int  # decides the order

    def epoch(self, dataset: Dataset, number: int) -> list[list[list[Example]]]:
        """The steps of an epoch as lists of micro-batches; every example occurs once."""
        order = random.Random(f"{self.seed} {number}")
        # 1) Bundles: examples that share one encoding of their documents.
        bundles = []
        for group in dataset.groups:
            mixed = [_choose_prompt(e, order) for e in order.sample(group, len(group))]
            size = self.questions_per_document
            bundles += [mixed[i : i + size] for i in range(0, len(mixed), size)]
        order.shuffle(bundles)
        # 2) Steps of bundles of about the same length.
        window = _SORTED_STEPS * max(1, self.batch_size // self.questions_per_document)
        steps: list[list[list[Example]]] = []
        for start in range(0, len(bundles), window):
            nearby = sorted(bundles[start : start + window], key=_length)
            steps += list(_pack(nearby, self.batch_size, self.micro_batch_size))
        order.shuffle(steps)
        return steps


def _choose_prompt(example: Example, rng: random.Random) -> Example:
    """The example with one of its alternative prompts."""
    if len(example.prompts) < 2:
        return example
    return replace(example, prompts=(rng.choice(example.prompts),))


def _length(bundle: list[Example]) -> int:
    return max(example.tokens for example in bundle)


def _pack(
    bundles: list[list[Example]], batch_size: int, micro_batch_size: int
) -> Iterator[list[list[Example]]]:
    """Pack consecutive bundles into steps of micro-batches; a bundle is never split."""
    step: list[list[Example]] = [[]]
    count = 0
    for bundle in bundles:
        if count and count + len(bundle) > batch_size:
            yield step
            step = [[]]
            count = 0
        if step[-1] and len(step[-1]) + len(bundle) > micro_batch_size:
            step.append([])
        step[-1].extend(bundle)
        count += len(bundle)
    if count:
        yield step


@dataclass(frozen=True)
class Totals:
    """The counts that the losses of a whole step are averaged over."""

    labels: int
    documents: int
    questions: int


@dataclass
class DocumentLatents:
    """Latents of documents that get no gradient, computed without dropout."""

    clara: Clara  # whose encoder is not being trained
    documents: list[list[int]]  # the encoder inputs of all documents
    keep: bool  # whether latents are kept, so that each document is encoded only once
    _kept: dict[int, mx.array] = field(default_factory=dict)

    def of(self, numbers: Sequence[int]) -> mx.array:
        """The latents (rows, M, hidden), float32; copies of the first pad the rows."""
        known = self._kept if self.keep else {}
        missing = [number for number in numbers if number not in known]
        lengths = [len(self.documents[number]) for number in missing]
        for batch in batches(lengths, padded=not is_plain(self.clara.network)):
            chosen = [missing[i] for i in batch]
            inputs = [self.documents[number] for number in chosen]
            with self.clara.lora.use("encoder"):
                states = encode_batch(self.clara.network, inputs, self.clara.config.memory_tokens)
            states = states.astype(mx.float32)
            mx.eval(states)
            known |= dict(zip(chosen, states, strict=True))
        rows = [*numbers, *[numbers[0]] * (padded_rows(len(numbers)) - len(numbers))]
        return mx.stack([known[number] for number in rows])


@dataclass(frozen=True)
class Collator:
    """Makes the arrays of micro-batches.

    With b examples, d distinct documents, n candidates and p labels of the longest answer:

    - if documents get gradient: document_ids (d, length), document_starts (d,) and
      document_weights (d,); otherwise their latents (d, M, hidden);
    - if there is a teacher: teacher_latents (d, M, hidden), its latents of the documents;
    - if the decoder runs: ids and sources (b, length), answer_starts (b,), targets and
      target_weights (b, p);
    - if documents are chosen: query_ids (b, length), query_starts (b,), candidates and positives
      (b, n), question_weights (b,).

    Padding rows repeat the first row with weight 0, so they can't bring in a NaN.
    """

    dataset: Dataset
    memory_tokens: int  # M, vectors per document
    latents: DocumentLatents | None = None  # the documents'; None if documents get gradient
    teacher: DocumentLatents | None = None  # the latents that the documents' are to become
    top_k: int | None = None  # slots of a prompt whose documents are chosen; None: they are given
    in_batch_negatives: bool = False  # every document of a micro-batch is a candidate

    def totals(self, step: Sequence[Sequence[Example]]) -> Totals:
        """The totals of a step, from which the weights of its micro-batches are made."""
        examples = [example for micro in step for example in micro]
        labels = sum(_labels(e.prompts[0]) for e in examples if e.prompts)
        documents = sum(len(distinct(micro)) for micro in step)
        return Totals(labels, documents, len(examples))

    def arrays(self, micro: Sequence[Example], totals: Totals) -> tuple[Arrays, int]:
        """The arrays of a micro-batch, and the number of its tokens without padding."""
        numbers = distinct(micro)
        place = {number: i for i, number in enumerate(numbers)}
        batch: Arrays = {}
        tokens = 0
        if self.latents:
            batch["latents"] = self.latents.of(numbers)
        else:
            batch, tokens = self._encoder_arrays(
                "document", [self.dataset.documents[n] for n in numbers]
            )
            batch["document_weights"] = _weights(len(numbers), totals.documents)
        if self.teacher:
            batch["teacher_latents"] = self.teacher.of(numbers)
        rows = padded_rows(len(micro))
        if micro[0].prompts:
            decoder, used = self._decoder_arrays(micro, place, totals, rows)
            batch |= decoder
            tokens += used
        if micro[0].query:
            queries, used = self._encoder_arrays("query", [example.query for example in micro])
            batch |= queries | self._choices(micro, place, rows)
            batch["question_weights"] = _weights(len(micro), totals.questions)
            tokens += used
        return batch, tokens

    def _encoder_arrays(self, name: str, inputs: list[list[int]]) -> tuple[Arrays, int]:
        tokens = sum(map(len, inputs))
        inputs = _fill(inputs, padded_rows(len(inputs)))
        starts = [len(ids) - self.memory_tokens for ids in inputs]
        return {f"{name}_ids": _pad(inputs, 0), f"{name}_starts": mx.array(starts)}, tokens

    def _decoder_arrays(
        self,
        micro: Sequence[Example],
        place: dict[int, int],
        totals: Totals,
        rows: int,
    ) -> tuple[Arrays, int]:
        """The decoder's arrays of ``rows`` rows, and the number of its tokens without padding.

        ``place`` is each document's row among the micro-batch's latents.
        """
        prompts = [example.prompts[0] for example in micro]
        count = _round_up(max(map(_labels, prompts)), LENGTH_STEP // 2)
        starts = [_answer_from(prompt) - 1 for prompt in prompts]  # predicted one earlier
        length = max(max(starts) + count, *(len(prompt.ids) for prompt in prompts))
        vectors = []
        for row, (example, prompt) in enumerate(zip(micro, prompts, strict=True)):
            if self.top_k is None:
                chosen = [place[number] for number in example.documents]
            else:  # the top_k documents that are chosen for this row
                chosen = list(range(row * self.top_k, (row + 1) * self.top_k))
            vectors.append(self._sources(prompt, chosen))
        targets = [prompt.ids[_answer_from(prompt) :] for prompt in prompts]
        weights = [[1 / totals.labels] * len(labels) for labels in targets]
        weights += [[0.0]] * (rows - len(micro))
        return {
            "ids": _pad(_fill([p.ids for p in prompts], rows), 0, length),
            "sources": _pad(_fill(vectors, rows), -1, length),
            "answer_starts": mx.array(_fill(starts, rows)),
            "targets": _pad(_fill(targets, rows), 0, count, exact=True),
            "target_weights": _pad(weights, 0.0, count, exact=True),
        }, sum(len(prompt.ids) for prompt in prompts)

    def _sources(self, prompt: DecoderPrompt, documents: list[int]) -> list[int]:
        m = self.memory_tokens
        return [
            -1 if vector < 0 else documents[vector // m] * m + vector % m
            for vector in sources(prompt)
        ]

    def _choices(self, micro: Sequence[Example], place: dict[int, int], rows: int) -> Arrays:
        everything = list(place.values())
        candidates, positives = [], []
        for example in micro:
            own = [place[number] for number in example.documents]
            mine = everything if self.in_batch_negatives else own
            true = {place[number] for number in example.positives}
            candidates.append(mine)
            positives.append([i in true for i in mine])
        return {
            "candidates": _pad(_fill(candidates, rows), -1, step=ROW_STEP),
            "positives": _pad(_fill(positives, rows), False, step=ROW_STEP),
        }


def distinct(micro: Sequence[Example]) -> list[int]:
    """Numbers of the distinct documents of a micro-batch."""
    return list(dict.fromkeys(number for example in micro for number in example.documents))


def _answer_from(prompt: DecoderPrompt) -> int:
    assert prompt.answer_from is not None  # a training prompt has its answer
    return prompt.answer_from


def _labels(prompt: DecoderPrompt) -> int:
    return len(prompt.ids) - _answer_from(prompt)


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def padded_rows(n: int) -> int:
    """Number of rows in the arrays of n things."""
    return n if n <= 2 * ROW_STEP else _round_up(n, ROW_STEP)  # padding few rows costs too much


def _fill(rows: list[_T], count: int) -> list[_T]:
    return rows + rows[:1] * (count - len(rows))


def _weights(n: int, total: int) -> mx.array:
    return mx.array([1 / total] * n + [0.0] * (padded_rows(n) - n))


def _pad(
    rows: list[list[_T]],
    padding: _T,
    least: int = 0,
    *,
    step: int = LENGTH_STEP,
    exact: bool = False,
) -> mx.array:
    """Pad rows on the right to a multiple of ``step``, or to exactly ``least``."""
    width = least if exact else _round_up(max(least, *map(len, rows)), step)
    return mx.array([[*row, *[padding] * (width - len(row))] for row in rows])
