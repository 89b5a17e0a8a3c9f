"""Describing a model folder's weights: its configs, its tokenizer, and the manifest, clara.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from clara_mlx.convert.chat_template import TEMPLATE_FILE, read_template
from clara_mlx.convert.disk import sha256_of, write_json
from clara_mlx.convert.source import Source
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import CLARA, LAYOUT
from clara_mlx.model.lora import SCALE, TARGETS
from clara_mlx.model.regular import read_regular
from clara_mlx.model.schemes import Scheme
from clara_mlx.version import __version__

#: Files of the base that mlx-lm and transformers read beside the weights.
COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def write_manifest(
    folder: Path,
    source: Source,
    dtype: str,
    scheme: Scheme | None,
    errors: dict[str, Any],
    hashes: dict[str, dict[str, str]],
) -> None:
    """Write the configs and the tokenizer, and last ``clara.json``, which lists all files.

    Args:
        folder: The model folder, with its weights already in it.
        source: The checkpoint and base that they were made from.
        dtype: The type of everything that is not quantised.
        scheme: How the base's matrices are quantised, or None.
        errors: The worst quantisation error by kind of tensor, by samples.
        hashes: SHA-256 of the source's files, by part and file name.
    """
    config = source.config
    quantisation = scheme.to_dict() if scheme else None
    write_json(folder / LAYOUT.config, _mlx_config(source, dtype, quantisation))
    write_json(folder / LAYOUT.tokenizer, source.tokenizer)
    copy_companions(source.base_path, folder)
    template = read_template(source.path)
    if template is not None:  # the one that the checkpoint was trained with
        (folder / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    copy_licence(source.path, folder)
    write_json(
        folder / LAYOUT.clara,
        {
            "format": LAYOUT.format if source.compressor != CLARA else format_of(config),
            "compressor": source.compressor,
            "clara_mlx": __version__,
            "fingerprint": fingerprint_of(
                {"files": hashes, "quantization": quantisation, "dtype": dtype}
            ),
            "config": config.to_dict(),
            "dtype": dtype,
            "quantization": quantisation,
            "recipe": scheme.recipe if scheme else None,
            "adapters": sorted(source.adapters),
            "query_adapter": query_adapter_of(source.adapters),
            "added_tokens": {
                token: id for id, token in enumerate(config.added_tokens, config.base_vocab_size)
            },
            "source": {
                "checkpoint": source.name,
                "subfolder": source.subfolder,
                "revision": source.revision,
                "base": source.base_name,
                "sha256": hashes,
            },
            "licences": source.licences,
            "quantisation_error": errors,
            "notes": source.notes,
            "files": file_sizes(folder),
            "sha256": {name: sha256_of(folder / name) for name in file_sizes(folder)},
        },
    )


def format_of(config: ClaraConfig) -> int:
    """The format number of ``clara.json``: 1 unless an older clara-mlx would read it wrongly."""
    plain = config.prompt is None and config.bos_id is not None and not config.more_stop_ids
    return 1 if plain else LAYOUT.format


def fingerprint_of(identity: dict[str, Any]) -> str:
    """The hash that tells one model from another: equal fingerprints give equal latents."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def query_adapter_of(adapters: Container[str]) -> str:
    """The adapter that queries are encoded with."""
    return "query_reasoner" if "query_reasoner" in adapters else "encoder"


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def adapter_config(source: Source) -> dict[str, Any]:
    """The content of ``adapter_config.json``, as mlx-lm reads it."""
    return {
        "fine_tune_type": "lora",
        "num_layers": source.sizes["layers"],
        "lora_parameters": {
            "rank": source.config.lora_r,
            "scale": SCALE,
            "dropout": 0.0,
            "keys": list(TARGETS),
        },
    }


def _mlx_config(source: Source, dtype: str, quantisation: dict[str, Any] | None) -> dict[str, Any]:
    """The folder's ``config.json``, as mlx-lm reads it."""
    config = {**source.base_config, "torch_dtype": dtype}
    if quantisation:
        config["quantization"] = config["quantization_config"] = quantisation
    return config


def copy_companions(model: Path, folder: Path) -> None:
    """Copy the small files that travel with a model's weights, out of its folder.

    Raises:
        CheckpointError: One is a link out of its folder, or not JSON although it should be.
    """
    for name in COMPANIONS:
        if (model / name).exists():
            content = _read_companion(model / name)
            if name.endswith(".json"):  # mlx-lm and transformers would stumble over it
                content = _checked_json(content, model / name)
            (folder / name).write_bytes(content)


def copy_licence(checkpoint: Path, folder: Path) -> None:
    """Copy the licence that lies in a checkpoint's folder, or in the one above it."""
    for licence in [*checkpoint.glob("LICENSE*"), *checkpoint.parent.glob("LICENSE*")][:1]:
        (folder / "LICENSE").write_bytes(_read_companion(licence))


def _checked_json(content: bytes, path: Path) -> bytes:
    """A JSON file's content without a byte order mark; refused if it is not JSON."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not JSON ({error!s:.80}); download it again, or remove it"
        ) from error
    return content


def _read_companion(path: Path) -> bytes:
    """The content of a file that is copied unread."""
    refuse_link_out(path, path.parent)
    return read_regular(path)


def refuse_link_out(path: Path, folder: Path) -> None:
    """Refuse a file that is not in its folder.

    A name or a link may lead to any file of this machine, and a model folder may be published. So
    it has to stay in its folder, or lead to the hub's cache of the same repository.

    Raises:
        CheckpointError: It leads elsewhere.
    """
    home, target = folder.resolve(), path.resolve()
    blobs = target.parent
    in_cache = blobs.name == "blobs" and blobs.parent / "snapshots" in home.parents
    if not (target.is_relative_to(home) or in_cache):
        raise CheckpointError(
            f"{path}: a link out of its folder; if {target} belongs to it, copy it there"
        )
