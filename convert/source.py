"""Source: a CLaRa checkpoint and its base, found, checked and described, weights unread."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from clara_mlx.convert.files import (
    BASE_FILES,
    add_tokens,
    folder_or_hub,
    is_there,
    licence_of,
    locate_checkpoint,
    read_adapters,
    read_base,
    read_json,
    read_tables,
    read_tokenizer,
    recorded_name,
    vocabulary_size,
)
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.convert.weight_map import (
    ADAPTER,
    ADAPTER_NAMES,
    BASE,
    TABLES,
    dimensions,
    expand,
)
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import download

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
        self.name = recorded_name(checkpoint)
        self.subfolder = subfolder
        self.notes: list[str] = []
        self.path, self.revision = locate_checkpoint(checkpoint, subfolder, revision)
        raw = read_json(self.path / "config.json")
        self._tables = read_tables(self.path)
        self._raw_adapters = read_adapters(self.path)
        self.base_name, self.base_path = self._locate_base(raw, base)
        self.base_config = read_json(self.base_path / "config.json")
        self.tokenizer = read_tokenizer(self.base_path, self.path)
        self.config, self.ignored = self._read_config(raw)
        add_tokens(self.tokenizer, self.config, self.base_path)
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
            return recorded_name(base), folder_or_hub(base, BASE_FILES)
        named = raw.get("decoder_model_name")
        if isinstance(named, str) and is_there(Path(named)) and Path(named).is_dir():
            return recorded_name(named), Path(named)
        if isinstance(named, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", named):
            try:
                return named, download(named, list(BASE_FILES))
            except CheckpointError as error:
                raise CheckpointError(f"the checkpoint's base: {error}; or {remedy}") from error
        if self._fits_default_base(raw):
            self.notes.append(
                f"the checkpoint's base {named!r} is not usable here; its tensor shapes are those "
                f"of {DEFAULT_BASE}, which is used instead"
            )
            return DEFAULT_BASE, download(DEFAULT_BASE, list(BASE_FILES))
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
            "base_vocab_size": vocabulary_size(self.tokenizer),
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
        base = {name: ref for name, ref in read_base(self.base_path).items() if name not in TABLES}
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
