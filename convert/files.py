"""Finding a checkpoint's and a base's files, and reading what they describe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.tensors import TensorRef, read_safetensors
from clara_mlx.convert.weight_map import clean_adapter_key
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import download

# What is needed of a checkpoint; its weights as .pth or safetensors.
_CHECKPOINT_FILES = ("config.json", "*.pth", "*.safetensors", "tokenizer*", "*.jinja")
#: What is needed of a base.
BASE_FILES = ("*.json", "model*.safetensors", "*.jinja", "README.md", "LICENSE*")
_SUBFOLDERS = "compression-*"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a CheckpointError that names the file."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if "\\ud" in text.lower():  # an escaped lone surrogate could not be written or printed
            json.dumps(content, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def recorded_name(path_or_hub_id: str | Path) -> str:
    """A place as it is recorded: a hub id as it is, a path in full."""
    path = Path(path_or_hub_id).expanduser()
    return str(path.resolve()) if is_there(path) else str(path_or_hub_id)


def is_there(path: Path) -> bool:
    """Whether a path exists; one that no file system could have does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def folder_or_hub(name: str | Path, patterns: tuple[str, ...], revision: str | None = None) -> Path:
    """A local folder, or the matching files of a hub repository."""
    path = Path(name).expanduser()
    if is_there(path):
        if path.is_dir():
            return path
        raise CheckpointError(f"{path}: a folder is needed, not a file")
    return download(str(name), list(patterns), revision)


def locate_checkpoint(
    checkpoint: str | Path, subfolder: str | None, revision: str | None
) -> tuple[Path, str | None]:
    """The folder with the checkpoint's ``config.json``, and the hub commit it came from."""
    inside = f"{subfolder}/" if subfolder else ""
    patterns = (*(inside + name for name in _CHECKPOINT_FILES), "README.md", "LICENSE*")
    root = folder_or_hub(checkpoint, patterns, revision)
    path = root / subfolder if subfolder else root
    if not any((path / f"adapters.{kind}").is_file() for kind in ("pth", "safetensors")):
        choices = sorted(p.name for p in root.glob(_SUBFOLDERS) if p.is_dir())
        hint = (
            f"choose one with --subfolder: {', '.join(choices)}"
            if choices
            else "published CLaRa repositories need --subfolder compression-16 or compression-128"
        )
        raise CheckpointError(f"{path}: no CLaRa checkpoint (no adapters.pth); {hint}")
    from_hub = root.parent.name == "snapshots"
    return path, root.name if from_hub else None


def read_tables(path: Path) -> dict[str, TensorRef]:
    """The checkpoint's embedding and lm_head tables, by the map's names."""
    pth = path / "decoder_first_last_layers.pth"
    tensors = pth.with_suffix(".safetensors")
    if not pth.exists() and not tensors.exists():
        raise CheckpointError(f"{pth}: missing; it holds the trained embedding and lm_head tables")
    return _named(read_pth(pth) if pth.exists() else read_safetensors(tensors), pth)


def read_adapters(path: Path) -> dict[str, dict[str, TensorRef]]:
    """Adapter name -> tensors by the map's names; from .pth, or safetensors ``<adapter>.<key>``."""
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
        name: _named({clean_adapter_key(key): ref for key, ref in tensors.items()}, pth)
        for name, tensors in adapters.items()
    }


def _named(tensors: dict[str, Any], path: Path) -> dict[str, TensorRef]:
    odd = [name for name, ref in tensors.items() if not isinstance(ref, TensorRef)]
    if odd:
        raise CheckpointError(f"{path}: {', '.join(odd[:5])}: not tensors")
    return tensors


def read_base(path: Path) -> dict[str, TensorRef]:
    """All tensors of a base in safetensors, by its index where it has one."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in weight_map.values()
        ):
            raise CheckpointError(f"{index}: no weight_map of file names in this folder")
        files = [path / name for name in sorted(set(weight_map.values()))]
    else:
        files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(f"{path}: no model*.safetensors; the base must be in safetensors")
    tensors: dict[str, TensorRef] = {}
    for file in files:
        tensors.update(read_safetensors(file))
    return tensors


def read_tokenizer(base: Path, checkpoint: Path) -> dict[str, Any]:
    """The base's tokenizer, which is what the reference uses; else the checkpoint's own."""
    for folder in (base, checkpoint):
        if (folder / "tokenizer.json").is_file():
            tokenizer = read_json(folder / "tokenizer.json")
            if not _has_vocabulary(tokenizer):
                raise CheckpointError(f"{folder / 'tokenizer.json'}: it has no vocabulary of ids")
            return tokenizer
    raise CheckpointError(f"no tokenizer.json in {base}, nor in {checkpoint}")


def _has_vocabulary(tokenizer: dict[str, Any]) -> bool:
    model, added = tokenizer.get("model"), tokenizer.setdefault("added_tokens", [])
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    return (
        isinstance(vocabulary, dict)
        and len(vocabulary) > 0
        and all(type(id) is int for id in vocabulary.values())
        and isinstance(added, list)
        and all(
            isinstance(token, dict)
            and type(token.get("id")) is int
            and isinstance(token.get("content"), str)
            for token in added
        )
    )


def vocabulary_size(tokenizer: dict[str, Any]) -> int:
    """Ids of the base vocabulary; CLaRa's own tokens are not counted if they are there already."""
    ids = [*tokenizer["model"]["vocab"].values()]
    for token in tokenizer["added_tokens"]:
        if not re.fullmatch(r"<(MEM\d*|AE|ENC|SEP)>", token["content"]):
            ids.append(token["id"])
    return max(ids) + 1


def add_tokens(tokenizer: dict[str, Any], config: ClaraConfig, where: Path) -> None:
    """Append CLaRa's tokens to a parsed tokenizer.json, or check those that are there."""
    present = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    for id, content in enumerate(config.added_tokens, config.base_vocab_size):
        if present.get(content, id) != id:
            raise CheckpointError(
                f"{where}: tokenizer.json gives {content} the id {present[content]}, not {id}"
            )
        if content not in present:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            tokenizer["added_tokens"].append(
                {"id": id, "content": content, **flags, "special": True}
            )


def licence_of(path: Path) -> str | None:
    """The licence that a repository's model card states, looked for here and one folder up."""
    from huggingface_hub import ModelCard

    for folder in (path, path.parent):
        card = folder / "README.md"
        if card.is_file() and card.read_bytes()[:3] == b"---":  # a model card's metadata
            try:
                data = ModelCard.load(card).data.to_dict()
            except Exception:  # the YAML need not be valid
                continue
            licence = data.get("license_name") or data.get("license")
            if licence:
                return "".join(c if c.isprintable() else "?" for c in str(licence))
    return None
