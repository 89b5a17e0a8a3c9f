"""Writing a model folder: planned in full, streamed tensor by tensor, renamed when complete."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.checkpoint import LAYOUT
from clara_mlx.convert import disk
from clara_mlx.convert.quantise import Error, Quantisation, error_of, store
from clara_mlx.convert.source import Source
from clara_mlx.convert.tensors import ITEM_SIZES, TensorRef
from clara_mlx.convert.weight_map import ADAPTER, BASE, Weight, expand
from clara_mlx.errors import CheckpointError
from clara_mlx.lora import SCALE, TARGETS
from clara_mlx.version import __version__

#: Weights are written in files of about this size, one file in memory at a time.
SHARD_BYTES = 1 << 30

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
    disk.clear_leftovers(to)
    disk.check_target(to, force)
    writer = _Writer(source, to, quantisation, dtype, progress)
    disk.check_space(to.parent, writer.total)
    with ThreadPoolExecutor(1) as pool, disk.partial_folder(to) as folder:
        hashes = pool.submit(_hashes, source)  # reads beside the quantising
        try:
            writer.write(folder)
            writer.describe(folder, hashes.result())
        except BaseException:
            hashes.cancel()
            raise
        disk.put_in_place(folder, to)
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
        size = ITEM_SIZES[self.dtype]
        plan = []
        for name, line in lines.items():
            if line.target:
                ref = refs[name]
                quantised = quantisation and quantisation.applies(ref.shape)
                plan.append(
                    _Tensor(
                        ref,
                        line,
                        quantisation.nbytes(ref.shape, size)
                        if quantisation and quantised
                        else ref.size * size,
                    )
                )
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
        _write_json(
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
            _write_json(folder / LAYOUT.adapter_config.format(name), self._adapter_config())
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

    def _adapter_config(self) -> dict[str, Any]:
        """mlx-lm's ``adapter_config.json``."""
        return {
            "fine_tune_type": "lora",
            "num_layers": self.source.sizes["layers"],
            "lora_parameters": {
                "rank": self.source.config.lora_r,
                "scale": SCALE,
                "dropout": 0.0,
                "keys": list(TARGETS),
            },
        }

    def describe(self, folder: Path, hashes: dict[str, dict[str, str]]) -> None:
        """Write what says what the weights are: configs, tokenizer, ``clara.json`` last."""
        source, config = self.source, self.source.config
        quantisation = asdict(self.quantisation) if self.quantisation else None
        _write_json(folder / LAYOUT.config, _mlx_config(source, self.dtype, quantisation))
        _write_json(folder / LAYOUT.tokenizer, source.tokenizer)
        _copy_companions(source, folder)
        identity = {"files": hashes, "quantization": quantisation, "dtype": self.dtype}
        files = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        _write_json(
            folder / LAYOUT.clara,
            {
                "format": LAYOUT.format,
                "clara_mlx": __version__,
                "fingerprint": _digest(identity),
                "config": config.to_dict(),
                "dtype": self.dtype,
                "quantization": quantisation,
                "adapters": self.report.adapters,
                "query_adapter": "query_reasoner"
                if "query_reasoner" in source.adapters
                else "encoder",
                "added_tokens": dict(
                    zip(config.added_tokens, range(config.base_vocab_size, 2**31), strict=False)
                ),
                "source": {
                    "checkpoint": source.name,
                    "subfolder": source.subfolder,
                    "revision": source.revision,
                    "base": source.base_name,
                    "sha256": hashes,
                },
                "licences": source.licences,
                "quantisation_error": {k: asdict(e) for k, e in self.report.errors.items()},
                "notes": source.notes,
                "files": files,
            },
        )


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


def _mlx_config(source: Source, dtype: str, quantisation: dict[str, Any] | None) -> dict[str, Any]:
    """The base's ``config.json`` as mlx-lm reads it."""
    config = dict(source.base_config)
    # Newer transformers nest what mlx-lm's Llama expects at the top, and would silently default.
    rope = config.pop("rope_parameters", None) or {}
    config.setdefault("rope_theta", rope.get("rope_theta", 10000.0))
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope
    config["vocab_size"] = source.config.vocab_size
    config["tie_word_embeddings"] = False
    config["torch_dtype"] = dtype
    if quantisation:
        config["quantization"] = config["quantization_config"] = quantisation
    return config


def _copy_companions(source: Source, folder: Path) -> None:
    for pattern in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (source.base_path / pattern).is_file():
            shutil.copyfile(source.base_path / pattern, folder / pattern)
    if (source.base_path / "generation_config.json").is_file():
        shutil.copyfile(
            source.base_path / "generation_config.json", folder / "generation_config.json"
        )
    for licence in [*source.path.glob("LICENSE*"), *source.path.parent.glob("LICENSE*")][:1]:
        shutil.copyfile(licence, folder / "LICENSE")


def _save(path: Path, arrays: dict[str, mx.array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _hashes(source: Source) -> dict[str, dict[str, str]]:
    """SHA-256 of every source file, by its name, for checkpoint and base."""
    hashes: dict[str, dict[str, str]] = {}
    for part, paths in source.files.items():
        hashes[part] = {}
        for path in paths:
            with path.open("rb") as file:
                hashes[part][path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
