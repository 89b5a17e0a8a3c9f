"""A fresh start: a plain base becomes a CLaRa checkpoint with new memory tokens and adapters."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert import Source, convert
from clara_mlx.convert.base_config import read_base_config
from clara_mlx.convert.export import write_checkpoint
from clara_mlx.convert.files import BASE_FILES, locate_folder, read_base
from clara_mlx.convert.vocabulary import read_tokenizer, vocabulary_size
from clara_mlx.convert.weight_map import ADAPTER, TABLES, dimensions, expand
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import LAYOUT, ModelFolder
from clara_mlx.model.schemes import Quantisation
from clara_mlx.train.config import Fresh
from clara_mlx.train.parameters import new_adapter


def start_folder(fresh: Fresh, output: Path, seed: int) -> Path:
    """The model folder that a fresh run starts from, made below ``output`` if it does not exist.

    Like every other checkpoint it is written in Hugging Face's layout, then converted.

    Raises:
        CheckpointError: The base is not usable; see also `clara_mlx.convert.convert`.
    """
    checkpoint = output / "start" / "checkpoint"
    folder = output / "start" / "model"
    if (folder / LAYOUT.clara).exists():
        return folder
    _write_checkpoint(fresh, checkpoint, seed)
    source = Source.open(checkpoint, base=fresh.base)
    quantisation = Quantisation(fresh.bits) if fresh.bits else None
    convert(source, folder, quantisation=quantisation, dtype=fresh.dtype)
    return ModelFolder.open(folder).path


def _write_checkpoint(fresh: Fresh, to: Path, seed: int) -> None:
    """Write a checkpoint of a base with added tokens and two empty adapters."""
    base = locate_folder(fresh.base, BASE_FILES)
    base_config = read_base_config(base)
    where = str(base / "config.json")
    tokenizer = read_tokenizer(base, base)
    refs = read_base(base)
    if TABLES[0] not in refs:
        raise CheckpointError(f"{base}: not a base for CLaRa (it has no {TABLES[0]})")
    config = ClaraConfig.from_dict(
        {
            "doc_max_length": fresh.doc_max_length,
            "compr_rate": fresh.compr_rate,
            "lora_r": fresh.lora_r,
            "hidden_size": base_config.get("hidden_size"),
            "base_vocab_size": vocabulary_size(tokenizer),
            "window": 1,  # the conversion takes the base's own
            "training_stage": "stage1",
        },
        where=where,
    )
    tables = {}
    for name in TABLES:
        ref = refs.get(name) or refs[TABLES[0]]  # a tied lm_head is the embedding
        tables[name] = _add_rows(ref.read(), config, fresh.row_spread, seed, name)
    sizes = dimensions(base_config, config.vocab_size, config.lora_r, where=where)
    shapes = adapter_shapes(sizes)
    dtype = tables[TABLES[0]].dtype
    adapters = {
        name: {key: array.astype(dtype) for key, array in new_adapter(shapes, seed, name).items()}
        for name in ("encoder", "decoder")
    }
    write_checkpoint(
        to,
        config,
        base=fresh.base,
        layers=sizes["layers"],
        adapters=adapters,
        tables=tables,
        tokenizer=base,
    )


def adapter_shapes(sizes: dict[str, int]) -> dict[str, mx.array]:
    """Unevaluated arrays of an adapter's shapes, by our names: A (in, rank), B (rank, out)."""
    lines = [line for line in expand(ADAPTER, sizes["layers"]).values() if line.target]
    return {str(line.target): mx.zeros(list(reversed(line.numbers(sizes)))) for line in lines}


def _add_rows(
    table: mx.array, config: ClaraConfig, spread: float, seed: int, name: str
) -> mx.array:
    """A table with a new row for each added token, drawn around the mean of the known rows."""
    known = table[: config.base_vocab_size].astype(mx.float32)
    if known.shape[0] < config.base_vocab_size:
        raise CheckpointError(
            f"{name} has {known.shape[0]} rows, but the tokenizer has {config.base_vocab_size} ids"
        )
    key = mx.random.key(random.Random(f"{seed} {name}").getrandbits(63))
    noise = mx.random.normal((len(config.added_tokens), table.shape[1]), key=key)
    rows: Any = known.mean(axis=0) + spread * known.std(axis=0) * noise
    return mx.concatenate([known, rows]).astype(table.dtype)
