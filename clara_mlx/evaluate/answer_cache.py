"""Answers in a file, each written as soon as it is given, so that a stopped evaluation resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from clara_mlx.errors import Progress
from clara_mlx.evaluate.batched import Reading, generate_answers
from clara_mlx.model.clara import Clara
from clara_mlx.version import __version__


class AnswerCache:
    """Answers to readings, kept in a JSON lines file.

    A kept answer is used again for the same model, computed in the same way, with the same prompt,
    latents and limit. In a file that a killed run left, every complete line counts.

    Attributes:
        reused: Number of readings whose answer was already known when they were asked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        self.reused = 0
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                try:
                    entry = json.loads(line)
                    self._known[entry["key"]] = str(entry["answer"])
                except (ValueError, KeyError, TypeError):
                    continue

    def answer(
        self,
        clara: Clara,
        readings: Sequence[Reading],
        max_tokens: int,
        about: Sequence[dict[str, Any]],
        progress: Progress | None = None,
    ) -> list[str]:
        """Answer readings, in their order, generating only the answers that are not known yet.

        Args:
            clara: The model.
            readings: What the model reads; equal readings are read once.
            max_tokens: Largest number of tokens in an answer.
            about: What the file says about each reading, for people who read the file.
            progress: Called as answers become known.
        """
        keys = [_key(clara, reading, max_tokens) for reading in readings]
        self.reused += sum(key in self._known for key in keys)
        missing = {key: number for number, key in enumerate(keys) if key not in self._known}
        numbers = list(missing.values())
        done = len(keys) - len(numbers)
        if progress:
            progress(done, len(keys))
        with self._path.open("a", encoding="utf-8", buffering=1) as file:
            file.write("\n")  # ends the last line if a killed run left it incomplete
            unknown = [readings[number] for number in numbers]
            for i, answer in generate_answers(clara, unknown, max_tokens):
                key = keys[numbers[i]]
                self._known[key] = answer
                entry = {"key": key, **about[numbers[i]], "answer": answer}
                file.write(json.dumps(entry) + "\n")
                done += 1
                if progress:
                    progress(done, len(keys))
        return [self._known[key] for key in keys]


def _key(clara: Clara, reading: Reading, max_tokens: int) -> str:
    """A hash of everything that decides an answer."""
    embedding = clara.network.model.embed_tokens
    how = (
        __version__,
        version("mlx"),
        str(mx.default_device()),
        str(embedding.rows.dtype),
        clara.fingerprint,
        max_tokens,
        reading.prompt.ids,
    )
    digest = hashlib.sha256(json.dumps(how).encode())
    if reading.latents is not None:
        digest.update(np.ascontiguousarray(reading.latents, np.float32).tobytes())
    return digest.hexdigest()[:32]
