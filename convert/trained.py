"""A model folder with other adapters and memory-token rows: what training makes of one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert import target
from clara_mlx.convert.export import AdapterTensors, tables_of, with_rows, write_checkpoint
from clara_mlx.convert.files import read_json
from clara_mlx.convert.manifest import write_json
from clara_mlx.convert.weight_map import TABLES
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import LAYOUT, ModelFolder, load_arrays
from clara_mlx.store import atomic
from clara_mlx.version import __version__

_EMBEDDING = TABLES[0]


def save_trained(
    folder: ModelFolder,
    adapters: AdapterTensors,
    rows: mx.array | None,
    *,
    config: ClaraConfig,
    about: Mapping[str, Any],
    model: Path,
    checkpoint: Path | None,
) -> None:
    """Write what training made, as a model folder and as a Hugging Face checkpoint.

    Adapters are stored in the folder's dtype, rows in its or in that of its rows, whichever is
    wider. The base is not changed, but for the memory tokens'
    rows. Where the file system can, unchanged files are shared with the original folder.

    Args:
        folder: what training started from.
        adapters: the trained ones, tensors named ``<target>.lora_a`` and ``<target>.lora_b``.
        rows: trained embedding rows of all added tokens; None: the folder's.
        config: the result's; stage and top k may differ from the folder's.
        about: what ``clara.json`` says about the training.
        model: the model folder to write; one that is there is replaced.
        checkpoint: the checkpoint folder to write, with all adapters; None writes none.

    Raises:
        CheckpointError: one of them can't be written; see also `tables_of`.
    """
    adapters = {
        name: {key: array.astype(folder.dtype) for key, array in tensors.items()}
        for name, tensors in adapters.items()
    }
    old_rows = folder.memory_rows()
    if rows is None:
        rows = old_rows
    elif mx.float32 not in (folder.dtype, old_rows.dtype):
        rows = rows.astype(old_rows.dtype)
    if checkpoint is not None:
        tables = tables_of(folder)
        tables[_EMBEDDING] = with_rows(tables[_EMBEDDING], rows)
        untrained = {name: folder.adapter(name) for name in folder.adapters}
        write_checkpoint(
            checkpoint,
            config,
            base=folder.description["source"]["base"],
            layers=folder.base_config["num_hidden_layers"],
            adapters=untrained | adapters,
            tables=tables,
            tokenizer=folder.path,
        )
    try:
        atomic.clear_leftovers(model)
        target.check_target(model, force=True)
        with atomic.partial_folder(model) as partial:
            _write(partial, folder, adapters, rows, config, about, checkpoint)
            atomic.put_in_place(partial, model)
    except OSError as error:
        raise CheckpointError(f"{model}: can't be written: {error}") from error


def _write(
    to: Path,
    folder: ModelFolder,
    adapters: AdapterTensors,
    rows: mx.array,
    config: ClaraConfig,
    about: Mapping[str, Any],
    checkpoint: Path | None,
) -> None:
    new: dict[str, dict[str, mx.array]] = {
        LAYOUT.adapter.format(name): dict(tensors) for name, tensors in adapters.items()
    }
    if not mx.array_equal(rows, folder.memory_rows()):
        new[LAYOUT.memory_tokens] = {"embed_tokens.weight": rows}
        shard = read_json(folder.path / LAYOUT.index)["weight_map"][_EMBEDDING]
        new[shard] = _with_rows_inside(folder, load_arrays(folder.path / shard), rows)
    for path in sorted(folder.path.rglob("*")):
        name = str(path.relative_to(folder.path))
        if path.is_file() and name not in new and name != LAYOUT.clara:
            _share(path, to / name)
    for name, arrays in new.items():
        _save(to / name, arrays)
    like = folder.path / LAYOUT.adapter_config.format("encoder")
    for name in adapters:
        if not (to / LAYOUT.adapter_config.format(name)).exists():
            shutil.copyfile(like, to / LAYOUT.adapter_config.format(name))
    names = sorted({*folder.adapters, *adapters})
    source = dict(folder.description["source"])
    hashes = {name: _sha256(to / name) for name in new}
    if checkpoint is not None:
        source |= {"checkpoint": str(checkpoint), "subfolder": None, "revision": None}
        files = ("config.json", "adapters.pth", "decoder_first_last_layers.pth")
        here = {name: _sha256(checkpoint / name) for name in files}
        source["sha256"] = {**source["sha256"], "checkpoint": here}
    identity = {"from": folder.fingerprint, "sha256": hashes}
    described = folder.description | {
        "clara_mlx": __version__,
        "fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "config": config.to_dict(),
        "adapters": names,
        "query_adapter": "query_reasoner" if "query_reasoner" in names else "encoder",
        "source": source,
        "training": [
            *folder.description.get("training", []),
            {"from": folder.fingerprint, "sha256": hashes, **about},
        ],
        "files": {
            str(path.relative_to(to)): path.stat().st_size
            for path in sorted(to.rglob("*"))
            if path.is_file()
        },
    }
    write_json(to / LAYOUT.clara, described)


def _with_rows_inside(
    folder: ModelFolder, shard: dict[str, mx.array], rows: mx.array
) -> dict[str, mx.array]:
    """A weights file whose embedding table has these last rows, quantised as the rest is."""
    scheme = folder.description["quantization"]
    path = _EMBEDDING.removesuffix(".weight")
    rows = rows.astype(folder.dtype)
    parts = {_EMBEDDING: rows}
    if f"{path}.scales" in shard:
        quantised = mx.quantize(rows, scheme["group_size"], scheme["bits"])
        names = (_EMBEDDING, f"{path}.scales", f"{path}.biases")
        parts = dict(zip(names, quantised, strict=True))
    count = rows.shape[0]
    return shard | {
        name: mx.concatenate([shard[name][:-count], part]) for name, part in parts.items()
    }


def _share(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), to)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, to)


def _save(path: Path, arrays: dict[str, mx.array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    except RuntimeError as error:  # mlx's word for a full disk
        raise OSError(f"{error} ({path.name})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
