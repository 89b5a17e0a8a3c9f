"""Converting an LCLM checkpoint into one folder: two models for mlx-lm, and the adapter."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.compressors.lclm.folder import (
    ADAPTER_FILE,
    DECODER,
    ENCODER,
    FORMAT,
    NAME,
    ROWS,
    ROWS_FILE,
    LclmFolder,
)
from clara_mlx.convert.conversion import Conversion, check_dtype
from clara_mlx.convert.disk import (
    check_space,
    check_target,
    hash_in_background,
    locate_target,
    save_arrays,
    sha256_of,
    write_json,
)
from clara_mlx.convert.lclm_source import ADAPTER, LclmPart, LclmSource
from clara_mlx.convert.manifest import copy_companions, copy_licence, file_sizes, fingerprint_of
from clara_mlx.convert.shards import (
    PlannedTensor,
    Quantiser,
    formats_by_kind,
    map_tensors,
    save_shards,
)
from clara_mlx.convert.trial import find_problem
from clara_mlx.convert.weight_map import expand
from clara_mlx.errors import CheckpointError, Progress
from clara_mlx.model.folder import LAYOUT, load_arrays
from clara_mlx.model.schemes import Quantisation, Recipe, Scheme
from clara_mlx.store import atomic
from clara_mlx.version import __version__

Schemes = dict[str, Scheme | None]  # of encoder and decoder


def convert_lclm(
    source: LclmSource,
    to: str | Path,
    *,
    quantisation: Quantisation | None = None,
    recipe: str | Recipe | None = None,
    dtype: str = "bfloat16",
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write the model folder of an LCLM checkpoint; the arguments are those of `convert`.

    All matrices of encoder and decoder are quantised, the adapter is not, and the rows of the three
    added tokens are also kept exactly. The folder appears only when it is complete.

    Raises:
        CheckpointError: ``to`` exists, the disk is too full, a tensor is damaged, or the finished
            folder does not work.
    """
    started = time.perf_counter()
    dtype = check_dtype(dtype)
    to = locate_target(to)
    result = Conversion(to, [], source.licences, list(source.notes))

    # 1. Map every tensor to its place and size in the model folder.
    networks = {ENCODER: source.encoder, DECODER: source.decoder}
    schemes: Schemes = {
        name: _fit(part, quantisation, recipe) if quantisation else None
        for name, part in networks.items()
    }
    parts = {name: _plan(part, dtype, schemes[name]) for name, part in networks.items()}
    if quantisation:
        result.formats, result.unquantised = formats_by_kind([t for p in parts.values() for t in p])
    matrices = sum(t.nbytes for p in parts.values() for t in p)
    result.bits_per_weight = 8 * matrices / sum(t.ref.size for p in parts.values() for t in p)
    parts[ADAPTER] = _plan(source.adapter, dtype, None)
    result.parameters = {name: sum(t.ref.size for t in part) for name, part in parts.items()}
    result.bytes = {name: sum(t.nbytes for t in part) for name, part in parts.items()}
    total = sum(result.bytes.values())
    quantiser = Quantiser(dtype, total, progress)
    try:
        atomic.clear_leftovers(to)
        check_target(to, force)
        check_space(to.parent, total)
        with atomic.partial_folder(to) as folder:
            with hash_in_background(source.files_by_part) as hashes:
                # 2. Quantise and save the weights.
                for name in networks:
                    save_shards(folder / name, parts[name], quantiser)
                save_arrays(folder / ADAPTER_FILE, quantiser.quantise_all(parts[ADAPTER]))
                rows = memory_rows(source)
                save_arrays(folder / ROWS_FILE, {ROWS: rows})
                result.bytes["memory-token rows"] = rows.nbytes
                # 3. Describe them.
                result.errors = quantiser.errors
                for name, part in networks.items():
                    _describe_network(folder / name, part, dtype, schemes[name])
                copy_licence(source.path, folder)
                _write_manifest(folder, source, dtype, schemes, result, hashes())
            # 4. Give the complete folder its name, once it has proved to work.
            _try(folder, to)
            atomic.put_in_place(folder, to)
    except OSError as error:
        raise CheckpointError(f"{to}: can't be written: {error}") from error
    result.seconds = time.perf_counter() - started
    return result


def _plan(part: LclmPart, dtype: str, scheme: Scheme | None) -> list[PlannedTensor]:
    return map_tensors(part.tensors, expand(part.table, 1), dtype, scheme)


def _fit(part: LclmPart, quantisation: Quantisation, recipe: str | Recipe | None) -> Scheme:
    """The formats of a network's matrices."""
    shapes = {str(line.target): part.tensors[line.source].shape for line in part.table}
    layers = int(part.mlx_config["num_hidden_layers"])
    return Scheme.fit(quantisation, shapes, recipe=recipe, layers=layers)


def memory_rows(source: LclmSource) -> mx.array:
    """The rows of the three added tokens (3, hidden), exactly as the checkpoint has them."""
    first = source.config.memory_start_id
    table = source.decoder.tensors["model.embed_tokens.weight"].read()
    rows = mx.contiguous(table[first : first + 3])
    mx.eval(rows)
    return rows


def _describe_network(to: Path, part: LclmPart, dtype: str, scheme: Scheme | None) -> None:
    """Write what mlx-lm reads beside a network's weights."""
    config = {**part.mlx_config, "torch_dtype": dtype}
    if scheme:
        config["quantization"] = config["quantization_config"] = scheme.to_dict()
    write_json(to / LAYOUT.config, config)
    write_json(to / LAYOUT.tokenizer, part.tokenizer)
    copy_companions(part.path, to)


def _write_manifest(
    folder: Path,
    source: LclmSource,
    dtype: str,
    schemes: Schemes,
    result: Conversion,
    hashes: dict[str, dict[str, str]],
) -> None:
    """Write ``clara.json``, which lists all files."""
    stored = {name: scheme.to_dict() for name, scheme in schemes.items() if scheme} or None
    recipes = {scheme.recipe for scheme in schemes.values() if scheme}
    identity: dict[str, Any] = {"files": hashes, "quantization": stored, "dtype": dtype}
    write_json(
        folder / LAYOUT.clara,
        {
            "format": FORMAT,
            "compressor": NAME,
            "clara_mlx": __version__,
            "fingerprint": fingerprint_of(identity),
            "config": source.config.to_dict(),
            "dtype": dtype,
            "quantization": stored,
            "recipe": recipes.pop() if recipes else None,
            "source": {
                "checkpoint": source.name,
                "subfolder": source.subfolder,
                "revision": source.revision,
                "sha256": hashes,
            },
            "licences": source.licences,
            "quantisation_error": {kind: asdict(e) for kind, e in result.errors.items()},
            "notes": source.notes,
            "files": file_sizes(folder),
            "sha256": {name: sha256_of(folder / name) for name in file_sizes(folder)},
        },
    )


def _try(path: Path, to: Path) -> None:
    """Open a finished folder as a user will, and run its networks once, without their weights."""
    try:
        folder = LclmFolder.open(path)
        for name in (ENCODER, DECODER):
            folder.tokenizer(name)
            network = folder.load_network(name, mx.float32)
            problem = find_problem(network, int(network.args.hidden_size))
            if problem:
                raise CheckpointError(f"{path / name}: a trial of it failed: {problem}")
        folder.load_adapter(mx.float32)
        load_arrays(path / ROWS_FILE)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(path), str(to))) from error
