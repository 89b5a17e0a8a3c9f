"""Batches for pretraining clara-nano's base: generated outputs, as the encoder and decoder read."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from documents import Document, Documents, named
from rows import STEP, Row, Rows, padded, padded_rows, up

from clara_mlx.evaluate.probes.probe import Output
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.prompts import (
    ANSWER_SYSTEM,
    ANSWER_USER,
    PARAPHRASE_SYSTEM,
    PARAPHRASE_USER,
    SLOTS,
    Prompts,
)
from clara_mlx.model.tokenizer import TextTokenizer

DOCUMENTS = 32  # of one step
QUESTIONS = 6  # asked one after the other of each document, at most,
ROOM = 112  # in this many tokens
NAMED = 0.3  # of the questions name their document
COPIED = 1  # documents of each half that are written out from their text
POOL = 16  # steps whose documents are drawn together and batched by length
AFTER = ANSWER_USER.split(SLOTS)[1]  # what precedes the question
BEFORE = 2  # tokens of an encoder input that precede the text
HEADS = 6  # of a layer
COPYING = 0  # the head that looks at a text's tokens
CONSTANT = ("tests", "test", "origin", "py", "c")  # in answers; they need no place in latents
AHEAD = 3  # batches made before they are needed


@dataclass(frozen=True)
class Lesson:
    """What a step's documents are, and how they are read.

    Attributes:
        noise: share that is noise; the others are outputs.
        text: share that the decoder reads as text, not as latents.
        length: tokens of noise, at least and at most.
        repeated: noise is of few kinds of tokens.
        among: share of the compressed documents that are read among others, as `ask` does.
        paraphrased: documents of each half that are also written out from their latents.
    """

    noise: float
    text: float
    length: tuple[int, int] = (4, 20)
    repeated: bool = True
    among: float = 0.125
    paraphrased: int = 3


LESSONS = {  # by the step that each lasts to, a multiple of POOL
    288: Lesson(noise=1.0, text=0.75, length=(8, 24), repeated=False),  # copying
    480: Lesson(noise=1.0, text=0.125, length=(2, 12), repeated=False),  # from latents
    800: Lesson(noise=0.0625, text=0.625),  # finding
}
AFTERWARDS = Lesson(noise=0.0625, text=0.1875)  # in latents
EXAM = Lesson(noise=0.0, text=0.5)


@dataclass
class Batch:
    """What one half of a step reads.

    Attributes:
        encoder: (documents, length) int32 encoder inputs, padded on the right.
        memory: (documents, memory_tokens) int32: where in the flattened inputs they stand.
        places: (3, shown) int32: where in the flattened inputs a memory token stands, which of its
            heads is to look at a token, and where in the input that stands, or -1.
        rows: answers and paraphrases from latents.
        text_rows: answers from a document's text.
    """

    encoder: np.ndarray
    memory: np.ndarray
    places: np.ndarray
    rows: Rows
    text_rows: Rows

    def arrays(self) -> list[np.ndarray]:
        """All arrays, in a fixed order."""
        inputs = [self.encoder, self.memory, self.places]
        return inputs + self.rows.arrays() + self.text_rows.arrays()


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
        self.training = split == "train"
        self.prompts = Prompts(config, tokenizer)
        self._documents = Documents(tokenizer, config.doc_max_length, split)
        self._pool: tuple[int, list[list[Document]]] = (-1, [])

    def step(self, step: int, halves: int = 2) -> list[Batch]:
        """The batches of a step, whose outputs are of like length.

        Args:
            step: number of the step.
            halves: how many batches the step's documents are split into.
        """
        number, within = divmod(step, POOL)
        lesson = self._lesson(step)
        if self._pool[0] != number:
            self._pool = number, self._draw(number, lesson)
        documents = self._pool[1][within]
        rng = random.Random(f"{self.seed} step {step}")
        rng.shuffle(documents)
        return [self._batch(documents[half::halves], lesson, rng) for half in range(halves)]

    def _lesson(self, step: int) -> Lesson:
        if not self.training:
            return EXAM
        return next((lesson for end, lesson in LESSONS.items() if step < end), AFTERWARDS)

    def _draw(self, number: int, lesson: Lesson) -> list[list[Document]]:
        rng = random.Random(f"{self.seed} pool {number}")
        source = self._documents
        noise = round(lesson.noise * DOCUMENTS)
        outputs = DOCUMENTS - noise
        drawn = sorted(
            (source.draw(rng) for _ in range(POOL * outputs)),
            key=lambda document: len(document[1]),
        )
        groups = [
            drawn[at * outputs : (at + 1) * outputs]
            + [source.noise(rng, *lesson.length, lesson.repeated) for _ in range(noise)]
            for at in range(POOL)
        ]
        rng.shuffle(groups)
        return groups

    def _batch(self, documents: list[Document], lesson: Lesson, rng: random.Random) -> Batch:
        config = self.config
        as_text = round(lesson.text * len(documents))
        texts, compressed = documents[:as_text], documents[as_text:]
        inputs = [self.prompts.encoder_input(ids) for _, ids in compressed]
        rows, size = [], config.memory_tokens
        places = [self._places(output, ids) for output, ids in compressed]
        for number, (output, ids) in enumerate(compressed):
            among = [number]
            if rng.random() < lesson.among:
                among += self._others(number, compressed, rng)
                rng.shuffle(among)
            prompt = self.prompts.answer("", len(among))
            head = prompt.ids[: prompt.slots[-1] + 2]  # up to the last <SEP>
            vectors = [document * size + i for document in among for i in range(size)]
            if output.probes:
                first = vectors.index(number * size)
                own = prompt.slots[first : first + size]
                held = {i: (own[slot], h) for i, (slot, h) in places[number].items()}
                rows.append(self._asked(Row(head, prompt.slots, vectors), output, rng, held))
            if number < lesson.paraphrased or not output.probes:
                vectors = list(range(number * size, (number + 1) * size))
                rows.append(self._paraphrase(vectors, ids, places[number]))
        before = ANSWER_USER.split(SLOTS)[0]
        head = [config.bos_id, *self.tokenizer.encode(f" [INST] {ANSWER_SYSTEM}\n\n{before}")]
        text_rows = []
        for number, (output, ids) in enumerate(texts):
            if output.probes:
                held = {i: (len(head) + i, COPYING) for i in range(len(ids))}
                text_rows.append(self._asked(Row([*head, *ids]), output, rng, held))
            if number < COPIED or not output.probes:
                text_rows.append(self._copied(ids))
        encoder = padded(inputs)
        ends = np.array([number * encoder.shape[1] + len(ids) for number, ids in enumerate(inputs)])
        memory = ends[:, None] - size + np.arange(size)
        shown = [
            (memory[number, slot], head, BEFORE + i)
            for number, (_, ids) in enumerate(compressed)
            for i, (slot, head) in places[number].items()
        ]
        shown += [(0, 0, -1)] * (up(len(shown), 8 * STEP) - len(shown))
        return Batch(
            encoder,
            memory.astype(np.int32),
            np.array(shown, np.int32).T,
            padded_rows(rows),
            padded_rows(text_rows),
        )

    def _places(self, output: Output, ids: list[int]) -> dict[int, tuple[int, int]]:
        """Tokens that have a place of their own in the latents: which memory token, which head.

        Without a convention it takes a small model thousands of steps to agree with itself on
        where it puts what. Here each fact has a memory token and three heads of it.
        """
        size = self.config.memory_tokens
        if not output.probes:
            return {i: divmod(i, HEADS) for i in range(min(len(ids), size * HEADS))}
        places: dict[int, tuple[int, int]] = {}
        ends = self.tokenizer.ends(output.text)
        spans = sorted({(probe.start, probe.end) for probe in output.probes})
        for number, (start, end) in enumerate(spans[: 2 * size]):
            layer, slot = divmod(number, size)
            said = [i for i, at in enumerate(ends) if start < at <= end and self._varies(ids[i])]
            places |= {i: (slot, 3 * layer + n) for n, i in enumerate(said[-3:])}
        return places

    def _varies(self, id: int) -> bool:
        token = self.tokenizer.decode([id])
        return token.isalnum() and token not in CONSTANT

    def _asked(
        self, row: Row, output: Output, rng: random.Random, held: dict[int, tuple[int, int]]
    ) -> Row:
        """The row with questions and answers appended, the first as in an answer prompt.

        The later ones cost no second reading of the document.

        Args:
            row: a prompt up to the question.
            output: whose probes are asked.
            rng: the only source of chance.
            held: of the output's tokens: where in the row they are to be had, and by which head.
        """
        most = len(row.ids) + ROOM
        ends, ids = self.tokenizer.ends(output.text), self.tokenizer.encode(output.text)
        for probe in rng.sample(output.probes, min(len(output.probes), QUESTIONS)):
            asked = named(output, probe, rng) if rng.random() < NAMED else probe.question
            question = self.tokenizer.encode(f"{AFTER}{asked} [/INST]")
            answer = [*self.tokenizer.encode(probe.answer), self.config.eos_id]
            first = len(row.ids) + len(question)
            if not row.answers or first + len(answer) <= most:
                row.ids += question + answer
                row.answers.append(range(first, len(row.ids)))
                said = [i for i, end in enumerate(ends) if probe.start < end <= probe.end]
                copied = len(answer) - 1 - len(said)  # after the blank that answers begin with
                if copied >= 0 and [ids[i] for i in said] == answer[copied:-1]:
                    row.sources |= {
                        first + copied + n: held[i] for n, i in enumerate(said) if i in held
                    }
        return row

    def _others(self, number: int, documents: list[Document], rng: random.Random) -> list[int]:
        """One or two other documents, of other tools and without the same questions."""
        output = documents[number][0]
        asked = {probe.question for probe in output.probes}
        others = [
            i
            for i, (other, _) in enumerate(documents)
            if other.tool != output.tool and asked.isdisjoint(p.question for p in other.probes)
        ]
        return rng.sample(others, min(len(others), rng.randint(1, 2)))

    def _copied(self, text: list[int]) -> Row:
        """A document written out from its own text: what teaches a small model to copy at all."""
        opening, closing = PARAPHRASE_USER.split(SLOTS)
        encode = self.tokenizer.encode
        head = encode(f" [INST] {PARAPHRASE_SYSTEM}\n\n{opening}")
        ids = [self.config.bos_id, *head, *text, *encode(f"{closing} [/INST]")]
        answer = [*text, self.config.eos_id]
        start = 1 + len(head)
        return Row(
            [*ids, *answer],
            answers=[range(len(ids), len(ids) + len(answer))],
            sources={len(ids) + i: (start + i, COPYING) for i in range(len(text))},
        )

    def _paraphrase(
        self, vectors: list[int], text: list[int], places: dict[int, tuple[int, int]]
    ) -> Row:
        prompt = self.prompts.paraphrase(1)
        ids = [*prompt.ids, *text, self.config.eos_id]
        start = len(prompt.ids)
        sources = {start + i: (prompt.slots[slot], head) for i, (slot, head) in places.items()}
        return Row(ids, prompt.slots, vectors, [range(start, len(ids))], sources)


def prefetched(batches: Batches, steps: Iterable[int]) -> Iterator[tuple[int, list[Batch]]]:
    """Each step with its batches, made on a thread ahead of their use."""
    waiting: deque[tuple[int, Future[list[Batch]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for step in steps:
            waiting.append((step, pool.submit(batches.step, step)))
            if len(waiting) > AHEAD:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()
