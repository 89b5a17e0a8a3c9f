"""Borrowing: a compressor whose model another process of the same user has open (`lending`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from multiprocessing.connection import Client, Connection
from typing import Any, ClassVar, Literal

from clara_mlx.compressors.compressor import Floats
from clara_mlx.compressors.lending import (
    ATTRIBUTES,
    RAISED_AS_THEY_ARE,
    receive,
    send,
    socket_path,
    stamp,
)
from clara_mlx.errors import ClaraError
from clara_mlx.model.tokenizer import TextTokenizer

logger = logging.getLogger(__name__)


def borrow(model: str) -> Borrowed | None:
    """The compressor of a model, if a process that has it open lends it; else None.

    Args:
        model: The model's folder, or a hub id, by which that process opened it.
    """
    try:
        borrowed = Borrowed(Client(str(socket_path(model)), "AF_UNIX"))
        if borrowed.stamp == stamp(model):
            logger.debug("%s: process %d has it open, and lends it", model, borrowed.process)
            return borrowed
        logger.debug("%s: it was made anew since process %d opened it", model, borrowed.process)
    except (OSError, EOFError, ClaraError) as error:
        logger.debug("%s: nobody lends it (%s)", model, error)
    return None


class Borrowed:
    """A `LatentCompressor` that another process works for.

    Raises:
        OSError, EOFError: There is no such process any more.
    """

    kind: ClassVar[Literal["latent"]] = "latent"
    name: str
    fingerprint: str
    chunk_tokens: int
    latent_shape: tuple[int, int]
    pooling: Literal["flat", "mean"]
    searches: bool
    separators: int

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        send(connection, {"call": "about"})
        about = receive(connection)[0].get("done", {})
        if missing := [one for one in (*ATTRIBUTES, "stamp", "process") if one not in about]:
            raise ClaraError(f"its process is of another version, and does not say {missing}")
        for one in ATTRIBUTES:
            setattr(self, one, about[one])
        self.latent_shape = (about["latent_shape"][0], about["latent_shape"][1])
        #: What the folder was when its process opened it; see `lending.stamp`.
        self.stamp: str = about["stamp"]
        #: Its number.
        self.process: int = about["process"]

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """What texts are cut into chunks by."""
        return TextTokenizer(self._ask("tokenizer")[0])

    def encode_chunks(self, texts: Sequence[str], /) -> list[Floats]:
        """The vectors of each text; see `LatentCompressor`."""
        return self._ask("encode_chunks", texts=list(texts))[1]

    def encode_query(self, text: str, /) -> Floats:
        """A question as chunks are compared with it; see `LatentCompressor`."""
        return self._ask("encode_query", text=text)[1][0]

    def documents_that_fit(self, question: str, max_tokens: int, /) -> int:
        """How many documents fit beside a question; see `LatentCompressor`."""
        return int(self._ask("documents_that_fit", question=question, max_tokens=max_tokens)[0])

    def stream_answer(
        self, question: str, documents: Sequence[Floats], max_tokens: int, /
    ) -> Iterator[str]:
        """Answer a question, piece by piece; see `LatentCompressor`."""
        given = {"call": "stream_answer", "question": question, "max_tokens": max_tokens}
        try:
            send(self._connection, given, documents)
            while "piece" in (reply := self._receive()[0]):
                yield reply["piece"]
        except (OSError, EOFError) as error:
            raise self._gone() from error

    def _ask(self, call: str, **given: Any) -> tuple[Any, list[Floats]]:
        try:
            send(self._connection, {"call": call, **given})
            reply, arrays = self._receive()
        except (OSError, EOFError) as error:
            raise self._gone() from error
        return reply["done"], arrays

    def _receive(self) -> tuple[dict[str, Any], list[Floats]]:
        """A reply, or its error as this process would raise it."""
        reply, arrays = receive(self._connection)
        if "error" in reply:
            for kind in RAISED_AS_THEY_ARE:
                if reply["name"] == kind.__name__:
                    raise kind(**reply["about"])
            raise ClaraError(reply["error"])
        return reply, arrays

    def _gone(self) -> ClaraError:
        return ClaraError(
            f"the process that had the model open ({self.process}) has ended; run the command "
            "again, and it opens the model itself"
        )
