"""Finding a checkpoint's and a base's files, and reading which tensors they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.tensors import TensorRef, read_safetensors
from clara_mlx.convert.weight_map import clean_adapter_key, clean_base_key
from clara_mlx.errors import CheckpointError, reason
from clara_mlx.model.folder import download
from clara_mlx.model.regular import MOST_CONFIG, read_regular

# Files of a checkpoint that a conversion needs; its weights are .pth or safetensors.
_CHECKPOINT_FILES = ("config.json", "*.pth", "*.safetensors", "tokenizer*", "*.jinja")
#: Files of a base that a conversion needs.
BASE_FILES = ("*.json", "model*.safetensors", "*.jinja", "README.md", "LICENSE*")

_SUBFOLDERS = "compression-*"  # of the published repositories, a checkpoint in each


def read_json(path: Path, most: int = MOST_CONFIG) -> dict[str, Any]:
    """Read a JSON object from a file of at most ``most`` bytes.

    Raises:
        CheckpointError: The file can't be read, or holds something else; the message names it.
    """
    try:
        text = read_regular(path, most).decode("utf-8")
        content = json.loads(text)
        if "\\ud" in text.lower():  # an escaped lone surrogate could not be written or printed
            json.dumps(content, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {reason(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def recorded_name(path_or_hub_id: str | Path) -> str:
    """The name under which ``clara.json`` records a place: the full path, or the hub id."""
    path = Path(path_or_hub_id).expanduser()
    return str(path.resolve()) if path_exists(path) else str(path_or_hub_id)


def path_exists(path: Path) -> bool:
    """Whether a path exists; False for names that no file system allows."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def locate_folder(name: str | Path, patterns: tuple[str, ...], revision: str | None = None) -> Path:
    """A local folder as it is, or a hub repository's files that match, downloaded if need be."""
    path = Path(name).expanduser()
    if path_exists(path):
        if path.is_dir():
            return path
        raise CheckpointError(f"{path}: not a folder; name the folder that holds it")
    return download(str(name), list(patterns), revision)


def locate_checkpoint(
    checkpoint: str | Path, subfolder: str | None, revision: str | None
) -> tuple[Path, str | None]:
    """Find the folder with the checkpoint's ``config.json``, and the hub commit it came from."""
    inside = f"{subfolder}/" if subfolder else ""
    patterns = (*(inside + name for name in _CHECKPOINT_FILES), "README.md", "LICENSE*")
    root = locate_folder(checkpoint, patterns, revision)
    path = root / subfolder if subfolder else root
    if not any((path / f"adapters.{kind}").is_file() for kind in ("pth", "safetensors")):
        choices = sorted(p.name for p in root.glob(_SUBFOLDERS) if p.is_dir())
        hint = (
            f"choose one with --subfolder: {', '.join(choices)}"
            if choices
            else "published CLaRa repositories need --subfolder compression-16 or compression-128"
        )
        raise CheckpointError(f"{path}: not a CLaRa checkpoint (it has no adapters.pth); {hint}")
    from_hub = root.parent.name == "snapshots"
    return path, root.name if from_hub else None


def read_tables(path: Path) -> dict[str, TensorRef]:
    """The checkpoint's embedding and lm_head tables, by the weight map's names."""
    pth = path / "decoder_first_last_layers.pth"
    tensors = pth.with_suffix(".safetensors")
    if not pth.exists() and not tensors.exists():
        raise CheckpointError(f"{pth}: missing; it holds the trained embedding and lm_head tables")
    return _check_tensors(read_pth(pth) if pth.exists() else read_safetensors(tensors), pth)


def read_adapters(path: Path) -> dict[str, dict[str, TensorRef]]:
    """Tensors of each adapter, by the weight map's names.

    They are in ``adapters.pth``, or in ``adapters.safetensors`` under ``<adapter>.<name>``.
    """
    pth = path / "adapters.pth"
    adapters: dict[str, dict[str, Any]] = {}
    if pth.exists():
        for name, tensors in read_pth(pth).items():
            if not isinstance(tensors, dict):
                raise CheckpointError(f"{pth}: {name!r} is not a dict of tensors")
            adapters[name] = tensors
    else:
        for key, ref in read_safetensors(pth.with_suffix(".safetensors")).items():
            name, _, rest = key.partition(".")
            adapters.setdefault(name, {})[rest] = ref
    return {
        name: _check_tensors({clean_adapter_key(key): ref for key, ref in tensors.items()}, pth)
        for name, tensors in adapters.items()
    }


def _check_tensors(tensors: dict[str, Any], path: Path) -> dict[str, TensorRef]:
    """Refuse a dict that holds anything but tensors."""
    odd = [name for name, ref in tensors.items() if not isinstance(ref, TensorRef)]
    if odd:
        raise CheckpointError(f"{path}: not tensors: {', '.join(odd[:5])}")
    return tensors


def read_base(path: Path) -> dict[str, TensorRef]:
    """The tensors of a base's text model, from the safetensors files that its index names."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in weight_map.values()
        ):
            raise CheckpointError(f"{index}: it has no weight_map of file names in this folder")
        files = [path / name for name in sorted(set(weight_map.values()))]
    else:
        files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{path}: no model*.safetensors there; the base must be in safetensors"
        )
    tensors: dict[str, TensorRef] = {}
    for file in files:
        for key, ref in read_safetensors(file).items():
            name = clean_base_key(key)
            if name is not None:
                tensors[name] = ref
    return tensors


def read_licence(path: Path) -> str | None:
    """The licence that the model card in a folder, or in the one above it, states."""
    from huggingface_hub import ModelCard

    for folder in (path, path.parent):
        card = folder / "README.md"
        if not card.is_file():
            continue
        try:
            text = read_regular(card, MOST_CONFIG).decode()
            if not text.startswith("---"):  # it has no metadata
                continue
            data = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
        except Exception:  # the YAML need not be valid
            continue
        licence = data.get("license_name") or data.get("license")
        if licence:
            return "".join(c if c.isprintable() else "?" for c in str(licence))
    return None
