"""Source: a checkpoint of CLaRa or PISCO and its base, found and checked; weights not yet read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert import files, pisco, weight_map
from clara_mlx.convert.base import Base
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.convert.weight_map import (
    ADAPTER,
    ADAPTER_NAMES,
    EMBEDDING,
    LM_HEAD,
    TABLE_LINES,
    TABLES,
    Weight,
)
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import CLARA, ModelFolder, download
from clara_mlx.model.layout import PromptLayout

DEFAULT_BASE = "mistralai/Mistral-7B-Instruct-v0.2"

#: The shapes that a checkpoint must have for DEFAULT_BASE to be its base.
_DEFAULT_BASE_CONFIG = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
}
_DEFAULT_BASE_VOCABULARY = 32000  # token ids, without those that CLaRa adds

_NO_QUERY_REASONER = (
    "this checkpoint has no query reasoner: queries will use the encoder adapter, as the reference "
    "does at the start of its stage 2; the E2E checkpoints have a trained one"
)

_MOST_PROBLEMS = 20  # that an error lists
_LONGEST_PROBLEM = 200  # characters

Tensors = dict[str, TensorRef]  # by tensor name
AdapterRefs = dict[str, Tensors]  # by adapter name


@dataclass(frozen=True)
class Source:
    """Everything a conversion reads, located and checked against the weight map."""

    name: str  # full path or hub id of the checkpoint
    compressor: str  # ``clara`` or ``pisco``
    subfolder: str | None  # inside its repository
    revision: str | None  # the hub commit it came from
    path: Path  # the folder with its config.json
    base_name: str  # full path or hub id
    base_path: Path  # the folder with the base's config.json
    base_config: dict[str, Any]  # of that file, what mlx-lm reads; of a text model if nested
    config: ClaraConfig
    tokenizer: dict[str, Any]  # the parsed tokenizer.json with the added tokens in it
    sizes: dict[str, int]  # by the weight map's shape names
    base_table: tuple[Weight, ...]  # the weight map of the base
    base: Tensors  # of the base, with the checkpoint's own two tables
    adapters: AdapterRefs  # by our names (encoder, ...), tensors by the checkpoint's
    notes: list[str]  # for the user, on how the checkpoint will be used
    licences: dict[str, str | None]  # as the repositories state them, if they do

    @classmethod
    def open(
        cls,
        checkpoint: str | Path,
        *,
        base: str | Path | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
    ) -> Source:
        """Find a checkpoint and its base, download what is not here, and check that they fit.

        Args:
            checkpoint: Folder or hub id.
            base: Folder or hub id of the base; None takes the one that the checkpoint names.
            subfolder: Folder of the checkpoint inside its repository.
            revision: Branch, tag or commit of a hub checkpoint.

        Raises:
            CheckpointError: Something is missing, damaged or does not fit.
        """
        path, commit = files.locate_checkpoint(checkpoint, subfolder, revision)
        fields = files.read_json(path / "config.json")
        tables = files.read_tables(path)
        adapters = files.read_adapters(path)
        base_name, base_path = _locate_base(base, path, fields, tables, adapters)
        asked_base = fields.get("decoder_model_name") if base is None else base_name
        return cls.assemble(
            path,
            fields,
            tables,
            adapters,
            name=files.recorded_name(checkpoint),
            subfolder=subfolder,
            revision=commit,
            base_name=base_name,
            base_path=base_path,
            asked_base=asked_base,
        )

    @classmethod
    def assemble(
        cls,
        path: Path,
        fields: dict[str, Any],
        tables: Tensors,
        adapters: AdapterRefs,
        *,
        name: str,
        subfolder: str | None = None,
        revision: str | None = None,
        base_name: str,
        base_path: Path,
        asked_base: Any,
    ) -> Source:
        """Check that the parts of a checkpoint fit a base; the parts need not be on the disk yet.

        Args:
            path: The checkpoint's folder.
            fields: The content of its ``config.json``.
            tables: Its embedding and lm_head.
            adapters: Its adapters, by its own names.
            name: Its full path or hub id.
            subfolder: Its folder inside a repository.
            revision: The hub commit it came from.
            base_name: Full path or hub id of the base.
            base_path: The base's folder.
            asked_base: The base that the user or the checkpoint asked for.

        Raises:
            CheckpointError: Something does not fit.
        """
        is_pisco = pisco.is_pisco(fields)
        if is_pisco:
            fields = pisco.read_fields(fields, path / "config.json")
            adapters = pisco.share_adapter(adapters, fields)
        opened = Base.open(base_path, path, fields)
        if opened.is_tied and EMBEDDING in tables:  # torch names a tied lm_head only once
            tables = {LM_HEAD: tables[EMBEDDING]} | tables
        weights = _without_tables(files.read_base(base_path)) | tables
        _check_fit(path, base_path, weights, opened, adapters)
        licence = files.read_licence(path)
        notes = _notes(asked_base, base_name, opened.config, opened.layout, adapters)
        if is_pisco:
            notes += pisco.notes(licence)
        elif "query_reasoner_adapter" not in adapters:
            notes.append(_NO_QUERY_REASONER)
        return cls(
            name=name,
            compressor=pisco.NAME if is_pisco else CLARA,
            subfolder=subfolder,
            revision=revision,
            path=path,
            base_name=base_name,
            base_path=base_path,
            base_config=opened.mlx_config,
            config=opened.config,
            tokenizer=opened.tokenizer,
            sizes=opened.sizes,
            base_table=opened.table,
            base=weights,
            adapters={ADAPTER_NAMES[name]: _without_tables(a) for name, a in adapters.items()},
            notes=notes,
            licences={"checkpoint": licence, "base": files.read_licence(base_path)},
        )

    @classmethod
    def open_recorded(
        cls, folder: ModelFolder, *, checkpoint: str | None = None, base: str | None = None
    ) -> Source:
        """Open the source that a model folder says it was made from, or the places given instead.

        Raises:
            CheckpointError: It is not there any more, or is another one.
        """
        recorded = folder.description["source"]
        return cls.open(
            checkpoint or recorded["checkpoint"],
            base=base or recorded["base"],
            subfolder=None if checkpoint else recorded["subfolder"],
            revision=None if checkpoint else recorded["revision"],
        )

    @property
    def files_by_part(self) -> dict[str, dict[str, Path]]:
        """The files with the weights and their configs, by part and by their names in it."""
        files = {ref.file for a in (self.base, *self.adapters.values()) for ref in a.values()}
        ours = {file for file in files if file.is_relative_to(self.path)}
        return {
            part: {
                file.relative_to(root).as_posix(): file
                for file in sorted([root / "config.json", *weights])
            }
            for part, root, weights in (
                ("checkpoint", self.path, ours),
                ("base", self.base_path, files - ours),
            )
        }

    def memory_rows(self) -> mx.array:
        """The trained embedding rows of the added tokens, exactly as the checkpoint has them."""
        table = self.base["model.embed_tokens.weight"].read()
        rows = mx.contiguous(table[self.config.base_vocab_size :])  # (added_tokens, hidden)
        mx.eval(rows)
        return rows


def _locate_base(
    base: str | Path | None,
    path: Path,
    fields: dict[str, Any],
    tables: Tensors,
    adapters: AdapterRefs,
) -> tuple[str, Path]:
    """The base that the user or the checkpoint names, or Mistral if all shapes are Mistral's."""
    remedy = "name the base with --base FOLDER_OR_HUB_ID"
    if base is not None:
        return files.recorded_name(base), files.locate_folder(base, files.BASE_FILES)
    named = fields.get("decoder_model_name")
    if isinstance(named, str) and files.path_exists(Path(named)) and Path(named).is_dir():
        return files.recorded_name(named), Path(named)
    if isinstance(named, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", named):
        try:
            return named, download(named, list(files.BASE_FILES))
        except CheckpointError as error:
            raise CheckpointError(f"the checkpoint's base: {error}; or {remedy}") from error
    if _fits_default_base(fields, tables, adapters):
        return DEFAULT_BASE, download(DEFAULT_BASE, list(files.BASE_FILES))
    raise CheckpointError(
        f"{path / 'config.json'}: its base {named!r} is neither a folder here nor a hub "
        f"id, and the tensors do not have the shapes of {DEFAULT_BASE}; {remedy}"
    )


def _fits_default_base(fields: dict[str, Any], tables: Tensors, adapters: AdapterRefs) -> bool:
    """Whether a checkpoint's tensors all have the shapes that Mistral's would have."""
    try:
        config = ClaraConfig.from_dict(
            {
                **fields,
                "hidden_size": _DEFAULT_BASE_CONFIG["hidden_size"],
                "base_vocab_size": _DEFAULT_BASE_VOCABULARY,
                "window": 1,
            },
            where="config.json",
        )
    except CheckpointError:
        return False
    sizes = weight_map.dimensions(
        _DEFAULT_BASE_CONFIG, config.vocab_size, config.lora_r, where=DEFAULT_BASE
    )
    problems = weight_map.misfits(tables, TABLE_LINES, sizes)
    for tensors in adapters.values():
        problems += weight_map.misfits(tensors, ADAPTER, sizes)
    return bool(adapters) and not problems


def _check_fit(
    path: Path,
    base_path: Path,
    weights: Tensors,
    base: Base,
    adapters: AdapterRefs,
) -> None:
    """Refuse tensors that the weight map does not know, or that it misses; some are listed."""
    found = weight_map.misfits(weights, base.table, base.sizes)
    problems = [f"base: {problem}" for problem in found]
    for name, tensors in adapters.items():
        if name in ADAPTER_NAMES:
            found = weight_map.misfits(tensors, ADAPTER, base.sizes)
            problems += [f"{name}: {problem}" for problem in found]
        else:
            problems.append(f"unexpected adapter {name}")
    needed = ("encoder_adapter", "decoder_adapter")
    problems += [f"missing adapter {name}" for name in needed if name not in adapters]
    if problems:
        shown = [problem[:_LONGEST_PROBLEM] for problem in problems[:_MOST_PROBLEMS]]
        more = len(problems) - len(shown)
        raise CheckpointError(
            f"{path} does not fit the base {base_path}; nothing was written:"
            + (f" {shown[0]}" if len(problems) == 1 else "\n  " + "\n  ".join(shown))
            + (f"\n  and {more:,} more" if more else "")
        )


def _without_tables(tensors: Tensors) -> Tensors:
    return {name: ref for name, ref in tensors.items() if name not in TABLES}


def _notes(
    asked_base: Any,
    base_name: str,
    config: ClaraConfig,
    layout: PromptLayout | None,
    adapters: AdapterRefs,
) -> list[str]:
    """Notes for the user on how the checkpoint will be used."""
    notes = []
    if layout is None:
        notes.append(
            "neither checkpoint nor base has a chat template; prompts have the published layout"
        )
    elif config.prompt:
        notes.append(f"prompts have the form of the {layout.template}'s chat template")
    if base_name == DEFAULT_BASE != asked_base:
        notes.append(
            f"the checkpoint's base {asked_base!r} is not usable here; its tensor shapes are those "
            f"of {DEFAULT_BASE}, which is used instead"
        )
    if not config.sep:
        notes.append(
            "the checkpoint says sep=false, for which the reference misplaces every document "
            "after the first; here each document gets its own slots"
        )
    for name, tensors in adapters.items():
        copies = [table for table in TABLES if table in tensors]
        if copies:
            notes.append(f"{name} has copies of {' and '.join(copies)}, which are left out")
    return notes
