"""Asking: a question's latents, the hits that count and theirs, passes when they don't all fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from clara_mlx.errors import ClaraError
from clara_mlx.model import chunking
from clara_mlx.model.thread import ModelThread, Priority
from clara_mlx.store.results import Answer, Hit
from clara_mlx.store.space import Space

if TYPE_CHECKING:
    from clara_mlx.model.clara import Clara

NOTHING_FOUND = "Nothing relevant is remembered."


def relevant(hits: list[Hit], floor: float) -> list[Hit]:
    """The hits worth reading: at or above the floor, or found by words and not compressed yet."""
    return [hit for hit in hits if hit.cosine is None or hit.cosine >= floor]


def encode_query(query: str, clara: Clara, model: ModelThread) -> np.ndarray[Any, Any]:
    """A query's latents (memory_tokens, hidden); a long one is not cut, but its chunks' mean."""
    chunks = chunking.split(query, clara.tokenizer, clara.config.doc_max_length)
    pieces = [query[chunk.start : chunk.end] for chunk in chunks] or [""]

    def encode() -> np.ndarray[Any, Any]:
        return np.stack([np.array(clara.encode_query(piece)) for piece in pieces]).mean(0)

    return model.run(Priority.QUESTION, encode)


def stream_answer(
    question: str, hits: list[Hit], space: Space, clara: Clara, model: ModelThread, max_tokens: int
) -> Iterator[str | Answer]:
    """The answer piece by piece, and the whole `Answer` last.

    If the documents do not fit the decoder's window they are read in passes, best first. The
    passes' answers are joined in that order, one a line, each once.

    Raises:
        ClaraError: the question leaves no room for a single document.
    """
    if not hits:
        yield NOTHING_FOUND
        yield Answer(NOTHING_FOUND, [], 0, 0, 0)
        return
    documents = _documents(hits, space, clara, model)
    room = clara.documents_that_fit(question, max_tokens)
    if room == 0:
        raise ClaraError("the question leaves no room for a document; shorten it")
    answers: list[str] = []
    passes = range(0, len(documents), room)
    for start in passes:
        said = ""
        for piece in model.stream(
            Priority.QUESTION,
            lambda batch=documents[start : start + room]: clara.stream_answer(  # type: ignore[misc]
                question, batch, max_tokens
            ),
        ):
            said += piece
            yield piece
        if said.strip() and said.strip() not in answers:
            answers.append(said.strip())
        if start != passes[-1]:
            yield "\n"
    read = len(documents) * (clara.config.memory_tokens + 1)  # with <SEP>
    tokens = sum(len(ids) for ids in clara.tokenizer.encode_batch([hit.text for hit in hits]))
    yield Answer("\n".join(answers), hits, read, tokens - read, len(passes))


def _documents(
    hits: list[Hit], space: Space, clara: Clara, model: ModelThread
) -> np.ndarray[Any, Any]:
    """Latents (documents, memory_tokens, hidden) of hits, best first.

    A hit that the background work has not reached is compressed now, and may be several documents.
    """
    there = space.present([hit.chunk_id for hit in hits])
    documents = []
    for hit in hits:
        if hit.chunk_id in there:
            documents.append(space.latents([hit.chunk_id]))
        else:
            compress = model.submit(
                Priority.QUESTION,
                lambda text=hit.text: np.array(clara.compress(text).latents),  # type: ignore[misc]
            )
            documents.append(compress.result())
    return np.concatenate(documents)
