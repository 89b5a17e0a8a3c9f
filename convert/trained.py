"""Saving what training made: a model folder with other adapters and memory-token rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert.disk import check_target, save_arrays, sha256_of, write_json
from clara_mlx.convert.export import (
    AdapterTensors,
    replace_last_rows,
    tables_of,
    write_checkpoint,
)
from clara_mlx.convert.files import read_json
from clara_mlx.convert.manifest import file_sizes, fingerprint_of, query_adapter_of
from clara_mlx.convert.quantise import quantise_tensor
from clara_mlx.convert.weight_map import TABLES
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import LAYOUT, ModelFolder, load_arrays
from clara_mlx.model.schemes import Scheme
from clara_mlx.store import atomic
from clara_mlx.version import __version__

_EMBEDDING = TABLES[0]
_CHECKPOINT_FILES = ("config.json", "adapters.pth", "decoder_first_last_layers.pth")


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

    Adapters are stored in the folder's dtype, rows in that or in the dtype of the folder's own
    rows, whichever is wider. In the base, only the memory tokens' rows change. Unchanged files are
    shared with the original folder if the file system can do that.

    Args:
        folder: The model folder that training started from.
        adapters: The trained ones, tensors named ``<target>.lora_a`` and ``<target>.lora_b``.
        rows: Trained embedding rows of all added tokens; None keeps the folder's.
        config: The result's config; stage and top k may differ from the folder's.
        about: What ``clara.json`` says about the training.
        model: The model folder to write; an earlier one is replaced.
        checkpoint: The checkpoint folder to write, with all adapters; None writes none.

    Raises:
        CheckpointError: One of them can't be written; see also `tables_of`.
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
        tables[_EMBEDDING] = replace_last_rows(tables[_EMBEDDING], rows)
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
        check_target(model, force=True)
        with atomic.partial_folder(model) as partial:
            written = _write_weights(partial, folder, adapters, rows)
            names = sorted({*folder.adapters, *adapters})
            hashes = {name: sha256_of(partial / name) for name in written}
            made_from = {"from": folder.fingerprint, "sha256": hashes}
            description = folder.description | {
                "clara_mlx": __version__,
                "fingerprint": fingerprint_of(made_from),
                "config": config.to_dict(),
                "adapters": names,
                "query_adapter": query_adapter_of(names),
                "source": _describe_source(folder, checkpoint),
                "training": [*folder.description.get("training", []), {**made_from, **about}],
                "files": file_sizes(partial),
                "sha256": _own_hashes(partial, folder, hashes),
            }
            write_json(partial / LAYOUT.clara, description)
            atomic.put_in_place(partial, model)
    except OSError as error:
        raise CheckpointError(f"{model}: can't be written: {error}") from error


def _write_weights(
    to: Path, folder: ModelFolder, adapters: AdapterTensors, rows: mx.array
) -> list[str]:
    """Write the files that training changed, whose names it returns, and share the others."""
    changed: dict[str, dict[str, mx.array]] = {
        LAYOUT.adapter.format(name): dict(tensors) for name, tensors in adapters.items()
    }
    if not mx.array_equal(rows, folder.memory_rows()):
        changed[LAYOUT.memory_tokens] = {"embed_tokens.weight": rows}
        shard = read_json(folder.path / LAYOUT.index)["weight_map"][_EMBEDDING]
        arrays = load_arrays(folder.path / shard)
        scheme = Scheme.of(folder)
        format = scheme.format_of(_EMBEDDING, rows.shape) if scheme else None
        stored = quantise_tensor(_EMBEDDING, rows, folder.dtype, format)
        changed[shard] = arrays | {
            name: mx.concatenate([arrays[name][: -len(part)], part])
            for name, part in stored.items()
        }
    for path in sorted(folder.path.rglob("*")):
        name = str(path.relative_to(folder.path))
        if path.is_file() and name not in changed and name != LAYOUT.clara:
            _share(path, to / name)
    for name, arrays in changed.items():
        save_arrays(to / name, arrays)
    like = folder.path / LAYOUT.adapter_config.format("encoder")
    for name in adapters:
        if not (to / LAYOUT.adapter_config.format(name)).exists():
            shutil.copyfile(like, to / LAYOUT.adapter_config.format(name))
    return list(changed)


def _own_hashes(to: Path, folder: ModelFolder, changed: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of every file of a new folder; that of a shared file is the old folder's."""
    known = {**folder.description.get("sha256", {}), **changed}
    return {name: known.get(name) or sha256_of(to / name) for name in file_sizes(to)}


def _describe_source(folder: ModelFolder, checkpoint: Path | None) -> dict[str, Any]:
    """The folder's source, or the checkpoint that was written beside the new folder."""
    source = dict(folder.description["source"])
    if checkpoint is None:
        return source
    hashes = {name: sha256_of(checkpoint / name) for name in _CHECKPOINT_FILES}
    return source | {
        "checkpoint": str(checkpoint),
        "subfolder": None,
        "revision": None,
        "sha256": {**source["sha256"], "checkpoint": hashes},
    }


def _share(path: Path, to: Path) -> None:
    """Give a file a second name, or copy it where that is not possible."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), to)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, to)
