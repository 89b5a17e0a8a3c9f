"""Asking: encode a question, choose the hits worth reading, and answer from their latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from clara_mlx.errors import ClaraError
from clara_mlx.model import chunking
from clara_mlx.model.thread import ModelThread, Priority
from clara_mlx.store import asked, fields, forms, words
from clara_mlx.store.calibration import UNMEASURED, Calibration
from clara_mlx.store.filters import Where
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.results import Hit

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import LatentCompressor

Array = np.ndarray[Any, Any]

#: The share of a question's words, by their rarity, that makes a chunk worth reading whatever the
#: model says of it.
ENOUGH_WORDS = 0.2

NOTHING_FOUND = "Nothing relevant is remembered."


@dataclass(frozen=True)
class Answer:
    """An answer from memory tokens, and the exact text it was given from."""

    text: str
    evidence: list[Hit]
    tokens_read: int  # memory tokens and separators, or tokens, that stand for that text
    tokens_saved: int  # tokens of that text, less tokens_read
    passes: int  # decoder passes; 0 if nothing relevant was found
    grounded: bool = True  # false: none of its words stands in the evidence
    answered: bool = True  # false: the compressor only shortens texts, and the text is what it kept


def check_question(question: str) -> None:
    """Refuse a question that is no text, or has nothing but white space.

    Raises:
        ClaraError: It is one of these.
    """
    fields.check_query(question)
    if not question.strip():
        raise ClaraError("the question is empty; say what to look for")


def is_narrow(where: Where) -> bool:
    """Whether a filter names what to look in, which then has to do with the question."""
    return any(value is not None for value in (where or {}).values())


def floor_for(where: Where, floor: float | None) -> float | None:
    """The floor of a question: none but a given one where its text is named by its handle."""
    if floor is None and (where or {}).get("handle") is not None:
        return float("-inf")
    return floor


def naming(hits: list[Hit]) -> list[Hit]:
    """The hits worth reading where only words were searched: those with enough of the question."""
    return [hit for hit in hits if (hit.share or 0.0) >= ENOUGH_WORDS]


def relevant(hits: list[Hit], floor: float | None, unrelated: Calibration | None) -> list[Hit]:
    """The hits worth reading: those from the floor on, and those that are not compressed yet.

    Args:
        hits: What was found.
        floor: Least centred cosine. If there is none, it is that of questions that have nothing to
            do with the memory, and hits with enough of the question's words are worth reading, too.
        unrelated: What such questions score; None if it is not measured, or a filter names what to
            look in.
    """
    least_share = ENOUGH_WORDS if floor is None else float("inf")
    if floor is None:
        floor = (unrelated or UNMEASURED).floor
    return [
        hit
        for hit in hits
        if hit.cosine is None or hit.cosine >= floor or (hit.share or 0.0) >= least_share
    ]


def is_grounded(answer: str, question: str, evidence: list[Hit]) -> bool:
    """Whether any word of an answer stands in its evidence, the question's own words aside.

    An answer that has no other words than the question's is looked for with these.
    """
    given = {word for word, _ in words.words_with_parts(question)}
    found = [word.text for word in asked.read(answer).words]
    wanted = [word for word in found if word not in given] or found
    known: set[str] = set()
    for hit in evidence:
        for word, parts in words.words_with_parts(hit.text):
            known.update((word, *parts))
    stems = {forms.stem(word) for word in known}
    return not wanted or any(word in known or forms.stem(word) in stems for word in wanted)


def encode_query(query: str, compressor: LatentCompressor, model_thread: ModelThread) -> Array:
    """A query as chunks are compared with it, (memory_tokens, hidden) or (1, hidden).

    Of a long one, it is the mean over its chunks.
    """
    chunks = chunking.split(query, compressor.tokenizer, compressor.chunk_tokens)
    pieces = [query[chunk.start : chunk.end] for chunk in chunks] or [""]

    def encode() -> Array:
        encoded = np.stack([np.array(compressor.encode_query(piece)) for piece in pieces]).mean(0)
        return encoded.reshape(-1, encoded.shape[-1])

    return model_thread.run(Priority.QUESTION, encode)


def encode_text(text: str, compressor: LatentCompressor) -> tuple[list[Array], int]:
    """The latents of a text's chunks, each (vectors, hidden), and its tokens.

    To be called in the model's thread.
    """
    chunks = list(chunking.split(text, compressor.tokenizer, compressor.chunk_tokens))
    latents = compressor.encode_chunks([text[chunk.start : chunk.end] for chunk in chunks])
    return latents, sum(chunk.tokens for chunk in chunks)


def stream_answer(
    question: str,
    hits: list[Hit],
    latents: LatentTable,
    compressor: LatentCompressor,
    model_thread: ModelThread,
    max_tokens: int,
) -> Iterator[str | Answer]:
    """The answer piece by piece, and the whole `Answer` last.

    Documents that do not fit the decoder's window together are read in passes, best first. The
    answers of the passes are joined in that order, one a line, without repetitions.

    Raises:
        ClaraError: The question leaves no room for a single document.
    """
    if not hits:
        yield NOTHING_FOUND
        yield Answer(NOTHING_FOUND, [], 0, 0, 0)
        return
    documents = _documents(hits, latents, compressor, model_thread)
    room = compressor.documents_that_fit(question, max_tokens)
    if room == 0:
        raise ClaraError("the question leaves no room for a document; shorten it")
    stream: Callable[..., Iterator[str]] = compressor.stream_answer
    # What stands in a compressor's place may have the attribute and not the option.
    if getattr(compressor, "takes_texts", False) and _has_option(stream, "texts"):
        stream = partial(stream, texts=[hit.text for hit in hits])
    answers: list[str] = []
    passes = range(0, len(documents), room)
    for start in passes:
        batch = documents[start : start + room]
        answer = partial(stream, question, batch, max_tokens)
        text = ""
        for piece in model_thread.stream(Priority.QUESTION, answer):
            text += piece
            yield piece
        if text.strip() and text.strip() not in answers:
            answers.append(text.strip())
        if start != passes[-1]:
            yield "\n"
    read = sum(len(document) + compressor.separators for document in documents)
    tokens = sum(len(ids) for ids in compressor.tokenizer.encode_batch([hit.text for hit in hits]))
    whole = "\n".join(answers)
    grounded = is_grounded(whole, question, hits)
    yield Answer(whole, hits, read, tokens - read, len(passes), grounded)


def _has_option(function: Callable[..., Any], name: str) -> bool:
    """Whether a function can be called with an option of this name."""
    parameters = signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _documents(
    hits: list[Hit],
    latents: LatentTable,
    compressor: LatentCompressor,
    model_thread: ModelThread,
) -> list[Array]:
    """Latents (vectors, hidden) of hits, best first.

    A hit that the background work has not reached is compressed now, and may become several
    documents.
    """
    compressed = latents.present([hit.chunk_id for hit in hits])
    documents: list[Array] = []
    for hit in hits:
        if hit.chunk_id in compressed:
            documents.extend(latents.latents([hit.chunk_id]))
        else:
            encode = partial(encode_text, hit.text, compressor)
            documents.extend(model_thread.run(Priority.QUESTION, encode)[0])
    return documents
