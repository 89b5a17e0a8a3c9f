"""Converting a checkpoint: map its tensors, quantise and save them, describe them, put in place.

`Source.open` has opened the checkpoint. The model folder is planned in full before anything is
written, filled tensor by tensor, and gets its name when it is complete.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert.disk import (
    check_space,
    check_target,
    hash_in_background,
    locate_target,
    save_arrays,
    write_json,
)
from clara_mlx.convert.manifest import adapter_config, write_manifest
from clara_mlx.convert.quantise import Error, measure_error, quantise_tensor
from clara_mlx.convert.source import Source
from clara_mlx.convert.tensors import ITEM_SIZES, TensorRef
from clara_mlx.convert.trial import try_folder
from clara_mlx.convert.weight_map import ADAPTER, Weight, expand
from clara_mlx.errors import CheckpointError, Progress
from clara_mlx.model.folder import LAYOUT
from clara_mlx.model.schemes import Quantisation, Recipe, Scheme
from clara_mlx.store import atomic

#: Weights are written in files of about this size, one file in memory at a time.
SHARD_BYTES = 1 << 29

#: Short names of dtypes, as other tools take them.
DTYPE_ALIASES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

_DTYPES = {name: getattr(mx, name) for name in ITEM_SIZES}


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
    SHARD_BYTES and one tensor are in memory at a time.

    Args:
        source: The checkpoint and its base.
        to: The folder to make.
        quantisation: Applied to all matrices of the base; None keeps them in ``dtype``. Where its
            groups do not divide a matrix, smaller ones are taken.
        recipe: One of mlx-lm's, which give some matrices more bits, or a choice of one's own;
            ``quantisation`` then only says the size of mlx-lm's groups.
        dtype: The type of everything that is not quantised; the added tokens' rows keep theirs.
        force: Replace an existing model folder.
        progress: Called with bytes and the tensor's name as tensors are done.

    Raises:
        CheckpointError: ``to`` exists, the disk is too full, a tensor is damaged, or the finished
            folder does not work.
    """
    started = time.perf_counter()
    dtype = DTYPE_ALIASES.get(dtype, dtype)
    if dtype not in _DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    to = locate_target(to)
    result = Conversion(to, sorted(source.adapters), source.licences, list(source.notes))

    # 1. Map every tensor to its place and size in the model folder.
    layers = source.sizes["layers"]
    lines = expand(source.base_table, layers)
    scheme = None
    if quantisation is not None:
        shapes = {str(w.target): source.base[n].shape for n, w in lines.items() if w.target}
        scheme = Scheme.fit(quantisation, shapes, recipe=recipe, layers=layers)
    base = _map_tensors(source.base, lines, dtype, scheme)
    if scheme:
        result.formats, result.unquantised = _formats(base)
    adapters = {
        name: _map_tensors(tensors, expand(ADAPTER, layers), dtype, None)
        for name, tensors in source.adapters.items()
    }
    parts = {"base": base} | {f"adapter {name}": part for name, part in adapters.items()}
    result.parameters = {part: sum(t.ref.size for t in parts[part]) for part in parts}
    result.bytes = {part: sum(t.nbytes for t in parts[part]) for part in parts}
    result.bits_per_weight = 8 * result.bytes["base"] / result.parameters["base"]
    total = sum(result.bytes.values())
    quantiser = _Quantiser(dtype, result, total, progress)
    try:
        atomic.clear_leftovers(to)
        check_target(to, force)
        check_space(to.parent, total)
        with atomic.partial_folder(to) as folder:
            with hash_in_background(source.files_by_part) as hashes:
                # 2. Quantise and save the weights: base, adapters, exact rows.
                _save_base(folder, base, quantiser, result)
                for name, tensors in adapters.items():
                    save_arrays(
                        folder / LAYOUT.adapter.format(name), quantiser.quantise_all(tensors)
                    )
                    write_json(folder / LAYOUT.adapter_config.format(name), adapter_config(source))
                rows = source.memory_rows()
                save_arrays(folder / LAYOUT.memory_tokens, {"embed_tokens.weight": rows})
                result.bytes["memory-token rows"] = rows.nbytes
                # 3. Describe them.
                errors = {kind: asdict(error) for kind, error in result.errors.items()}
                write_manifest(folder, source, dtype, scheme, errors, hashes())
            # 4. Give the complete folder its name, once it has proved to work.
            _try(folder, to)
            atomic.put_in_place(folder, to)
    except OSError as error:
        raise CheckpointError(f"{to}: can't be written: {error}") from error
    result.seconds = time.perf_counter() - started
    return result


def _try(folder: Path, to: Path) -> None:
    """Try a finished folder, which is called by the name that it will have."""
    try:
        try_folder(folder)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), str(to))) from error


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the plan: where it comes from and what it becomes."""

    ref: TensorRef
    line: Weight
    quantisation: Quantisation | None
    nbytes: int  # as stored

    @property
    def name(self) -> str:
        return str(self.line.target)

    @property
    def kind(self) -> str:
        """``q_proj``, ``embed_tokens``, ``input_layernorm``, ..."""
        return self.name.split(".")[-2]


def _map_tensors(
    refs: dict[str, TensorRef],
    lines: dict[str, Weight],
    dtype: str,
    scheme: Scheme | None,
) -> list[_Tensor]:
    """The plan for a part of the source, in the weight map's order."""
    item_size = ITEM_SIZES[dtype]
    plan = []
    for name, line in lines.items():
        if line.target is None:
            continue
        ref = refs[name]
        nbytes = ref.size * item_size
        quantisation = scheme.format_of(line.target, ref.shape) if scheme else None
        if quantisation:
            nbytes = quantisation.nbytes(ref.shape, item_size)
        plan.append(_Tensor(ref, line, quantisation, nbytes))
    return plan


def _formats(base: list[_Tensor]) -> tuple[dict[str, list[str]], list[str]]:
    """The formats of each kind of matrix, and the kinds that have none."""
    formats: dict[str, list[str]] = {}
    matrices = [tensor for tensor in base if len(tensor.ref.shape) == 2]
    for tensor in matrices:
        if tensor.quantisation and str(tensor.quantisation) not in formats.get(tensor.kind, ()):
            formats.setdefault(tensor.kind, []).append(str(tensor.quantisation))
    return formats, list(dict.fromkeys(t.kind for t in matrices if t.quantisation is None))


class _Quantiser:
    """Brings tensors into their stored form, one at a time, and records how exact they are."""

    def __init__(
        self, dtype: str, result: Conversion, total: int, progress: Progress | None
    ) -> None:
        self._dtype = _DTYPES[dtype]
        self._result = result
        self._progress = progress
        self._total = total  # bytes
        self._done = 0  # bytes

    def quantise_all(self, tensors: Iterable[_Tensor]) -> dict[str, mx.array]:
        """Read some tensors and give the arrays to be saved, by name."""
        arrays: dict[str, mx.array] = {}
        for tensor in tensors:
            values = tensor.ref.read()
            if tensor.line.transposed:
                values = mx.contiguous(values.T)
            stored = quantise_tensor(tensor.name, values, self._dtype, tensor.quantisation)
            self._record_error(tensor, values, stored)
            arrays |= stored
            del values
            mx.clear_cache()  # buffers of one shape are of no use to the next
            self._done += tensor.nbytes
            if self._progress:
                self._progress(self._done, self._total, tensor.name)
        return arrays

    def _record_error(self, tensor: _Tensor, values: mx.array, stored: dict[str, mx.array]) -> None:
        """Keep the worst error of each kind of tensor."""
        error = measure_error(tensor.name, values, stored, tensor.quantisation)
        if tensor.line.transposed:  # an adapter's, which is only cast
            return
        worst = self._result.errors.get(tensor.kind, Error())
        self._result.errors[tensor.kind] = max(error, worst, key=lambda e: e.rms)


def _save_base(
    folder: Path, tensors: list[_Tensor], quantiser: _Quantiser, result: Conversion
) -> None:
    """Write the base in shards, one of them in memory at a time, and their index."""
    shards = _shards(tensors)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = LAYOUT.weights.format(number, len(shards))
        arrays = quantiser.quantise_all(shard)
        save_arrays(folder / file, arrays)
        weight_map |= dict.fromkeys(arrays, file)
    metadata = {"total_size": result.bytes["base"], "total_parameters": result.parameters["base"]}
    index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / LAYOUT.index, index)


def _shards(tensors: list[_Tensor]) -> list[list[_Tensor]]:
    """Tensors in runs of at most SHARD_BYTES, or of one that is larger."""
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards
