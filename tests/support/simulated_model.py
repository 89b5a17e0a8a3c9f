"""A compressor that computes nothing: it takes the time a model would, and says what it was given.

Its latents are drawn from a text's hash, so equal texts have equal latents, and a search by the
text itself finds it. It needs no MLX, so a process with it starts fast.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clara_mlx.errors import ClaraError
from clara_mlx.model.tokenizer import TextTokenizer

_TOKENIZER = Path(__file__).parents[1] / "golden" / "tiny-base" / "tokenizer.json"


@cache
def _tokenizer() -> TextTokenizer:
    return TextTokenizer(_TOKENIZER.read_text(encoding="utf-8"))


class SimulatedModel:
    """A latent compressor for tests and benches of what is around a model.

    Args:
        log: A file to which the hash of each text that is encoded is appended; None keeps none.
        seconds: The time that a chunk takes, as on a GPU that nothing else uses; a batch takes it
            for each of its chunks.
        fingerprint: What stands for another model.
        poison: A word; a text that has it can't be encoded.
    """

    kind: Literal["latent"] = "latent"
    name = "simulated"
    pooling: Literal["flat", "mean"] = "flat"
    searches = True
    separators = 2

    def __init__(
        self,
        log: Path | None = None,
        seconds: float = 0.0,
        fingerprint: str = "a model",
        *,
        poison: str | None = None,
        chunk_tokens: int = 128,
    ) -> None:
        self.fingerprint = fingerprint
        self.tokenizer = _tokenizer()
        self.chunk_tokens = chunk_tokens
        self.latent_shape = (4, 64)
        self._seconds = seconds
        self._log = None if log is None else os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._poison = poison

    def encode_chunks(self, texts: Sequence[str]) -> list[Any]:
        if self._poison and any(self._poison in text for text in texts):
            raise ClaraError("it was poisoned")
        time.sleep(self._seconds * len(texts))
        if self._log is not None:
            os.write(self._log, "".join(f"{_digest(text).hex()}\n" for text in texts).encode())
        return [self._latents(text) for text in texts]

    def encode_query(self, text: str) -> Any:
        return self._latents(text)

    def stream_answer(
        self, question: str, documents: Sequence[Any], max_tokens: int
    ) -> Iterator[str]:
        yield f"{len(documents)} documents"

    def documents_that_fit(self, question: str, max_tokens: int) -> int:
        return 8

    def _latents(self, text: str) -> Any:
        seed = int.from_bytes(_digest(text + self.fingerprint)[:8], "big")
        return np.random.default_rng(seed).normal(size=self.latent_shape).astype(np.float32)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def encoded(log: Path) -> dict[str, int]:
    """How often each text was encoded, by its hash, by all that wrote to a log."""
    counts: dict[str, int] = {}
    for line in log.read_text().split() if log.exists() else ():
        counts[line] = counts.get(line, 0) + 1
    return counts
