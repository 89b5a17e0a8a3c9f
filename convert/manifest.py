"""What says what a model folder's weights are: configs, tokenizer, hashes, ``clara.json``."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clara_mlx.convert.quantise import Quantisation
from clara_mlx.convert.source import Source
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import LAYOUT
from clara_mlx.model.lora import SCALE, TARGETS
from clara_mlx.version import __version__

#: Files of the base that mlx-lm and transformers read beside the weights.
COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def describe(
    folder: Path,
    source: Source,
    dtype: str,
    quantisation: Quantisation | None,
    errors: dict[str, Any],
    hashes: dict[str, dict[str, str]],
) -> None:
    """Write the configs, the tokenizer, and ``clara.json`` last.

    Args:
        folder: where the weights are already.
        source: what they were made from.
        dtype: of all that is not quantised.
        quantisation: of the base's matrices.
        errors: the worst quantisation error by kind of tensor.
        hashes: SHA-256 by part and file name.
    """
    config = source.config
    scheme = asdict(quantisation) if quantisation else None
    write_json(folder / LAYOUT.config, _mlx_config(source, dtype, scheme))
    write_json(folder / LAYOUT.tokenizer, source.tokenizer)
    _copy_companions(source, folder)
    identity = {"files": hashes, "quantization": scheme, "dtype": dtype}
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(
        folder / LAYOUT.clara,
        {
            "format": LAYOUT.format,
            "clara_mlx": __version__,
            "fingerprint": hashlib.sha256(
                json.dumps(identity, sort_keys=True).encode()
            ).hexdigest(),
            "config": config.to_dict(),
            "dtype": dtype,
            "quantization": scheme,
            "adapters": sorted(source.adapters),
            "query_adapter": "query_reasoner" if "query_reasoner" in source.adapters else "encoder",
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
            "quantisation_error": errors,
            "notes": source.notes,
            "files": files,
        },
    )


def adapter_config(source: Source) -> dict[str, Any]:
    """mlx-lm's ``adapter_config.json``."""
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
    """The base's ``config.json`` as mlx-lm reads it."""
    config = dict(source.base_config)
    # Newer transformers nest what mlx-lm's Llama expects at the top, and would silently default.
    rope = config.pop("rope_parameters", None) or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"{source.base_path / 'config.json'}: rope_parameters is {rope!r}")
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
    for name in COMPANIONS:
        if (source.base_path / name).is_file():
            shutil.copyfile(source.base_path / name, folder / name)
    for licence in [*source.path.glob("LICENSE*"), *source.path.parent.glob("LICENSE*")][:1]:
        shutil.copyfile(licence, folder / "LICENSE")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON file as people read it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def hashed_beside(source: Source) -> Iterator[Callable[[], dict[str, dict[str, str]]]]:
    """SHA-256 of every source file, read by a thread beside the work; ends with the block."""
    stop = threading.Event()

    def digest(path: Path) -> str:
        hashed = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while not stop.is_set() and (block := file.read(1 << 22)):
                hashed.update(block)
        return hashed.hexdigest()

    def digests() -> dict[str, dict[str, str]]:
        return {
            part: {path.name: digest(path) for path in paths}
            for part, paths in source.files.items()
        }

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(digests)
        try:
            yield future.result
        finally:
            stop.set()
