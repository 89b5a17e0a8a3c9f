"""Batches for pretraining clara-nano's base: documents as the encoder and the decoder read them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from documents import Document, Documents, name_document
from rows import STEP, Row, Rows, pad, pad_rows, round_up

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

DOCUMENTS = 32  # documents of one step
QUESTIONS = 6  # most questions about one document, asked one after the other
ROOM = 112  # tokens that the questions and answers about one document may take
NAMED_SHARE = 0.3  # share of the questions that name their document
COPIED = 1  # documents of each half that are also written out from their text
POOL = 16  # steps whose documents are drawn together and batched by length
AFTER = ANSWER_USER.split(SLOTS)[1]  # the prompt's text between documents and question
BEFORE = 2  # tokens of an encoder input before the text
HEADS = 6  # attention heads of a layer
COPYING = 0  # the head that looks at a text's tokens
CONSTANT = ("tests", "test", "origin", "py", "c")  # parts of answers that latents need not hold
AHEAD = 3  # steps whose batches are made before they are needed


@dataclass(frozen=True)
class Lesson:
    """The kinds of documents of a step, and how they are read."""

    noise: float  # share of documents that are noise; the others are outputs
    text: float  # share that the decoder reads as text and not as latents
    length: tuple[int, int] = (4, 20)  # least and greatest number of tokens of noise
    repeated: bool = True  # noise has few kinds of tokens
    among: float = 0.125  # share of compressed documents read among others, as `ask` reads them
    paraphrased: int = 3  # documents of each half that are also written out from their latents


#: By the step at which each ends, a multiple of POOL.
LESSONS = {
    288: Lesson(noise=1.0, text=0.75, length=(8, 24), repeated=False),  # to copy
    480: Lesson(noise=1.0, text=0.125, length=(2, 12), repeated=False),  # to copy from latents
    800: Lesson(noise=0.0625, text=0.625),  # to find an answer
}
AFTERWARDS = Lesson(noise=0.0625, text=0.1875)  # to find an answer in latents
EXAM = Lesson(noise=0.0, text=0.5)


@dataclass
class Batch:
    """The int32 arrays that one half of a step reads."""

    encoder: np.ndarray  # (documents, length): encoder inputs, padded on the right
    memory: np.ndarray  # (documents, memory_tokens): their positions in the flattened inputs
    #: (3, pointers): a memory token's position in the flattened inputs, the head of it that should
    #: look at a token, and that token's position in its own input, or -1.
    places: np.ndarray
    rows: Rows  # answers and paraphrases from latents
    text_rows: Rows  # answers from a document's text

    def arrays(self) -> list[np.ndarray]:
        """All arrays in a fixed order."""
        inputs = [self.encoder, self.memory, self.places]
        return inputs + self.rows.arrays() + self.text_rows.arrays()


class Batches:
    """Deterministic batches: those of a step depend on the seed and the step alone.

    Args:
        tokenizer: clara-nano's tokenizer.
        config: clara-nano's CLaRa fields.
        seed: Seed of everything that is drawn here.
        split: ``train``, or ``test`` for names and values that training never shows.
    """

    def __init__(
        self, tokenizer: TextTokenizer, config: ClaraConfig, seed: int, split: str = "train"
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._begin = [] if config.bos_id is None else [config.bos_id]
        self.seed = seed
        self.training = split == "train"
        self.prompts = Prompts(config, tokenizer)
        self._documents = Documents(tokenizer, config.doc_max_length, split)
        self._pool: tuple[int, list[list[Document]]] = (-1, [])

    def step(self, step: int, halves: int = 2) -> list[Batch]:
        """Make the batches of a step, whose outputs have similar lengths.

        Args:
            step: Number of the step.
            halves: Number of batches that the step's documents are split into.
        """
        number, within = divmod(step, POOL)
        lesson = self._lesson(step)
        if self._pool[0] != number:
            self._pool = number, self._draw_pool(number, lesson)
        documents = self._pool[1][within]
        rng = random.Random(f"{self.seed} step {step}")
        rng.shuffle(documents)
        return [self._make_batch(documents[half::halves], lesson, rng) for half in range(halves)]

    def _lesson(self, step: int) -> Lesson:
        if not self.training:
            return EXAM
        return next((lesson for end, lesson in LESSONS.items() if step < end), AFTERWARDS)

    def _draw_pool(self, number: int, lesson: Lesson) -> list[list[Document]]:
        """Draw the documents of POOL steps, the outputs of each step similar in length."""
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
            + [source.draw_noise(rng, *lesson.length, lesson.repeated) for _ in range(noise)]
            for at in range(POOL)
        ]
        rng.shuffle(groups)
        return groups

    def _make_batch(self, documents: list[Document], lesson: Lesson, rng: random.Random) -> Batch:
        """Split documents into texts and compressed ones, and make all arrays from them."""
        as_text = round(lesson.text * len(documents))
        texts, compressed = documents[:as_text], documents[as_text:]
        places = [self._assign_places(output, ids) for output, ids in compressed]
        rows = self._latent_rows(compressed, places, lesson, rng)
        text_rows = self._text_rows(texts, rng)
        inputs = [self.prompts.encoder_input(ids) for _, ids in compressed]
        encoder = pad(inputs)
        size = self.config.memory_tokens
        ends = np.array([number * encoder.shape[1] + len(ids) for number, ids in enumerate(inputs)])
        memory = ends[:, None] - size + np.arange(size)  # (documents, memory_tokens)
        pointers = [
            (memory[number, slot], head, BEFORE + i)
            for number, of_document in enumerate(places)
            for i, (slot, head) in of_document.items()
        ]
        pointers += [(0, 0, -1)] * (round_up(len(pointers), 8 * STEP) - len(pointers))
        return Batch(
            encoder,
            memory.astype(np.int32),
            np.array(pointers, np.int32).T,
            pad_rows(rows),
            pad_rows(text_rows),
        )

    def _latent_rows(
        self,
        compressed: list[Document],
        places: list[dict[int, tuple[int, int]]],
        lesson: Lesson,
        rng: random.Random,
    ) -> list[Row]:
        """Rows with questions to compressed documents, some among others, and paraphrases."""
        rows, size = [], self.config.memory_tokens
        for number, (output, ids) in enumerate(compressed):
            among = [number]
            if rng.random() < lesson.among:
                among += self._choose_others(number, compressed, rng)
                rng.shuffle(among)
            prompt = self.prompts.answer("", len(among))
            head = prompt.ids[: prompt.slots[-1] + 2]  # up to the last <SEP>
            vectors = [document * size + i for document in among for i in range(size)]
            if output.probes:
                first = vectors.index(number * size)
                own = prompt.slots[first : first + size]
                sources = {i: (own[slot], h) for i, (slot, h) in places[number].items()}
                row = Row(head, prompt.slots, vectors)
                rows.append(self._append_questions(row, output, rng, sources))
            if number < lesson.paraphrased or not output.probes:
                vectors = list(range(number * size, (number + 1) * size))
                rows.append(self._paraphrase_row(vectors, ids, places[number]))
        return rows

    def _text_rows(self, texts: list[Document], rng: random.Random) -> list[Row]:
        """Rows with questions to documents that are read as text, and copies of some."""
        before = ANSWER_USER.split(SLOTS)[0]
        instructions = self.tokenizer.encode(f" [INST] {ANSWER_SYSTEM}\n\n{before}")
        head = [*self._begin, *instructions]
        rows = []
        for number, (output, ids) in enumerate(texts):
            if output.probes:
                sources = {i: (len(head) + i, COPYING) for i in range(len(ids))}
                rows.append(self._append_questions(Row([*head, *ids]), output, rng, sources))
            if number < COPIED or not output.probes:
                rows.append(self._copy_row(ids))
        return rows

    def _assign_places(self, output: Output, ids: list[int]) -> dict[int, tuple[int, int]]:
        """Give tokens places in the latents: by position, a memory token and one of its heads.

        Without a convention, a small model needs thousands of steps to agree with itself on where
        it puts things. Here each fact has one memory token, and three of its heads.
        """
        size = self.config.memory_tokens
        if not output.probes:
            return {i: divmod(i, HEADS) for i in range(min(len(ids), size * HEADS))}
        places: dict[int, tuple[int, int]] = {}
        ends = self.tokenizer.ends(output.text)
        spans = sorted({(probe.start, probe.end) for probe in output.probes})
        for number, (start, end) in enumerate(spans[: 2 * size]):
            layer, slot = divmod(number, size)
            fact = [i for i, at in enumerate(ends) if start < at <= end and self._varies(ids[i])]
            places |= {i: (slot, 3 * layer + n) for n, i in enumerate(fact[-3:])}
        return places

    def _varies(self, id: int) -> bool:
        """Whether a token of an answer differs from document to document."""
        token = self.tokenizer.decode([id])
        return token.isalnum() and token not in CONSTANT

    def _append_questions(
        self, row: Row, output: Output, rng: random.Random, sources: dict[int, tuple[int, int]]
    ) -> Row:
        """Append questions and answers to a row, the first as in an answer prompt.

        The later ones don't need the document to be read again.

        Args:
            row: A prompt up to the question; it is changed and returned.
            output: The document, whose probes are asked.
            rng: The only source of chance.
            sources: By position of the output's tokens: the position in the row to copy them from,
                and the head that should look there.
        """
        most = len(row.ids) + ROOM
        ends, ids = self.tokenizer.ends(output.text), self.tokenizer.encode(output.text)
        for probe in rng.sample(output.probes, min(len(output.probes), QUESTIONS)):
            asked = probe.question
            if rng.random() < NAMED_SHARE:
                asked = name_document(output, probe, rng)
            question = self.tokenizer.encode(f"{AFTER}{asked} [/INST]")
            answer = [*self.tokenizer.encode(probe.answer), self.config.eos_id]
            first = len(row.ids) + len(question)
            if not row.answers or first + len(answer) <= most:
                row.ids += question + answer
                row.answers.append(range(first, len(row.ids)))
                fact = [i for i, end in enumerate(ends) if probe.start < end <= probe.end]
                skipped = len(answer) - 1 - len(fact)  # the blank that answers begin with
                if skipped >= 0 and [ids[i] for i in fact] == answer[skipped:-1]:
                    row.sources |= {
                        first + skipped + n: sources[i] for n, i in enumerate(fact) if i in sources
                    }
        return row

    def _choose_others(
        self, number: int, documents: list[Document], rng: random.Random
    ) -> list[int]:
        """Choose one or two documents of other tools, to which no question of this one applies."""
        output = documents[number][0]
        asked = {probe.question for probe in output.probes}
        others = [
            i
            for i, (other, _) in enumerate(documents)
            if other.tool != output.tool and asked.isdisjoint(p.question for p in other.probes)
        ]
        return rng.sample(others, min(len(others), rng.randint(1, 2)))

    def _copy_row(self, text: list[int]) -> Row:
        """A row that writes a document out from its own text, which teaches a model to copy."""
        opening, closing = PARAPHRASE_USER.split(SLOTS)
        encode = self.tokenizer.encode
        head = encode(f" [INST] {PARAPHRASE_SYSTEM}\n\n{opening}")
        ids = [*self._begin, *head, *text, *encode(f"{closing} [/INST]")]
        answer = [*text, self.config.eos_id]
        start = len(self._begin) + len(head)
        return Row(
            [*ids, *answer],
            answers=[range(len(ids), len(ids) + len(answer))],
            sources={len(ids) + i: (start + i, COPYING) for i in range(len(text))},
        )

    def _paraphrase_row(
        self, vectors: list[int], text: list[int], places: dict[int, tuple[int, int]]
    ) -> Row:
        """A row that writes a document out from its latents."""
        prompt = self.prompts.paraphrase(1)
        ids = [*prompt.ids, *text, self.config.eos_id]
        start = len(prompt.ids)
        sources = {start + i: (prompt.slots[slot], head) for i, (slot, head) in places.items()}
        return Row(ids, prompt.slots, vectors, [range(start, len(ids))], sources)


def prefetch(batches: Batches, steps: Iterable[int]) -> Iterator[tuple[int, list[Batch]]]:
    """Yield each step with its batches, which a thread makes ahead of their use."""
    waiting: deque[tuple[int, Future[list[Batch]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for step in steps:
            waiting.append((step, pool.submit(batches.step, step)))
            if len(waiting) > AHEAD:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()
