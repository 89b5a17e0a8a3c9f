"""Converting an encoder of LLMLingua-2: quantise and save its tensors, describe them, try them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from clara_mlx.compressors.llmlingua2.folder import FORMAT, NAME, EncoderFolder, EncoderScheme
from clara_mlx.compressors.llmlingua2.llmlingua2 import load
from clara_mlx.convert.conversion import DTYPE_ALIASES, Conversion
from clara_mlx.convert.disk import (
    check_space,
    check_target,
    hash_in_background,
    locate_target,
    sha256_of,
    write_json,
)
from clara_mlx.convert.manifest import file_sizes, fingerprint_of, refuse_link_out
from clara_mlx.convert.shards import Quantiser, formats_by_kind, map_tensors, save_shards
from clara_mlx.convert.tensors import ITEM_SIZES
from clara_mlx.convert.token_classifier import TokenClassifierSource
from clara_mlx.convert.verification import Verification, compare_network
from clara_mlx.errors import CheckpointError, Progress
from clara_mlx.model.folder import LAYOUT
from clara_mlx.model.regular import read_regular
from clara_mlx.model.schemes import Quantisation, Recipe
from clara_mlx.store import atomic
from clara_mlx.version import __version__

_PART = "encoder"


def convert_token_classifier(
    source: TokenClassifierSource,
    to: str | Path,
    *,
    quantisation: Quantisation | None = None,
    recipe: str | Recipe | None = None,
    dtype: str = "bfloat16",
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write the model folder of an encoder's checkpoint; it is complete, or not there.

    Args:
        source: The checkpoint.
        to: The folder to make.
        quantisation: Applied to the matrices of the blocks and the tokens' embeddings; None keeps
            them in ``dtype``.
        recipe: Refused; mlx-lm's recipes are for decoders.
        dtype: The type of everything that is not quantised.
        force: Replace an existing model folder.
        progress: Called with bytes and the tensor's name as tensors are done.

    Raises:
        CheckpointError: ``to`` exists, the disk is too full, a tensor is damaged, or the finished
            folder does not work.
    """
    started = time.perf_counter()
    dtype = DTYPE_ALIASES.get(dtype, dtype)
    if dtype not in ITEM_SIZES:
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join(ITEM_SIZES)}")
    if recipe is not None:
        raise CheckpointError("mlx-lm's recipes are for decoders; leave --recipe out")
    to = locate_target(to)
    result = Conversion(to, [], source.licences, list(source.notes))
    lines = {name: line for name, line in source.table.items() if line.target is not None}
    scheme = None
    if quantisation is not None:
        shapes = {str(line.target): source.tensors[name].shape for name, line in lines.items()}
        scheme = EncoderScheme.fit(quantisation, shapes)
    plan = map_tensors(source.tensors, lines, dtype, scheme)
    if scheme:
        matrices = [tensor for tensor in plan if EncoderScheme.concerns(tensor.name)]
        result.formats, result.unquantised = formats_by_kind(matrices)
    result.parameters = {_PART: sum(tensor.ref.size for tensor in plan)}
    result.bytes = {_PART: sum(tensor.nbytes for tensor in plan)}
    result.bits_per_weight = 8 * result.bytes[_PART] / result.parameters[_PART]
    quantiser = Quantiser(dtype, result.bytes[_PART], progress)
    try:
        atomic.clear_leftovers(to)
        check_target(to, force)
        check_space(to.parent, result.bytes[_PART])
        with atomic.partial_folder(to) as folder:
            with hash_in_background(source.files_by_part) as hashes:
                save_shards(folder, plan, quantiser)
                result.errors = quantiser.errors
                (folder / LAYOUT.tokenizer).write_text(source.tokenizer, encoding="utf-8")
                _copy_licence(source.path, folder)
                _describe(folder, source, dtype, scheme, result, hashes())
            _try(folder, to)
            atomic.put_in_place(folder, to)
    except OSError as error:
        raise CheckpointError(f"{to}: can't be written: {error}") from error
    result.seconds = time.perf_counter() - started
    return result


def _describe(
    folder: Path,
    source: TokenClassifierSource,
    dtype: str,
    scheme: EncoderScheme | None,
    result: Conversion,
    hashes: dict[str, dict[str, str]],
) -> None:
    """Write ``clara.json``, which says what the folder is and lists its files."""
    quantisation = scheme.to_dict() if scheme else None
    files = file_sizes(folder)
    write_json(
        folder / LAYOUT.clara,
        {
            "compressor": NAME,
            "format": FORMAT,
            "clara_mlx": __version__,
            "fingerprint": fingerprint_of(
                {
                    "files": hashes,
                    "tokenizer": sha256_of(folder / LAYOUT.tokenizer),
                    "quantization": quantisation,
                    "dtype": dtype,
                }
            ),
            "config": source.config.to_dict(),
            "dtype": dtype,
            "quantization": quantisation,
            "source": {
                "checkpoint": source.name,
                "subfolder": source.subfolder,
                "revision": source.revision,
                "sha256": hashes,
            },
            "licences": source.licences,
            "quantisation_error": {kind: asdict(error) for kind, error in result.errors.items()},
            "notes": result.notes,
            "files": files,
            "sha256": {name: sha256_of(folder / name) for name in files},
        },
    )


def _copy_licence(path: Path, folder: Path) -> None:
    for licence in sorted(path.glob("LICENSE*"))[:1]:
        refuse_link_out(licence, path)
        (folder / "LICENSE").write_bytes(read_regular(licence))


def _try(folder: Path, to: Path) -> None:
    """Load the finished folder as a user will, and shorten a text with it."""
    try:
        words = load(folder).words("a finished folder is tried on one line of text\n")
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), str(to))) from error
    if not all(0 <= word.probability <= 1 for word in words):  # NaN fails this, too
        raise CheckpointError(f"{to}: the encoder rates words with values that are not finite")


def verify_token_classifier(
    folder: str | Path, source: TokenClassifierSource, *, progress: Progress | None = None
) -> Verification:
    """Compare every tensor of an encoder's folder with its source, as `verify` does."""
    opened = EncoderFolder.open(folder)
    result = Verification()
    files = sorted(opened.path.glob("model*.safetensors"))
    lines = {str(line.target): line for line in source.table.values() if line.target}
    compare_network(files, lines, source.tensors, opened.scheme, opened.dtype, result, progress)
    return result
