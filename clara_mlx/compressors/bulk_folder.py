"""The folder of a bulk compression: parts with latents, a list for each stripe, and the index.

- ``compression.json``: the model's fingerprint, the shape and type of the latents.
- ``latents-1-of-4-00001.safetensors``: a part of a stripe. An array (vectors, hidden) for each
  content, named by the SHA-256 of the content's bytes; its chunks are in the file's metadata.
- ``stripe-1-of-4.json``: written when a stripe is complete.
- ``index.json``: written when all are: the part of each content, and the content of each file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clara_mlx.compressors.compressor import Floats, LatentCompressor
from clara_mlx.errors import ClaraError, Progress, reason
from clara_mlx.store import atomic

_ABOUT = "compression.json"
_INDEX = "index.json"
_STRIPE = re.compile(r"stripe-(\d{1,6})-of-(\d{1,6})\.json")

#: How latents are stored.
Dtype = Literal["float16", "float32"]


class StripesMissing(ClaraError):
    """Not all stripes of a compression are in its folder yet."""


@dataclass(frozen=True)
class Stripe:
    """Every ``count``-th content from ``number``, which counts from 0."""

    number: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Stripe:
        """Read ``i/n``, with i from 1 to n, as people write it.

        Raises:
            ValueError: It is something else.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"{text!r}: write i/n, such as 1/4 to 4/4")
        return cls(int(number) - 1, int(count))

    def __str__(self) -> str:
        return f"{self.number + 1}/{self.count}"

    @property
    def file_name(self) -> str:
        """As a part of a file's name."""
        return f"{self.number + 1}-of-{self.count}"


#: A chunk: its first character, one past its last, its tokens, and the vectors that it became.
ChunkRow = tuple[int, int, int, int]


@dataclass(frozen=True)
class Latents:
    """What a content was compressed to."""

    chunks: list[ChunkRow]  # in order; together they cover the text
    vectors: Floats  # (vectors of all chunks, hidden)


@dataclass(frozen=True)
class Made:
    """Where the latents of a content are, and of what they were made."""

    part: str  # the file's name
    chunks: list[ChunkRow]
    sha256: str  # of the latents' bytes


class BulkFolder:
    """The folder that a compression fills; `open` makes it."""

    def __init__(self, path: Path, dtype: Dtype) -> None:
        self.path = path
        self._dtype = np.dtype(dtype)

    @classmethod
    def open(cls, path: Path, compressor: LatentCompressor, dtype: Dtype) -> BulkFolder:
        """Make the folder, or go on with one that the same model began.

        Raises:
            ClaraError: It holds another model's latents, or can't be written.
        """
        about = {
            "format": 1,
            "compressor": compressor.name,
            "fingerprint": compressor.fingerprint,
            "most_vectors": compressor.latent_shape[0],  # of a chunk
            "hidden": compressor.latent_shape[1],
            "dtype": dtype,
        }
        file = path / _ABOUT
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                atomic.write_text(file, json.dumps(about, indent=1) + "\n")
        except OSError as error:
            raise ClaraError(f"{path}: {reason(error)}") from error
        had = _read_json(file)
        different = [name for name in about if had.get(name) != about[name]]
        if different:
            raise ClaraError(
                f"{path}: holds latents of another compression ({', '.join(different)}); choose "
                "another folder, or delete that one"
            )
        return cls(path, dtype)

    @contextmanager
    def lock(self, stripe: Stripe) -> Iterator[None]:
        """Keep other processes from compressing the same stripe until the block ends.

        Raises:
            ClaraError: One is doing so.
        """
        try:
            with FileLock(self.path / f".stripe-{stripe.file_name}.lock", blocking=False):
                yield
        except Timeout as error:
            raise ClaraError(
                f"{self.path}: another process is compressing stripe {stripe} there"
            ) from error

    def made(self) -> dict[str, Made]:
        """What is compressed already, by content; parts that can't be read are left out."""
        return {
            content: made
            for part in sorted(self.path.glob("latents-*.safetensors"))
            for content, made in _read_part(part).items()
        }

    def add(self, stripe: Stripe, compressed: Mapping[str, Latents]) -> dict[str, Made]:
        """Write a part with the latents of some contents.

        Raises:
            ClaraError: It can't be written, or a value is too large for float16.
        """
        taken = len(list(self.path.glob(f"latents-{stripe.file_name}-*.safetensors")))
        target = self.path / f"latents-{stripe.file_name}-{taken + 1:05}.safetensors"
        arrays: dict[str, Floats] = {}
        made = {}
        for content, latents in compressed.items():
            with np.errstate(over="ignore"):  # it is said below
                arrays[content] = latents.vectors.astype(self._dtype)
            if not np.isfinite(arrays[content]).all():
                raise ClaraError("a latent is too large for float16; use --dtype float32")
            made[content] = Made(target.name, latents.chunks, _digest(arrays[content]))
        heads = {
            content: json.dumps({"chunks": one.chunks, "sha256": one.sha256})
            for content, one in made.items()
        }
        try:
            atomic.clear_leftovers(target)
            with atomic.partial_file(target) as partial:
                partial.write_bytes(save(arrays, metadata=heads))
        except OSError as error:
            raise ClaraError(f"{target}: can't be written: {reason(error)}") from error
        return made

    def finish(
        self, stripe: Stripe, inputs: str, own: Mapping[str, Made], names: Mapping[str, str]
    ) -> None:
        """Write down that a stripe is complete; lists of other divisions are superseded.

        Args:
            stripe: The stripe.
            inputs: The digest of all stripes' contents.
            own: What this one has made.
            names: The contents of its files, by their names.
        """
        lines = {
            "inputs": inputs,
            "parts": {content: made.part for content, made in own.items()},
            "files": names,
        }
        try:
            atomic.write_text(
                self.path / f"stripe-{stripe.file_name}.json", json.dumps(lines, indent=1) + "\n"
            )
            for count, stripes in _find_lists(self.path).items():
                for old in stripes.values() if count != stripe.count else ():
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise ClaraError(f"{self.path}: {reason(error)}") from error


def merge(path: Path, progress: Progress | None = None) -> dict[str, int]:
    """Check that all stripes are in a folder, and write its index.

    Every content's latents are read and compared with their hash; each content stands in the index
    once, whatever number of stripes has it.

    Returns:
        The numbers of ``stripes``, ``contents``, ``files``, ``chunks`` and ``parts``.

    Raises:
        StripesMissing: Some are not there; the message names them.
        ClaraError: Stripes are of different inputs, or a content is missing or damaged.
    """
    lists = _read_lists(path)
    files = {name: content for one in lists for name, content in one["files"].items()}
    wanted = {content: part for one in lists for content, part in one["parts"].items()}
    parts: dict[str, list[str]] = {}
    for content, part in sorted(wanted.items()):
        parts.setdefault(part, []).append(content)
    chunks = 0
    for number, (part, contents) in enumerate(sorted(parts.items()), 1):
        chunks += _check_part(path / part, contents)
        if progress:
            progress(number, len(parts), "checking")
    about = _read_json(path / _ABOUT)
    index = {"about": about, "parts": wanted, "files": dict(sorted(files.items()))}
    try:
        atomic.write_text(path / _INDEX, json.dumps(index, indent=1) + "\n")
    except OSError as error:
        raise ClaraError(f"{path}: {reason(error)}") from error
    return {
        "stripes": len(lists),
        "contents": len(wanted),
        "files": len(files),
        "chunks": chunks,
        "parts": len(parts),
    }


def _read_lists(path: Path) -> list[dict[str, Any]]:
    """The lists of all stripes."""
    found = _find_lists(path)
    if not found:
        raise StripesMissing(f"{path}: no stripe is complete there")
    if len(found) > 1:
        raise ClaraError(
            f"{path}: has stripes of several divisions ({', '.join(f'1/{n}' for n in found)}); "
            "delete the files stripe-*.json of those that are out of date"
        )
    ((count, stripes),) = found.items()
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in stripes]
    if missing:
        raise StripesMissing(
            f"{path}: stripes that are missing: {', '.join(missing)}; compress them with --shard, "
            "or copy their files here and use --merge"
        )
    lists = {number: _read_json(file) for number, file in sorted(stripes.items())}
    other = [number for number, one in lists.items() if one["inputs"] != lists[1]["inputs"]]
    if other:
        raise ClaraError(
            f"{path}: made of other files than stripe 1/{count}: "
            f"{', '.join(f'{number}/{count}' for number in other)}; compress the same files on all "
            "machines"
        )
    return list(lists.values())


def _find_lists(path: Path) -> dict[int, dict[int, Path]]:
    """The lists in a folder, by the number of stripes and the number of the stripe."""
    found: dict[int, dict[int, Path]] = {}
    for file in sorted(path.glob("stripe-*.json")):
        if match := _STRIPE.fullmatch(file.name):
            found.setdefault(int(match[2]), {})[int(match[1])] = file
    return found


def _check_part(part: Path, contents: list[str]) -> int:
    """Compare some contents of a part with their hashes; returns the number of their chunks."""
    heads = _read_part(part)
    lacking = [content for content in contents if content not in heads]
    if lacking:
        raise ClaraError(
            f"{part}: missing or damaged; copy it here again, or delete it and compress again"
        )
    try:
        with safe_open(part, framework="numpy") as arrays:
            for content in contents:
                if _digest(arrays.get_tensor(content)) != heads[content].sha256:
                    raise SafetensorError(f"{content} has another SHA-256")
    except (OSError, SafetensorError) as error:
        raise ClaraError(f"{part}: damaged ({error}); delete it and compress again") from error
    return sum(len(heads[content].chunks) for content in contents)


def _read_part(part: Path) -> dict[str, Made]:
    """The contents of a part, from its head alone; none if that can't be read."""
    try:
        with safe_open(part, framework="numpy") as file:
            heads = {content: json.loads(text) for content, text in file.metadata().items()}
        return {
            content: Made(
                part.name, [(a, b, c, d) for a, b, c, d in head["chunks"]], head["sha256"]
            )
            for content, head in heads.items()
        }
    except (OSError, SafetensorError, AttributeError, ValueError, KeyError, TypeError):
        return {}


def _digest(latents: Any) -> str:
    """The SHA-256 of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(latents).tobytes()).hexdigest()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClaraError(f"{file}: can't be read ({reason(error)})") from error
    return content
