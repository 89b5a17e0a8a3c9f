"""Many texts compressed into a folder, without a memory: resumable, and shared by machines.

1. Every machine reads all texts and knows them by the SHA-256 of their bytes; what comes twice is
   one content. Sorted by hash, every n-th content is a machine's stripe.
2. It compresses its stripe, writes parts of some dozen MB, and at the end a list of them. What is
   in the folder already is not compressed again.
3. When the lists of all stripes are in one folder, `bulk_folder.merge` makes the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clara_mlx.compressors.bulk_folder import BulkFolder, ChunkRow, Latents, Made, Stripe
from clara_mlx.compressors.compressor import LatentCompressor
from clara_mlx.errors import ClaraError, Progress, reason
from clara_mlx.model import chunking
from clara_mlx.model.regular import open_regular
from clara_mlx.tool_outputs.decoding import decode

# Text that becomes one part: about 256 full chunks, which a kill would lose at most.
_PART_BYTES = 256 << 10


# The most texts of a part, if they are short; each has an entry in the part's head.
_PART_TEXTS = 1024

_READ_BYTES = 1 << 20  # at a time, to hash a file


@dataclass(frozen=True)
class Inputs:
    """The texts that all machines compress together.

    Attributes:
        files: The file of each content, by its SHA-256, in the order of the hashes.
        names: The hash of each file, by its name.
    """

    files: dict[str, Path]
    names: dict[str, str]

    @property
    def digest(self) -> str:
        """Names the contents, whatever their files are called."""
        return hashlib.sha256("".join(self.files).encode()).hexdigest()

    def stripe(self, stripe: Stripe) -> list[str]:
        """The hashes of a stripe's contents."""
        return list(self.files)[stripe.number :: stripe.count]


@dataclass(frozen=True)
class Striped:
    """What became of a stripe."""

    contents: int
    compressed: int  # of them, those that were not there before
    chunks: int  # of all its contents
    source_tokens: int
    memory_tokens: int


def list_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and those in folders that are named, but for hidden ones.

    Raises:
        ClaraError: There is none.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        for file in sorted(path.rglob("*")):
            if file.is_file() and not any(
                part.startswith(".") for part in file.relative_to(path).parts
            ):
                files.append(file)
    if not files:
        raise ClaraError(f"{', '.join(map(str, paths))}: there are no files to compress")
    return files


def read_inputs(files: Sequence[Path], progress: Progress | None = None) -> Inputs:
    """Hash all files; none is kept in memory.

    Raises:
        ClaraError: One can't be read.
    """
    by_hash: dict[str, Path] = {}
    names: dict[str, str] = {}
    for number, file in enumerate(files, 1):
        digest = hashlib.sha256()
        try:
            with open_regular(file) as content:
                while piece := content.read(_READ_BYTES):
                    digest.update(piece)
        except OSError as error:
            raise ClaraError(f"{file}: {reason(error)}") from error
        names[str(file)] = digest.hexdigest()
        by_hash.setdefault(digest.hexdigest(), file)
        if progress:
            progress(number, len(files), "reading")
    return Inputs(dict(sorted(by_hash.items())), names)


def compress_stripe(
    compressor: LatentCompressor,
    inputs: Inputs,
    stripe: Stripe,
    folder: BulkFolder,
    progress: Progress | None = None,
) -> Striped:
    """Compress the contents of a stripe that the folder does not hold, and list the stripe.

    Args:
        compressor: What makes latents.
        inputs: All texts, the same on all machines.
        stripe: Which of them are compressed here.
        folder: Where latents go.
        progress: Told how many of the stripe's contents are there.

    Raises:
        ClaraError: A file has changed since it was hashed, or the folder can't be written. What was
            compressed until then is kept.
    """
    mine = inputs.stripe(stripe)
    with folder.lock(stripe):
        known = folder.made()
        missing = [content for content in mine if content not in known]
        done = len(mine) - len(missing)
        for group in _groups(missing, inputs):
            texts = [_read(inputs.files[content], content) for content in group]
            made = _compress(compressor, texts)
            known |= folder.add(stripe, dict(zip(group, made, strict=True)))
            done += len(group)
            if progress:
                progress(done, len(mine), "compressing")
        own = {content: known[content] for content in mine}
        folder.finish(stripe, inputs.digest, own, _names(inputs, own))
    chunks = [chunk for made_of in own.values() for chunk in made_of.chunks]
    return Striped(
        contents=len(mine),
        compressed=len(missing),
        chunks=len(chunks),
        source_tokens=sum(tokens for _, _, tokens, _ in chunks),
        memory_tokens=sum(vectors for *_, vectors in chunks),
    )


def _compress(compressor: LatentCompressor, texts: Sequence[str]) -> list[Latents]:
    """Cut texts into chunks and encode all of them together; an empty text has none."""
    cut = [
        list(chunking.split(text, compressor.tokenizer, compressor.chunk_tokens)) for text in texts
    ]
    pieces = [
        text[chunk.start : chunk.end]
        for text, chunks in zip(texts, cut, strict=True)
        for chunk in chunks
    ]
    encoded = iter(compressor.encode_chunks(pieces))
    nothing = np.zeros((0, compressor.latent_shape[1]), np.float32)
    made = []
    for chunks in cut:
        latents = [next(encoded) for _ in chunks]
        rows: list[ChunkRow] = [
            (chunk.start, chunk.end, chunk.tokens, len(vectors))
            for chunk, vectors in zip(chunks, latents, strict=True)
        ]
        made.append(Latents(rows, np.concatenate([nothing, *latents])))
    return made


def _names(inputs: Inputs, own: dict[str, Made]) -> dict[str, str]:
    return {name: content for name, content in inputs.names.items() if content in own}


def _groups(contents: list[str], inputs: Inputs) -> Iterator[list[str]]:
    """Contents that become one part each time."""
    group: list[str] = []
    size = 0
    for content in contents:
        size += inputs.files[content].stat().st_size
        group.append(content)
        if size >= _PART_BYTES or len(group) == _PART_TEXTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _read(file: Path, expected: str) -> str:
    """The text of a file that was hashed before."""
    try:
        with open_regular(file) as content:
            data = content.read()
    except OSError as error:
        raise ClaraError(f"{file}: {reason(error)}") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise ClaraError(f"{file}: has changed since it was read first; start again")
    return decode(data)
