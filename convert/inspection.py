"""Describing what is inside a checkpoint or a model folder, without loading weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open

from clara_mlx.compressors.lclm.folder import ADAPTER_FILE, DECODER, ENCODER, ROWS_FILE, LclmFolder
from clara_mlx.compressors.lclm.folder import NAME as LCLM
from clara_mlx.compressors.llmlingua2.folder import NAME as LLMLINGUA2
from clara_mlx.compressors.llmlingua2.folder import EncoderFolder
from clara_mlx.convert.disk import sha256_of
from clara_mlx.convert.files import (
    locate_checkpoint,
    read_adapters,
    read_json,
    read_licence,
    read_tables,
)
from clara_mlx.convert.lclm_source import LclmSource, is_lclm
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.convert.token_classifier import TokenClassifierSource, is_token_classifier
from clara_mlx.convert.weight_map import TABLES
from clara_mlx.errors import CheckpointError, Progress, reason
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import LAYOUT, ModelFolder, compressor_of
from clara_mlx.model.schemes import Scheme


def inspect(path: str | Path, *, subfolder: str | None = None) -> dict[str, Any]:
    """Describe a model folder, or a checkpoint given as a folder or a hub id.

    Returns:
        JSON values: ``kind`` (``model folder`` or ``checkpoint``), ``path``, ``config``,
        ``tensors`` (one summary per part), ``licence``, and what only one of the kinds has.

    Raises:
        CheckpointError: The place holds neither, or is damaged.
    """
    if (Path(path) / LAYOUT.clara).is_file():
        compressor = compressor_of(Path(path))
        if compressor == LCLM:
            return _inspect_lclm_folder(LclmFolder.open(path))
        if compressor == LLMLINGUA2:
            return _inspect_encoder_folder(EncoderFolder.open(path))
        return _inspect_folder(ModelFolder.open(path))
    if is_lclm(path, subfolder):
        return _inspect_lclm_checkpoint(LclmSource.open(path, subfolder=subfolder))
    if is_token_classifier(path, subfolder):
        return _inspect_encoder(TokenClassifierSource.open(path, subfolder=subfolder))
    return _inspect_checkpoint(path, subfolder)


def check(path: str | Path, *, progress: Progress | None = None) -> int:
    """Compare a model folder's files with the hashes that were taken when it was made.

    Returns:
        The number of files, all of which are as they were.

    Raises:
        CheckpointError: A file has changed, or the folder was made before there were hashes; the
            message names each of the files.
    """
    kinds: dict[str, type[LclmFolder | EncoderFolder]] = {
        LCLM: LclmFolder,
        LLMLINGUA2: EncoderFolder,
    }
    folder = kinds.get(compressor_of(Path(path)), ModelFolder).open(path)
    hashes = folder.description.get("sha256")
    if not isinstance(hashes, dict):
        raise CheckpointError(
            f"{path}: made by a clara-mlx that kept no hashes; compare it with its source "
            "(inspect --verify), or convert the checkpoint again"
        )
    changed = []
    for number, (name, expected) in enumerate(hashes.items(), 1):
        try:
            if sha256_of(folder.path / name) != expected:
                changed.append(name)
        except OSError as error:
            raise CheckpointError(f"{folder.path / name}: {reason(error)}") from error
        if progress:
            progress(number, len(hashes), name)
    if changed:
        raise CheckpointError(
            f"{path}: not as it was made: {', '.join(changed)}; copy it again or convert the "
            "checkpoint again"
        )
    return len(hashes)


def _inspect_folder(folder: ModelFolder) -> dict[str, Any]:
    """Describe a model folder from ``clara.json`` and its files' headers."""
    parts: dict[str, list[Path]] = {"base": sorted(folder.path.glob("model*.safetensors"))}
    for name in folder.adapters:
        parts[f"adapter {name}"] = [folder.path / LAYOUT.adapter.format(name)]
    parts["memory-token rows"] = [folder.path / LAYOUT.memory_tokens]
    keep = (
        "compressor",
        "fingerprint",
        "dtype",
        "quantization",
        "recipe",
        "query_adapter",
        "source",
        "notes",
    )
    return {
        "kind": "model folder",
        "path": str(folder.path),
        "config": folder.config.to_dict(),
        "licence": folder.description.get("licences"),
        "tensors": {part: _summarise_files(files) for part, files in parts.items()},
        **{key: folder.description.get(key) for key in keep},
    }


def _inspect_lclm_folder(folder: LclmFolder) -> dict[str, Any]:
    """Describe an LCLM folder from ``clara.json`` and its files' headers."""
    parts = {
        name: sorted((folder.path / name).glob("model*.safetensors")) for name in (ENCODER, DECODER)
    }
    parts["adapter"] = [folder.path / ADAPTER_FILE]
    parts["memory-token rows"] = [folder.path / ROWS_FILE]
    keep = ("fingerprint", "dtype", "recipe", "source", "notes")
    quantised = folder.description.get("quantization") or {}
    return {
        "kind": "model folder",
        "compressor": LCLM,
        "path": str(folder.path),
        "config": folder.config.to_dict(),
        "licence": folder.description.get("licences"),
        "tensors": {part: _summarise_files(files) for part, files in parts.items()},
        **{f"quantization of the {part}": str(Scheme.read(q)) for part, q in quantised.items()},
        **{key: folder.description.get(key) for key in keep},
    }


def _inspect_encoder_folder(folder: EncoderFolder) -> dict[str, Any]:
    """Describe the folder of an encoder of LLMLingua-2."""
    keep = ("fingerprint", "dtype", "quantization", "source", "notes")
    return {
        "kind": "model folder",
        "compressor": LLMLINGUA2,
        "path": str(folder.path),
        "config": folder.config.to_dict(),
        "licence": folder.description.get("licences"),
        "tensors": {"encoder": _summarise_files(sorted(folder.path.glob("model*.safetensors")))},
        **{key: folder.description.get(key) for key in keep},
    }


def _inspect_encoder(source: TokenClassifierSource) -> dict[str, Any]:
    """Describe a checkpoint of such an encoder, whose parts have been checked."""
    return {
        "kind": "checkpoint",
        "compressor": LLMLINGUA2,
        "path": str(source.path),
        "revision": source.revision,
        "config": source.config.to_dict(),
        "licence": source.licences["checkpoint"],
        "tensors": {"encoder": _summarise_tensors(list(source.tensors.values()))},
        "notes": source.notes,
    }


def _inspect_lclm_checkpoint(source: LclmSource) -> dict[str, Any]:
    """Describe an LCLM checkpoint, whose parts have been checked."""
    parts = {ENCODER: source.encoder, "adapter": source.adapter, DECODER: source.decoder}
    return {
        "kind": "checkpoint",
        "compressor": LCLM,
        "path": str(source.path),
        "revision": source.revision,
        "config": source.config.to_dict(),
        "licence": source.licences["checkpoint"],
        "tensors": {n: _summarise_tensors(list(p.tensors.values())) for n, p in parts.items()},
    }


def _summarise_files(files: list[Path]) -> dict[str, Any]:
    dtypes: Counter[str] = Counter()
    for file in files:
        with safe_open(file, framework="numpy") as opened:
            dtypes.update(opened.get_slice(name).get_dtype() for name in opened.keys())  # noqa: SIM118
    return {
        "tensors": sum(dtypes.values()),
        "bytes": sum(file.stat().st_size for file in files),
        "dtypes": dict(dtypes),
    }


def _inspect_checkpoint(path: str | Path, subfolder: str | None) -> dict[str, Any]:
    """Describe a checkpoint from its config and the headers of its tensors."""
    folder, revision = locate_checkpoint(path, subfolder, None)
    raw = read_json(folder / "config.json")
    tables = read_tables(folder)
    parts = {"tables": _summarise_tensors(list(tables.values()))}
    adapters = read_adapters(folder)
    for name, tensors in adapters.items():
        lora = [ref for key, ref in tensors.items() if key not in TABLES]
        parts[name] = _summarise_tensors(lora)
        extra = sorted(set(tensors) & set(TABLES))
        if extra:
            parts[name]["also holds"] = extra
    used = set(ClaraConfig.__dataclass_fields__)
    return {
        "kind": "checkpoint",
        "path": str(folder),
        "revision": revision,
        "base": raw.get("decoder_model_name"),
        "config": {key: value for key, value in raw.items() if key in used},
        "ignored config fields": sorted(set(raw) - used),
        "licence": read_licence(folder),
        "tensors": parts,
        "files": {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()},
    }


def _summarise_tensors(refs: list[TensorRef]) -> dict[str, Any]:
    return {
        "tensors": len(refs),
        "parameters": sum(ref.size for ref in refs),
        "bytes": sum(ref.nbytes for ref in refs),
        "dtypes": dict(Counter(ref.dtype for ref in refs)),
    }
