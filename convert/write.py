"""Writing a model folder: planned in full, streamed tensor by tensor, renamed when complete."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert import target
from clara_mlx.convert.manifest import adapter_config, describe, hashed_beside, write_json
from clara_mlx.convert.quantise import Error, Quantisation, error_of, store
from clara_mlx.convert.source import Source
from clara_mlx.convert.tensors import ITEM_SIZES, TensorRef
from clara_mlx.convert.weight_map import ADAPTER, BASE, Weight, expand
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import LAYOUT
from clara_mlx.store import atomic

#: Weights are written in files of about this size, one file in memory at a time.
SHARD_BYTES = 1 << 29

_DTYPES = {name: getattr(mx, name) for name in ITEM_SIZES}

#: Called with (what is being done, bytes done, bytes in all).
Progress = Callable[[str, int, int], None]


@dataclass
class Report:
    """What a conversion found and wrote; the CLI prints it."""

    folder: Path
    parameters: dict[str, int] = field(default_factory=dict)  # by part
    bytes: dict[str, int] = field(default_factory=dict)  # by part
    bits_per_weight: float = 0.0  # of the base
    adapters: list[str] = field(default_factory=list)
    errors: dict[str, Error] = field(default_factory=dict)  # worst by kind of tensor
    unquantised: list[str] = field(default_factory=list)  # kinds that groups do not divide
    licences: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "folder": str(self.folder)}


def convert(
    source: Source,
    to: str | Path,
    *,
    quantisation: Quantisation | None = None,
    dtype: str = "bfloat16",
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write the model folder of a checkpoint.

    Works in a sibling folder that takes its final name when everything is on the disk, so a folder
    of that name is always complete. What an interrupted run left is removed by the next one. About
    SHARD_BYTES and one tensor are in memory at a time.

    Args:
        source: the checkpoint and its base.
        to: the folder to make.
        quantisation: of all matrices of the base; None keeps them in ``dtype``.
        dtype: of everything that is not quantised; the added tokens' rows keep their own.
        force: replace an existing model folder.
        progress: called as bytes are written.

    Raises:
        CheckpointError: ``to`` exists, the disk is too full, or a tensor is damaged.
    """
    started = time.perf_counter()
    if dtype not in _DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is none of {', '.join(_DTYPES)}")
    to = Path(to).expanduser().absolute()
    writer = _Writer(source, to, quantisation, dtype, progress)
    try:
        atomic.clear_leftovers(to)
        target.check_target(to, force)
        target.check_space(to.parent, writer.total)
        with atomic.partial_folder(to) as folder:
            with hashed_beside(source) as hashes:
                writer.write(folder)
                described = {k: asdict(e) for k, e in writer.report.errors.items()}
                describe(folder, source, dtype, quantisation, described, hashes())
            atomic.put_in_place(folder, to)
    except OSError as error:
        raise CheckpointError(f"{to}: can't be written: {error}") from error
    writer.report.seconds = time.perf_counter() - started
    return writer.report


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the plan: where it comes from and what it becomes."""

    ref: TensorRef
    line: Weight
    nbytes: int  # as stored

    @property
    def name(self) -> str:
        return str(self.line.target)

    @property
    def kind(self) -> str:
        """``q_proj``, ``embed_tokens``, ``input_layernorm``, ..."""
        return self.name.split(".")[-2]


class _Writer:
    """One conversion: its plan, its totals and its report."""

    def __init__(
        self,
        source: Source,
        to: Path,
        quantisation: Quantisation | None,
        dtype: str,
        progress: Progress | None,
    ) -> None:
        self.source, self.quantisation, self.dtype = source, quantisation, dtype
        self.report = Report(
            to,
            adapters=sorted(source.adapters),
            licences=source.licences,
            notes=list(source.notes),
        )
        self._progress = progress
        self._done = 0
        layers = source.sizes["layers"]
        self._base = self._plan(source.base, expand(BASE, layers), quantisation)
        lines = expand(ADAPTER, layers)
        self._adapters = {
            name: self._plan(tensors, lines, None) for name, tensors in source.adapters.items()
        }
        planned = [self._base, *self._adapters.values()]
        self.total = sum(tensor.nbytes for tensors in planned for tensor in tensors)

    def _plan(
        self,
        refs: dict[str, TensorRef],
        lines: dict[str, Weight],
        quantisation: Quantisation | None,
    ) -> list[_Tensor]:
        item_size = ITEM_SIZES[self.dtype]
        plan = []
        for name, line in lines.items():
            if line.target is None:
                continue
            ref = refs[name]
            nbytes = ref.size * item_size
            if quantisation and quantisation.applies(ref.shape):
                nbytes = quantisation.nbytes(ref.shape, item_size)
            plan.append(_Tensor(ref, line, nbytes))
        return plan

    def write(self, folder: Path) -> None:
        """Write all weights: the base in shards, then each adapter, then the exact rows."""
        shards = _shards(self._base)
        weight_map: dict[str, str] = {}
        for number, tensors in enumerate(shards, 1):
            file = LAYOUT.weights.format(number, len(shards))
            arrays = self._stored(tensors, self.quantisation)
            _save(folder / file, arrays)
            weight_map |= dict.fromkeys(arrays, file)
        total_size = sum(tensor.nbytes for tensor in self._base)
        self._count("base", self._base)
        self.report.bits_per_weight = 8 * total_size / self.report.parameters["base"]
        write_json(
            folder / LAYOUT.index,
            {
                "metadata": {
                    "total_size": total_size,
                    "total_parameters": self.report.parameters["base"],
                },
                "weight_map": dict(sorted(weight_map.items())),
            },
        )
        for name, tensors in self._adapters.items():
            _save(folder / LAYOUT.adapter.format(name), self._stored(tensors, None))
            self._count(f"adapter {name}", tensors)
            write_json(folder / LAYOUT.adapter_config.format(name), adapter_config(self.source))
        rows = memory_rows(self.source)
        _save(folder / LAYOUT.memory_tokens, {"embed_tokens.weight": rows})
        self.report.bytes["memory-token rows"] = rows.nbytes

    def _stored(
        self, tensors: list[_Tensor], quantisation: Quantisation | None
    ) -> dict[str, mx.array]:
        arrays: dict[str, mx.array] = {}
        for tensor in tensors:
            values = tensor.ref.read()
            if tensor.line.transposed:
                values = mx.contiguous(values.T)
            stored = store(tensor.name, values, _DTYPES[self.dtype], quantisation)
            self._note_error(tensor, values, stored, quantisation)
            arrays |= stored
            del values
            mx.clear_cache()  # buffers of one shape are of no use to the next
            self._done += tensor.nbytes
            if self._progress:
                self._progress(tensor.name, self._done, self.total)
        return arrays

    def _note_error(
        self,
        tensor: _Tensor,
        values: mx.array,
        stored: dict[str, mx.array],
        quantisation: Quantisation | None,
    ) -> None:
        error = error_of(tensor.name, values, stored, quantisation)
        if tensor.line.transposed:  # an adapter's, which is only cast
            return
        worst = self.report.errors.get(tensor.kind, Error())
        self.report.errors[tensor.kind] = max(error, worst, key=lambda e: e.rms)
        matrix = quantisation is not None and len(stored) == 1 and values.ndim == 2
        if matrix and tensor.kind not in self.report.unquantised:
            self.report.unquantised.append(tensor.kind)

    def _count(self, part: str, tensors: list[_Tensor]) -> None:
        self.report.parameters[part] = sum(tensor.ref.size for tensor in tensors)
        self.report.bytes[part] = sum(tensor.nbytes for tensor in tensors)


def memory_rows(source: Source) -> mx.array:
    """The trained embedding rows of the added tokens, exactly as the checkpoint has them."""
    table = source.base["model.embed_tokens.weight"].read()
    rows = mx.contiguous(table[source.config.base_vocab_size :])
    mx.eval(rows)
    return rows


def _shards(tensors: list[_Tensor]) -> list[list[_Tensor]]:
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _save(path: Path, arrays: dict[str, mx.array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    except RuntimeError as error:  # mlx's word for a full disk
        raise OSError(f"{error} ({path.name})") from error
