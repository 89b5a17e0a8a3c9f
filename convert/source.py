"""Source: a CLaRa checkpoint and its base, found, checked and described, weights unread."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from clara_mlx.checkpoint import download
from clara_mlx.config import ClaraConfig
from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.tensors import TensorRef, read_safetensors
from clara_mlx.convert.weight_map import (
    ADAPTER,
    ADAPTER_NAMES,
    BASE,
    TABLES,
    clean_adapter_key,
    dimensions,
    expand,
)
from clara_mlx.errors import CheckpointError

DEFAULT_BASE = "mistralai/Mistral-7B-Instruct-v0.2"

#: The shapes that a checkpoint must have for DEFAULT_BASE to be its base.
_DEFAULT_BASE_CONFIG = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
}
_DEFAULT_BASE_VOCABULARY = 32000

_CHECKPOINT_FILES = ("config.json", "*.pth", "*.safetensors", "tokenizer*", "*.jinja")
_BASE_FILES = ("*.json", "model*.safetensors", "*.jinja", "README.md", "LICENSE*")
_SUBFOLDERS = "compression-*"


class Source:
    """Everything a conversion reads, located and held against the weight map.

    Attributes:
        config: the checkpoint's ClaraConfig; ``ignored`` names the fields that were not used.
        base: tensors of the base by name, the checkpoint's two tables among them.
        adapters: by our names (encoder, decoder, query_reasoner), tensors by checkpoint name.
        sizes: what the weight map's shape names stand for.
        tokenizer: the parsed ``tokenizer.json`` with the added tokens in it.
        notes: what a user should know about what was found.
        licences: as the repositories state them, None where they don't.

    Raises:
        CheckpointError: something is missing, damaged or does not fit; all misfits are listed.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        base: str | Path | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.name = _name(checkpoint)
        self.subfolder = subfolder
        self.notes: list[str] = []
        self.path, self.revision = locate_checkpoint(checkpoint, subfolder, revision)
        raw = read_json(self.path / "config.json")
        self._tables = read_tables(self.path)
        self._raw_adapters = read_adapters(self.path)
        self.base_name, self.base_path = self._locate_base(raw, base)
        self.base_config = read_json(self.base_path / "config.json")
        self.tokenizer = _read_tokenizer(self.base_path, self.path)
        self.config, self.ignored = self._read_config(raw)
        _add_tokens(self.tokenizer, self.config, self.base_path)
        self.sizes = dimensions(
            self.base_config,
            self.config.vocab_size,
            self.config.lora_r,
            where=str(self.base_path / "config.json"),
        )
        self.base, self.adapters = self._held_against_the_map()
        self.licences = {"checkpoint": licence_of(self.path), "base": licence_of(self.base_path)}

    @property
    def files(self) -> dict[str, list[Path]]:
        """The files that hold the weights and their description, of the checkpoint and the base."""
        found: dict[str, list[Path]] = {"checkpoint": [self.path / "config.json"], "base": []}
        refs = [*self.base.values(), *(r for a in self.adapters.values() for r in a.values())]
        weights = sorted({ref.file for ref in refs})
        for file in weights:
            found["checkpoint" if file.is_relative_to(self.path) else "base"].append(file)
        found["base"].append(self.base_path / "config.json")
        return found

    def _locate_base(self, raw: dict[str, Any], base: str | Path | None) -> tuple[str, Path]:
        """``--base``, else what the checkpoint names, else Mistral if all shapes are Mistral's."""
        remedy = "name the base with --base FOLDER_OR_HUB_ID"
        if base is not None:
            return _name(base), _folder_or_hub(base, _BASE_FILES)
        named = raw.get("decoder_model_name")
        if isinstance(named, str) and Path(named).is_dir():
            return _name(named), Path(named)
        if isinstance(named, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", named):
            try:
                return named, download(named, list(_BASE_FILES))
            except CheckpointError as error:
                raise CheckpointError(f"the checkpoint's base: {error}; or {remedy}") from error
        if self._fits_default_base(raw):
            self.notes.append(
                f"the checkpoint's base {named!r} is not usable here; its tensor shapes are those "
                f"of {DEFAULT_BASE}, which is used instead"
            )
            return DEFAULT_BASE, download(DEFAULT_BASE, list(_BASE_FILES))
        raise CheckpointError(
            f"{self.path / 'config.json'}: its base {named!r} is neither a folder here nor a hub "
            f"id, and the tensors do not have the shapes of {DEFAULT_BASE}; {remedy}"
        )

    def _fits_default_base(self, raw: dict[str, Any]) -> bool:
        try:
            config, _ = ClaraConfig.from_dict(
                {
                    **raw,
                    "hidden_size": 4096,
                    "base_vocab_size": _DEFAULT_BASE_VOCABULARY,
                    "window": 1,
                },
                where="config.json",
            )
        except CheckpointError:
            return False
        sizes = dimensions(
            _DEFAULT_BASE_CONFIG, config.vocab_size, config.lora_r, where=DEFAULT_BASE
        )
        problems = _misfits(self._tables, BASE, sizes, only=TABLES)
        for tensors in self._raw_adapters.values():
            problems += _misfits(tensors, ADAPTER, sizes)
        return bool(self._raw_adapters) and not problems

    def _read_config(self, raw: dict[str, Any]) -> tuple[ClaraConfig, list[str]]:
        base = self.base_config
        where = f"{self.path / 'config.json'} (with {self.base_path / 'config.json'})"
        if base.get("model_type") not in ("mistral", "llama"):
            raise CheckpointError(
                f"{self.base_path / 'config.json'}: model_type {base.get('model_type')!r} is not "
                "supported; CLaRa's base is a Mistral"
            )
        if "quantization" in base or "quantization_config" in base:
            raise CheckpointError(f"{self.base_path}: already quantised; give the original base")
        windows = [base.get("max_position_embeddings"), base.get("sliding_window")]
        merged = {
            **raw,
            "hidden_size": base.get("hidden_size"),
            "base_vocab_size": _vocabulary_size(self.tokenizer, self.base_path),
            "window": min((w for w in windows if type(w) is int), default=None),
            "bos_id": base.get("bos_token_id", 1),
            "eos_id": base.get("eos_token_id", 2),
        }
        config, ignored = ClaraConfig.from_dict(merged, where=where)
        if not config.sep:
            self.notes.append(
                "the checkpoint says sep=false, for which the reference misplaces every document "
                "after the first; here each document gets its own slots"
            )
        return config, ignored

    def _held_against_the_map(
        self,
    ) -> tuple[dict[str, TensorRef], dict[str, dict[str, TensorRef]]]:
        base = {name: ref for name, ref in _read_base(self.base_path).items() if name not in TABLES}
        base.update(self._tables)
        problems = [f"base: {p}" for p in _misfits(base, BASE, self.sizes)]
        adapters: dict[str, dict[str, TensorRef]] = {}
        for name, tensors in self._raw_adapters.items():
            if name not in ADAPTER_NAMES:
                problems.append(f"unexpected adapter {name}")
                continue
            problems += [f"{name}: {p}" for p in _misfits(tensors, ADAPTER, self.sizes)]
            dropped = [table for table in TABLES if table in tensors]
            if dropped:
                self.notes.append(f"{name} carries copies of {' and '.join(dropped)}: left out")
            adapters[ADAPTER_NAMES[name]] = {
                key: ref for key, ref in tensors.items() if key not in TABLES
            }
        problems += [
            f"missing adapter {n}_adapter" for n in ("encoder", "decoder") if n not in adapters
        ]
        if problems:
            raise CheckpointError(
                f"{self.path} does not fit the base {self.base_path}; nothing was written:\n  "
                + "\n  ".join(problems)
            )
        if "query_reasoner" not in adapters:
            self.notes.append(
                "no query reasoner in this checkpoint: queries will use the encoder adapter, as "
                "the reference starts its stage 2; the E2E checkpoints have a trained one"
            )
        lines = expand(BASE, self.sizes["layers"])
        return {name: ref for name, ref in base.items() if lines[name].target}, adapters


def _misfits(
    tensors: dict[str, TensorRef],
    table: Any,
    sizes: dict[str, int],
    only: tuple[str, ...] | None = None,
) -> list[str]:
    """Every tensor that is missing, unexpected or of the wrong shape."""
    lines = expand(table, sizes["layers"])
    if only:
        lines = {name: lines[name] for name in only}
    problems = [
        f"missing {name}" for name, line in lines.items() if line.target and name not in tensors
    ]
    for name, ref in tensors.items():
        if name not in lines:
            problems.append(f"unexpected {name}")
        elif lines[name].target:
            shape = tuple(sizes[size] for size in lines[name].shape)
            if ref.shape != shape:
                problems.append(f"{name} has shape {ref.shape} instead of {shape}")
    return problems


# -- finding and reading files -------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a CheckpointError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def _name(path_or_hub_id: str | Path) -> str:
    """A place as it is recorded: a hub id as it is, a path in full."""
    path = Path(path_or_hub_id).expanduser()
    return str(path.resolve()) if path.exists() else str(path_or_hub_id)


def _folder_or_hub(
    name: str | Path, patterns: tuple[str, ...], revision: str | None = None
) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path}: a folder is needed, not a file")
    return download(str(name), list(patterns), revision)


def locate_checkpoint(
    checkpoint: str | Path, subfolder: str | None, revision: str | None
) -> tuple[Path, str | None]:
    """The folder with the checkpoint's ``config.json``, and the hub commit it came from."""
    inside = f"{subfolder}/" if subfolder else ""
    patterns = (*(inside + name for name in _CHECKPOINT_FILES), "README.md", "LICENSE*")
    root = _folder_or_hub(checkpoint, patterns, revision)
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


def _read_base(path: Path) -> dict[str, TensorRef]:
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


def _read_tokenizer(base: Path, checkpoint: Path) -> dict[str, Any]:
    """The base's tokenizer, which is what the reference uses; else the checkpoint's own."""
    for folder in (base, checkpoint):
        if (folder / "tokenizer.json").is_file():
            return read_json(folder / "tokenizer.json")
    raise CheckpointError(f"no tokenizer.json in {base}, nor in {checkpoint}")


def _vocabulary_size(tokenizer: dict[str, Any], where: Path) -> int:
    """Ids of the base vocabulary; CLaRa's own tokens are not counted if they are there already."""
    try:
        ids = [int(id) for id in tokenizer["model"]["vocab"].values()]
        for token in tokenizer.get("added_tokens", []):
            if not re.fullmatch(r"<(MEM\d*|AE|ENC|SEP)>", token["content"]):
                ids.append(int(token["id"]))
        return max(ids) + 1
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where}: tokenizer.json: no vocabulary: {error!r}") from error


def _add_tokens(tokenizer: dict[str, Any], config: ClaraConfig, where: Path) -> None:
    """Append CLaRa's tokens to a parsed tokenizer.json, or check those that are there."""
    present = {token["content"]: token["id"] for token in tokenizer.setdefault("added_tokens", [])}
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
                return str(licence)
    return None
