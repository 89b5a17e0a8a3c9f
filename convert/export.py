"""Writing a Hugging Face CLaRa checkpoint, which `Source.open` reads, from our own arrays."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert.disk import write_json
from clara_mlx.convert.files import read_json
from clara_mlx.convert.manifest import COMPANIONS
from clara_mlx.convert.pth_writer import write_pth
from clara_mlx.convert.source import Source
from clara_mlx.convert.weight_map import ADAPTER, ADAPTER_NAMES, TABLES, inverse
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import LAYOUT, ModelFolder, load_arrays
from clara_mlx.store import atomic

#: Tensors by adapter and by name, as a model folder names them.
AdapterTensors = Mapping[str, Mapping[str, mx.array]]


def write_checkpoint(
    to: Path,
    config: ClaraConfig,
    *,
    base: str,
    layers: int,
    adapters: AdapterTensors,
    tables: Mapping[str, mx.array],
    tokenizer: Path,
) -> None:
    """Write a checkpoint folder, which is complete or not there; an earlier one is replaced.

    Args:
        to: The folder to make.
        config: The checkpoint's CLaRa fields.
        base: Path or hub id of the base, for ``decoder_model_name``.
        layers: Number of the base's transformer blocks.
        adapters: By our names, tensors named ``<target>.lora_a`` and ``<target>.lora_b``.
        tables: ``model.embed_tokens.weight`` and ``lm_head.weight``, added tokens included.
        tokenizer: The folder whose tokenizer files are copied.

    Raises:
        CheckpointError: The folder can't be written.
    """
    lines = inverse(ADAPTER, layers)
    names = {ours: theirs for theirs, ours in ADAPTER_NAMES.items()}
    content = {
        names[adapter]: {
            lines[name].source: mx.contiguous(array.T) if lines[name].transposed else array
            for name, array in tensors.items()
        }
        for adapter, tensors in adapters.items()
    }
    try:
        atomic.clear_leftovers(to)
        with atomic.partial_folder(to) as folder:
            write_pth(folder / "adapters.pth", content)
            write_pth(folder / "decoder_first_last_layers.pth", tables)
            write_json(folder / "config.json", reference_config(config, base))
            for name in (LAYOUT.tokenizer, *COMPANIONS):
                if (tokenizer / name).is_file():
                    shutil.copyfile(tokenizer / name, folder / name)
            atomic.put_in_place(folder, to)
    except OSError as error:
        raise CheckpointError(f"{to}: can't be written: {error}") from error


def tables_of(folder: ModelFolder) -> dict[str, mx.array]:
    """Read the unquantised embedding and lm_head tables that a model folder was made from.

    A quantised folder does not hold them, so they are read from its source.

    Raises:
        CheckpointError: The source is not there any more.
    """
    if not folder.is_quantised:
        files = read_json(folder.path / LAYOUT.index)["weight_map"]
        return {name: load_arrays(folder.path / files[name])[name] for name in TABLES}
    source = Source.open_recorded(folder)
    return {name: source.base[name].read() for name in TABLES}


def replace_last_rows(table: mx.array, rows: mx.array) -> mx.array:
    """A copy of a table (all rows, hidden) with other last rows, in the wider of both dtypes."""
    dtype = mx.float32 if mx.float32 in (table.dtype, rows.dtype) else table.dtype
    kept = table[: table.shape[0] - rows.shape[0]]
    return mx.concatenate([kept.astype(dtype), rows.astype(dtype)])


def reference_config(config: ClaraConfig, base: str) -> dict[str, Any]:
    """The content of a checkpoint's ``config.json``, as the reference reads it."""
    return {
        "model_type": "CLaRa",
        "decoder_model_name": base,
        "doc_max_length": config.doc_max_length,
        "compr_rate": config.compr_rate,
        "compr_model_name": None,
        "lora": True,
        "lora_r": config.lora_r,
        "sep": config.sep,
        "different_mem_tokens": config.different_mem_tokens,
        "optimize_mem_tokens": True,
        "training_form": "both_separately",
        "training_stage": config.training_stage,
        "generation_top_k": config.generation_top_k,
        "max_new_tokens": config.max_new_tokens,
        "quantization": "no",
        "load_adapters": True,
        # The reference drops the trained decoder adapter of stage1_2 unless this is set.
        "pure_inference": True,
    }
