"""Finding a checkpoint's and a base's files, and reading which tensors they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clara_mlx.convert import licences, peft_folders
from clara_mlx.convert.downloads import check_download, is_named
from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.tensors import TensorRef, read_safetensors
from clara_mlx.convert.weight_map import clean_adapter_key, clean_base_key, clean_key
from clara_mlx.errors import CheckpointError, reason
from clara_mlx.model.folder import download
from clara_mlx.model.regular import MOST_CONFIG, read_regular

# Files of a checkpoint that a conversion needs; its weights are .pth or safetensors.
_CHECKPOINT_FILES = (
    *("config.json", "*.pth", "*.safetensors", "tokenizer*", "*.jinja"),
    *("adapters.bin", "*_adapter/adapter_*"),
)
_FORMATS = (".pth", ".safetensors", ".bin")  # of a checkpoint's weights, the first one counts
#: Files of a base that a conversion needs.
BASE_FILES = ("*.json", "model*.safetensors", "*.jinja", "README.md", "LICENSE*")

_SUBFOLDERS = "compression-*"  # of the published repositories, a checkpoint in each


def read_json(path: Path, most: int = MOST_CONFIG) -> dict[str, Any]:
    """Read a JSON object from a file of at most ``most`` bytes.

    Raises:
        CheckpointError: The file can't be read, or holds something else; the message names it.
    """
    try:
        text = read_regular(path, most).decode("utf-8-sig")
        content = json.loads(text)
        if "\\ud" in text.lower():  # an escaped lone surrogate could not be written or printed
            json.dumps(content, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        check_download(path)
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
    if not _weights_file(path, "adapters") and not peft_folders.find(path):
        raise CheckpointError(f"{path}: not a CLaRa checkpoint {_what_is_missing(root, path)}")
    from_hub = root.parent.name == "snapshots"
    return path, root.name if from_hub else None


def _weights_file(path: Path, name: str) -> Path | None:
    """The file of a checkpoint's weights in the first format that there is, if any."""
    files = (path / f"{name}{suffix}" for suffix in _FORMATS)
    return next((file for file in files if is_named(file)), None)


def _what_is_missing(root: Path, path: Path) -> str:
    """What a folder without adapters lacks, and what to do."""
    expected = "it has no adapters.pth"
    choices = sorted(p.name for p in root.glob(_SUBFOLDERS) if p.is_dir())
    if choices and path == root:
        return f"({expected}); choose one with --subfolder: {', '.join(choices)}"
    if is_named(path / "decoder_first_last_layers.pth"):
        return f"({expected}); download it again"
    if any(path.glob("model*.safetensors")):
        return f"({expected}, but a model's weights); a base is named with --base"
    if path.match(_SUBFOLDERS):
        return f"({expected}); download it again"
    return (
        f"({expected}); published CLaRa repositories need --subfolder compression-16 or "
        "compression-128"
    )


def read_tables(path: Path) -> dict[str, TensorRef]:
    """The checkpoint's embedding and lm_head tables, by the weight map's names."""
    file = _weights_file(path, "decoder_first_last_layers")
    if file is None:
        raise CheckpointError(
            f"{path / 'decoder_first_last_layers.pth'}: missing; it holds the trained embedding "
            "and lm_head tables; download it again"
        )
    return clean_names(check_tensors(read_weights(file), file), clean_key, file)


def read_adapters(path: Path) -> dict[str, dict[str, TensorRef]]:
    """Tensors of each adapter, by the weight map's names.

    They are in ``adapters.pth``, in ``adapters.safetensors`` under ``<adapter>.<name>``, or in a
    folder for each adapter, as peft writes it.
    """
    file = _weights_file(path, "adapters")
    if file is None:
        return _read_peft_folders(path)
    adapters: dict[str, dict[str, Any]] = {}
    if file.suffix == ".safetensors":
        for key, ref in read_safetensors(file).items():
            name, _, rest = clean_key(key).partition(".")
            adapters.setdefault(name, {})[rest] = ref
    else:
        for name, tensors in read_weights(file).items():
            if not isinstance(tensors, dict):
                raise CheckpointError(
                    f"{file}: {name!r} is not a dict of tensors; the file should hold one dict "
                    "for each adapter (encoder_adapter, decoder_adapter, ...)"
                )
            adapters[name] = tensors
    return {
        name: clean_names(check_tensors(tensors, file), clean_adapter_key, file)
        for name, tensors in adapters.items()
    }


def _read_peft_folders(path: Path) -> dict[str, dict[str, TensorRef]]:
    adapters = {}
    for name, file in peft_folders.find(path).items():
        settings = file.with_name(peft_folders.SETTINGS)
        peft_folders.check_settings(settings, read_json(settings))
        tensors = check_tensors(read_weights(file), file)
        adapters[name] = clean_names(tensors, clean_adapter_key, file)
    return adapters


def read_weights(file: Path) -> dict[str, Any]:
    """The content of a file of weights, ``.safetensors`` or ``.pth``, without a ``state_dict``.

    Raises:
        CheckpointError: It can't be read, or is not such a file.
    """
    if file.suffix == ".safetensors":
        return dict(read_safetensors(file))
    content = read_pth(file)
    inner = content.get("state_dict")
    return inner if isinstance(inner, dict) and len(content) == 1 else content


def clean_names(
    tensors: Mapping[str, TensorRef], clean: Callable[[str], str | None], file: Path
) -> dict[str, TensorRef]:
    """The same tensors by their cleaned names, without those that have none.

    Raises:
        CheckpointError: Two tensors get one name; the message names the ``file``.
    """
    cleaned: dict[str, TensorRef] = {}
    for key, ref in tensors.items():
        name = clean(key)
        if name is None:
            continue
        if name in cleaned:
            raise CheckpointError(f"{file}: it has {name} twice, under different prefixes")
        cleaned[name] = ref
    return cleaned


def check_tensors(tensors: dict[str, Any], path: Path) -> dict[str, TensorRef]:
    """The same dict, if it holds nothing but tensors.

    Raises:
        CheckpointError: It holds something else; the message names the file ``path``.
    """
    odd = [name for name, ref in tensors.items() if not isinstance(ref, TensorRef)]
    if odd:
        raise CheckpointError(
            f"{path}: not tensors: {', '.join(odd[:5])}; save a dict of tensors alone"
        )
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
    missing = [file.name for file in files if not is_named(file)]
    if index.is_file() and missing:
        raise CheckpointError(
            f"{path}: {len(missing)} of the {len(files)} files that {index.name} names are not "
            f"there ({', '.join(f'{name!r:.80}' for name in missing[:5])}); download the base again"
        )
    if not files:
        raise CheckpointError(
            f"{path}: no model*.safetensors there; the base must be in safetensors"
        )
    tensors: dict[str, TensorRef] = {}
    for file in files:
        tensors.update(clean_names(read_safetensors(file), clean_base_key, file))
    return tensors


def read_licence(path: Path) -> str | None:
    """The licence that the model card in a folder, or in the one above it, states.

    The head of a card and its text may differ: the stricter one counts, see `licences.stricter`.
    """
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
        licence = licences.stricter(data.get("license_name") or data.get("license"), text)
        if licence:
            return "".join(c if c.isprintable() else "?" for c in licence)
    return None
