"""Batches for pretraining clara-nano's base: generated outputs, as the encoder and decoder read."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from clara_mlx.chunking import split
from clara_mlx.config import ClaraConfig
from clara_mlx.outputs.generate import LEFT_OUT, TOOLS, generate
from clara_mlx.outputs.probe import Output, Probe
from clara_mlx.prompts import ANSWER_SYSTEM, ANSWER_USER, SLOTS, Prompts
from clara_mlx.tokenizer import TextTokenizer

DOCUMENTS = 32  # of one batch
QUESTIONS = 4  # asked of each compressed document
AMONG_OTHERS = 0.3  # how often one question is also asked over several documents
PARAPHRASED = 2  # documents of each half that are also written out from their latents
LONG = 0.35  # share of documents that are chunks of longer outputs
TEXT_QUESTIONS = 2  # asked of each document that is read as text
POOL = 8  # steps whose documents are drawn together and batched by length
STEP = 8  # lengths are padded to multiples of this, so that few shapes are compiled
AHEAD = 3  # batches made before they are needed


@dataclass
class Rows:
    """Decoder rows, padded on the right.

    Attributes:
        ids: (rows, length) int32 token ids, 0 after the end; memory tokens' own ids at slots.
        slots: (rows, length) int32: which vector of the batch's flattened latents, or -1.
        at: (rows, answer) int32: where in the flattened rows a token's successor is learned.
        labels: (rows, answer) int32 those successors, -1 where there is none.
    """

    ids: np.ndarray
    slots: np.ndarray
    at: np.ndarray
    labels: np.ndarray


@dataclass
class Batch:
    """What one half of a step reads.

    Attributes:
        encoder: (documents, length) int32 encoder inputs, padded on the right.
        memory: (documents, memory_tokens) int32: where in the flattened inputs they stand.
        rows: answers from one document's latents.
        long_rows: answers from the text of a document, or from latents of several; and
            documents written out from their latents.
    """

    encoder: np.ndarray
    memory: np.ndarray
    rows: Rows
    long_rows: Rows

    def arrays(self) -> list[np.ndarray]:
        """All arrays, in a fixed order."""
        parts = [self.encoder, self.memory]
        for rows in (self.rows, self.long_rows):
            parts += [rows.ids, rows.slots, rows.at, rows.labels]
        return parts


@dataclass
class _Row:
    ids: list[int]
    slots: list[int] = field(default_factory=list)  # positions, in the order of the latents
    vectors: list[int] = field(default_factory=list)  # and which vector goes there
    answer: int = 0  # tokens at the end that are learned


_Document = tuple[Output, list[int]]  # and its token ids


class Batches:
    """Deterministic batches: the one of a step depends on the seed and the step alone.

    Args:
        tokenizer: clara-nano's tokenizer.
        config: its CLaRa fields.
        seed: of everything drawn here.
        split: ``train``, or ``test`` for names and values that training never shows.
    """

    def __init__(
        self, tokenizer: TextTokenizer, config: ClaraConfig, seed: int, split: str = "train"
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.seed = seed
        self.split = split
        self.prompts = Prompts(config, tokenizer)
        self.tools = [tool for tool in TOOLS if tool != LEFT_OUT]
        self._pool: tuple[int, list[list[_Document]]] = (-1, [])

    def step(self, step: int, text_share: float, halves: int = 2) -> list[Batch]:
        """The batches of a step, whose documents are of like length.

        Args:
            step: number of the step.
            text_share: share of the documents that the decoder reads as text.
            halves: how many batches the step's documents are split into.
        """
        number, within = divmod(step, POOL)
        if self._pool[0] != number:
            self._pool = number, self._draw(number)
        documents = self._pool[1][within]
        rng = random.Random(f"{self.seed} step {step}")
        rng.shuffle(documents)
        return [self._batch(documents[half::halves], text_share, rng) for half in range(halves)]

    def _draw(self, number: int) -> list[list[_Document]]:
        rng = random.Random(f"{self.seed} pool {number}")
        documents = sorted(
            (self._document(rng) for _ in range(POOL * DOCUMENTS)), key=lambda pair: len(pair[1])
        )
        groups = [documents[at : at + DOCUMENTS] for at in range(0, len(documents), DOCUMENTS)]
        rng.shuffle(groups)
        return groups

    def _document(self, rng: random.Random) -> _Document:
        while True:
            tool = rng.choice(self.tools)
            if rng.random() < LONG:
                output = self._part(generate(rng, tool, self.split, "long"), rng)
            else:
                output = generate(rng, tool, self.split)
            ids = self.tokenizer.encode(output.text)
            if len(ids) <= self.config.doc_max_length and len(output.probes) > 1:
                return output, ids

    def _part(self, output: Output, rng: random.Random) -> Output:
        """One chunk of a long output, with the probes whose evidence is in it."""
        parts = []
        for chunk in split(output.text, self.tokenizer, self.config.doc_max_length):
            inside = [
                replace(probe, start=probe.start - chunk.start, end=probe.end - chunk.start)
                for probe in output.probes
                if chunk.start <= probe.start and probe.end <= chunk.end
            ]
            parts.append(Output(output.tool, output.text[chunk.start : chunk.end], tuple(inside)))
        most = max(len(part.probes) for part in parts)
        return rng.choice([part for part in parts if len(part.probes) in (most, most - 1)])

    def _batch(self, documents: list[_Document], text_share: float, rng: random.Random) -> Batch:
        config = self.config
        as_text = round(text_share * len(documents))
        texts, compressed = documents[:as_text], documents[as_text:]
        inputs = [self.prompts.encoder_input(ids) for _, ids in compressed]
        rows, long_rows = [], []
        for number, (output, _) in enumerate(compressed):
            others = [i for i, (other, _) in enumerate(compressed) if other.tool != output.tool]
            chosen = _some(rng, output.probes, QUESTIONS)
            rows += [self._latent_row([number], probe) for probe in chosen]
            if others and rng.random() < AMONG_OTHERS:
                several = [number, *rng.sample(others, min(len(others), rng.randint(1, 2)))]
                rng.shuffle(several)
                long_rows.append(self._latent_row(several, rng.choice(chosen)))
        for number in range(min(PARAPHRASED, len(compressed))):
            long_rows.append(self._paraphrase_row(number, compressed[number][1]))
        for output, ids in texts:
            chosen = _some(rng, output.probes, TEXT_QUESTIONS)
            long_rows += [self._text_row(ids, probe) for probe in chosen]
        encoder = _padded(inputs)
        ends = np.array([number * encoder.shape[1] + len(ids) for number, ids in enumerate(inputs)])
        memory = ends[:, None] - config.memory_tokens + np.arange(config.memory_tokens)
        return Batch(
            encoder,
            memory.astype(np.int32),
            _rows(rows, QUESTIONS * len(compressed)),
            _rows(long_rows, -(-len(long_rows) // STEP) * STEP),
        )

    def _latent_row(self, documents: list[int], probe: Probe) -> _Row:
        prompt = self.prompts.answer(probe.question, len(documents))
        answer = self._answer(probe)
        size = self.config.memory_tokens
        vectors = [document * size + i for document in documents for i in range(size)]
        return _Row([*prompt.ids, *answer], prompt.slots, vectors, len(answer))

    def _paraphrase_row(self, document: int, text: list[int]) -> _Row:
        prompt = self.prompts.paraphrase(1)
        answer = [*text, self.config.eos_id]
        size = self.config.memory_tokens
        vectors = list(range(document * size, (document + 1) * size))
        return _Row([*prompt.ids, *answer], prompt.slots, vectors, len(answer))

    def _text_row(self, text: list[int], probe: Probe) -> _Row:
        answer = self._answer(probe)
        ids = text_prompt(self.tokenizer, self.config, text, probe.question)
        return _Row([*ids, *answer], answer=len(answer))

    def _answer(self, probe: Probe) -> list[int]:
        return [*self.tokenizer.encode(probe.answer), self.config.eos_id]


def text_prompt(
    tokenizer: TextTokenizer, config: ClaraConfig, text: list[int], question: str
) -> list[int]:
    """The answer prompt with a document's own token ids where its memory tokens would stand."""
    before, after = ANSWER_USER.split(SLOTS)
    head = tokenizer.encode(f" [INST] {ANSWER_SYSTEM}\n\n{before}")
    return [config.bos_id, *head, *text, *tokenizer.encode(f"{after}{question} [/INST]")]


def _some(rng: random.Random, probes: tuple[Probe, ...], wanted: int) -> list[Probe]:
    return rng.sample(probes, min(len(probes), wanted))


def _rows(rows: list[_Row], count: int) -> Rows:
    """``count`` decoder rows; those that are missing learn nothing."""
    answer = _up(max((row.answer for row in rows), default=1))
    at = np.zeros((count, answer), np.int32)
    labels = np.full((count, answer), -1, np.int32)
    ids = _padded([row.ids for row in rows], count)
    slots = np.full(ids.shape, -1, np.int32)
    for number, row in enumerate(rows):
        first = len(row.ids) - row.answer
        at[number, : row.answer] = number * ids.shape[1] + np.arange(first - 1, len(row.ids) - 1)
        labels[number, : row.answer] = row.ids[first:]
        slots[number, row.slots] = row.vectors
    return Rows(ids, slots, at, labels)


def _padded(rows: list[list[int]], count: int | None = None) -> np.ndarray:
    longest = _up(max((len(row) for row in rows), default=1))
    array = np.zeros((count or len(rows), longest), np.int32)
    for number, row in enumerate(rows):
        array[number, : len(row)] = row
    return array


def _up(length: int) -> int:
    return -(-length // STEP) * STEP


def prefetched(
    batches: Batches, shares: Iterable[tuple[int, float]]
) -> Iterator[tuple[int, list[Batch]]]:
    """Step and batches for each (step, text share), made on a thread ahead of their use."""
    waiting: deque[tuple[int, Future[list[Batch]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for step, share in shares:
            waiting.append((step, pool.submit(batches.step, step, share)))
            if len(waiting) > AHEAD:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()
