"""Weights on their way into a folder: planned, brought into their stored form, saved in shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from clara_mlx.convert.disk import save_arrays, write_json
from clara_mlx.convert.quantise import Error, check_finite, measure_error, quantise_tensor
from clara_mlx.convert.tensors import ITEM_SIZES, TensorRef
from clara_mlx.convert.weight_map import Weight
from clara_mlx.errors import Progress
from clara_mlx.model.folder import LAYOUT
from clara_mlx.model.schemes import Quantisation, Scheme

#: Weights are written in files of about this size, one file in memory at a time.
SHARD_BYTES = 1 << 29

_DTYPES = {name: getattr(mx, name) for name in ITEM_SIZES}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the plan: where it comes from and what it becomes."""

    ref: TensorRef
    line: Weight
    quantisation: Quantisation | None
    nbytes: int  # as stored

    @property
    def name(self) -> str:
        """Its name in the folder."""
        return str(self.line.target)

    @property
    def kind(self) -> str:
        """``q_proj``, ``embed_tokens``, ``input_layernorm``, ..."""
        return self.name.split(".")[-2]


def map_tensors(
    refs: dict[str, TensorRef],
    lines: dict[str, Weight],
    dtype: str,
    scheme: Scheme | None,
) -> list[PlannedTensor]:
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
        plan.append(PlannedTensor(ref, line, quantisation, nbytes))
    return plan


def formats_by_kind(base: list[PlannedTensor]) -> tuple[dict[str, list[str]], list[str]]:
    """The formats of each kind of matrix, and the kinds that have none."""
    formats: dict[str, list[str]] = {}
    matrices = [tensor for tensor in base if len(tensor.ref.shape) == 2]
    for tensor in matrices:
        if tensor.quantisation and str(tensor.quantisation) not in formats.get(tensor.kind, ()):
            formats.setdefault(tensor.kind, []).append(str(tensor.quantisation))
    return formats, list(dict.fromkeys(t.kind for t in matrices if t.quantisation is None))


class Quantiser:
    """Brings tensors into their stored form, one at a time, and records how exact they are."""

    def __init__(self, dtype: str, total: int, progress: Progress | None = None) -> None:
        self.errors: dict[str, Error] = {}  # the worst by kind of tensor
        self._dtype = _DTYPES[dtype]
        self._progress = progress
        self._total = total  # bytes
        self._done = 0  # bytes

    def quantise_all(self, tensors: Iterable[PlannedTensor]) -> dict[str, mx.array]:
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

    def _record_error(
        self, tensor: PlannedTensor, values: mx.array, stored: dict[str, mx.array]
    ) -> None:
        """Keep the worst error of each kind of tensor, by samples; `verify` compares all."""
        check_finite(tensor.name, values, stored, self._dtype)
        if tensor.line.transposed:  # an adapter's, which is only cast
            return
        error = measure_error(tensor.name, values, stored, tensor.quantisation, sample=True)
        worst = self.errors.get(tensor.kind, Error())
        self.errors[tensor.kind] = max(error, worst, key=lambda e: e.rms)


def save_shards(folder: Path, tensors: list[PlannedTensor], quantiser: Quantiser) -> None:
    """Write a model's tensors in shards, one of them in memory at a time, and their index.

    Raises:
        CheckpointError: A tensor is damaged.
        OSError: A file can't be written.
    """
    shards = _shards(tensors)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = LAYOUT.weights.format(number, len(shards))
        arrays = quantiser.quantise_all(shard)
        save_arrays(folder / file, arrays)
        weight_map |= dict.fromkeys(arrays, file)
    metadata = {
        "total_size": sum(tensor.nbytes for tensor in tensors),
        "total_parameters": sum(tensor.ref.size for tensor in tensors),
    }
    index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / LAYOUT.index, index)


def _shards(tensors: list[PlannedTensor]) -> list[list[PlannedTensor]]:
    """Tensors in runs of at most SHARD_BYTES, or of one that is larger."""
    shards: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards
