"""Converting a checkpoint: map its tensors, quantise and save them, describe them, put in place.

`Source.open` has opened the checkpoint. The model folder is planned in full before anything is
written, filled tensor by tensor, and gets its name when it is complete.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clara_mlx.convert.disk import (
    check_space,
    check_target,
    hash_in_background,
    locate_target,
    save_arrays,
    write_json,
)
from clara_mlx.convert.manifest import adapter_config, write_manifest
from clara_mlx.convert.quantise import Error
from clara_mlx.convert.shards import Quantiser, formats_by_kind, map_tensors, save_shards
from clara_mlx.convert.source import Source
from clara_mlx.convert.tensors import ITEM_SIZES
from clara_mlx.convert.trial import try_folder
from clara_mlx.convert.weight_map import ADAPTER, expand
from clara_mlx.errors import CheckpointError, Progress
from clara_mlx.model.folder import LAYOUT
from clara_mlx.model.schemes import Quantisation, Recipe, Scheme
from clara_mlx.store import atomic

#: Short names of dtypes, as other tools take them.
DTYPE_ALIASES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass
class Conversion:
    """The result of a conversion, which the CLI prints."""

    folder: Path
    adapters: list[str]
    licences: dict[str, str | None]
    notes: list[str]
    parameters: dict[str, int] = field(default_factory=dict)  # by part
    bytes: dict[str, int] = field(default_factory=dict)  # by part
    bits_per_weight: float = 0.0  # of the base
    errors: dict[str, Error] = field(default_factory=dict)  # worst by kind of tensor
    formats: dict[str, list[str]] = field(default_factory=dict)  # by kind, as text
    unquantised: list[str] = field(default_factory=list)  # kinds that no groups divide
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {**asdict(self), "folder": str(self.folder)}


def convert(
    source: Source,
    to: str | Path,
    *,
    quantisation: Quantisation | None = None,
    recipe: str | Recipe | None = None,
    dtype: str = "bfloat16",
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write the model folder of a checkpoint.

    Works in a sibling folder that takes its final name when everything is on the disk, so a folder
    of that name is always complete. What an interrupted run left is removed by the next one. About
    `shards.SHARD_BYTES` and one tensor are in memory at a time.

    Args:
        source: The checkpoint and its base.
        to: The folder to make.
        quantisation: Applied to all matrices of the base; None keeps them in ``dtype``. Where its
            groups do not divide a matrix, smaller ones are taken.
        recipe: One of mlx-lm's or ours, which give some matrices more bits, or a choice of one's
            own; ``quantisation`` then only says the size of the groups.
        dtype: The type of everything that is not quantised; the added tokens' rows keep theirs.
        force: Replace an existing model folder.
        progress: Called with bytes and the tensor's name as tensors are done.

    Raises:
        CheckpointError: ``to`` exists, the disk is too full, a tensor is damaged, or the finished
            folder does not work.
    """
    started = time.perf_counter()
    dtype = check_dtype(dtype)
    to = locate_target(to)
    result = Conversion(to, sorted(source.adapters), source.licences, list(source.notes))

    # 1. Map every tensor to its place and size in the model folder.
    layers = source.sizes["layers"]
    lines = expand(source.base_table, layers)
    scheme = None
    if quantisation is not None:
        shapes = {str(w.target): source.base[n].shape for n, w in lines.items() if w.target}
        scheme = Scheme.fit(quantisation, shapes, recipe=recipe, layers=layers)
    base = map_tensors(source.base, lines, dtype, scheme)
    if scheme:
        result.formats, result.unquantised = formats_by_kind(base)
    adapters = {
        name: map_tensors(tensors, expand(ADAPTER, layers), dtype, None)
        for name, tensors in source.adapters.items()
    }
    parts = {"base": base} | {f"adapter {name}": part for name, part in adapters.items()}
    result.parameters = {part: sum(t.ref.size for t in parts[part]) for part in parts}
    result.bytes = {part: sum(t.nbytes for t in parts[part]) for part in parts}
    result.bits_per_weight = 8 * result.bytes["base"] / result.parameters["base"]
    total = sum(result.bytes.values())
    quantiser = Quantiser(dtype, total, progress)
    try:
        atomic.clear_leftovers(to)
        check_target(to, force)
        check_space(to.parent, total)
        with atomic.partial_folder(to) as folder:
            with hash_in_background(source.files_by_part) as hashes:
                # 2. Quantise and save the weights: base, adapters, exact rows.
                save_shards(folder, base, quantiser)
                for name, tensors in adapters.items():
                    save_arrays(
                        folder / LAYOUT.adapter.format(name), quantiser.quantise_all(tensors)
                    )
                    write_json(folder / LAYOUT.adapter_config.format(name), adapter_config(source))
                rows = source.memory_rows()
                save_arrays(folder / LAYOUT.memory_tokens, {"embed_tokens.weight": rows})
                result.bytes["memory-token rows"] = rows.nbytes
                # 3. Describe them.
                result.errors = quantiser.errors
                errors = {kind: asdict(error) for kind, error in result.errors.items()}
                write_manifest(folder, source, dtype, scheme, errors, hashes())
            # 4. Give the complete folder its name, once it has proved to work.
            _try(folder, to)
            atomic.put_in_place(folder, to)
    except OSError as error:
        raise CheckpointError(f"{to}: can't be written: {error}") from error
    result.seconds = time.perf_counter() - started
    return result


def check_dtype(dtype: str) -> str:
    """The full name of a type for what is not quantised.

    Raises:
        CheckpointError: There is no such type.
    """
    dtype = DTYPE_ALIASES.get(dtype, dtype)
    if dtype not in ITEM_SIZES:
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join(ITEM_SIZES)}")
    return dtype


def _try(folder: Path, to: Path) -> None:
    """Try a finished folder, which is called by the name that it will have."""
    try:
        try_folder(folder)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), str(to))) from error
