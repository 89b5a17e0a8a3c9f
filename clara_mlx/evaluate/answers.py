"""Every answer in a file as soon as it is there, so that an evaluation goes on where it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from clara_mlx.evaluate import batched
from clara_mlx.evaluate.batched import Reading
from clara_mlx.model.clara import Clara
from clara_mlx.version import __version__


class Answers:
    """Answers by what was read, kept in a JSON lines file.

    An answer counts for the same model, computed in the same way, with the same prompt, latents
    and limit. What a killed run wrote is taken, but for a last line that is not whole.

    Attributes:
        reused: how many answers an earlier run had given.
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

    def of(
        self,
        clara: Clara,
        readings: Sequence[Reading],
        max_tokens: int,
        about: Sequence[dict[str, Any]],
        progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """The answers to readings, in their order.

        Args:
            clara: the model.
            readings: what it reads; equal ones are read once.
            max_tokens: of each answer at most.
            about: what the file is to say of each, for people.
            progress: called with how many answers are there now.
        """
        keys = [_key(clara, reading, max_tokens) for reading in readings]
        self.reused += sum(key in self._known for key in keys)
        missing = {key: number for number, key in enumerate(keys) if key not in self._known}
        numbers = list(missing.values())
        if progress:
            progress(len(keys) - len(numbers))
        with self._path.open("a", encoding="utf-8", buffering=1) as file:
            file.write("\n")  # a last line that is not whole ends here
            for i, answer in batched.answers(clara, [readings[n] for n in numbers], max_tokens):
                key = keys[numbers[i]]
                self._known[key] = answer
                entry = {"key": key, **about[numbers[i]], "answer": answer}
                file.write(json.dumps(entry) + "\n")
                if progress:
                    progress(1)
        return [self._known[key] for key in keys]


def _key(clara: Clara, reading: Reading, max_tokens: int) -> str:
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
