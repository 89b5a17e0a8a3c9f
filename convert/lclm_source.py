"""LclmSource: an LCLM checkpoint, found, checked and described; weights not yet read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_mlx.compressors.lclm.config import MEMORY_TOKENS, LclmConfig
from clara_mlx.compressors.lclm.encoder import Adapter
from clara_mlx.compressors.lclm.folder import ADAPTER_FILE, DECODER, ENCODER, LclmFolder
from clara_mlx.convert import files, licences
from clara_mlx.convert.base_config import mlx_config, read_base_config
from clara_mlx.convert.downloads import is_named
from clara_mlx.convert.ignored import refuse_ignored
from clara_mlx.convert.tensors import TensorRef, read_safetensors
from clara_mlx.convert.trial import find_problem
from clara_mlx.convert.vocabulary import read_tokenizer
from clara_mlx.convert.weight_map import Weight, base_table, clean_key, misfits
from clara_mlx.errors import CheckpointError
from clara_mlx.model.encoder import is_plain
from clara_mlx.model.network import build_network, shapes
from clara_mlx.model.regular import MOST_CONFIG, read_regular

#: Its own file, which no other kind of checkpoint has.
CONFIG = "model_config.json"

ADAPTER = "adapter"

_PARTS = (ENCODER, ADAPTER, DECODER)  # folders of a checkpoint
_NUMBERED = "checkpoint_"  # training leaves several, in folders of these names and a number

_FILES = ("*.json", "*.jinja", "*.safetensors", "LICENSE*", "README.md")

# What the port computes; nothing else has been released (SPEC of the published code).
_ONLY = {
    "pooling": ("mean", "the mean over groups of tokens"),
    "encoder_mask_type": ("causal", "a causal encoder"),
    "boundary_overlap": (0, "windows that do not overlap"),
    "adapter_type": ("mlp", "an adapter of two linear layers"),
}

_MOST_PROBLEMS = 20  # that an error lists


@dataclass(frozen=True)
class LclmPart:
    """Encoder, adapter or decoder: its tensors, and where each goes."""

    path: Path  # its folder
    tensors: dict[str, TensorRef]  # by the checkpoint's names
    table: tuple[Weight, ...]
    mlx_config: dict[str, Any]  # what mlx-lm reads; of the adapter, empty
    tokenizer: dict[str, Any]  # the parsed tokenizer.json; of the adapter, empty


@dataclass(frozen=True)
class LclmSource:
    """Everything that the conversion of an LCLM checkpoint reads, located and checked."""

    name: str  # full path or hub id
    subfolder: str | None  # inside it: given, or the highest checkpoint_<number>
    revision: str | None  # the hub commit it came from
    path: Path  # the folder with encoder, adapter and decoder
    config: LclmConfig
    encoder: LclmPart
    adapter: LclmPart
    decoder: LclmPart
    notes: list[str]
    licences: dict[str, str | None]

    @classmethod
    def open(
        cls, checkpoint: str | Path, *, subfolder: str | None = None, revision: str | None = None
    ) -> LclmSource:
        """Find a checkpoint, download what is not here, and check that its parts fit.

        Args:
            checkpoint: Folder or hub id.
            subfolder: Folder inside it; by default the highest ``checkpoint_<number>`` if the
                parts are not in the folder itself.
            revision: Branch, tag or commit of a hub checkpoint.

        Raises:
            CheckpointError: Something is missing, damaged or does not fit.
        """
        root = files.locate_folder(checkpoint, _FILES, revision)
        path = _find_parts(root / subfolder if subfolder else root)
        for part in _PARTS:
            if not (path / part).is_dir():
                raise CheckpointError(
                    f"{path}: an LCLM checkpoint has the folders {', '.join(_PARTS)}, but {part} "
                    "is not there; download it again"
                )
        fields = files.read_json(path / CONFIG)
        encoder, decoder = _open_network(path / ENCODER), _open_network(path / DECODER)
        config = _read_config(fields, encoder, decoder, path / CONFIG)
        adapter = _open_adapter(path, config)
        _check_fit(path, {ENCODER: encoder, ADAPTER: adapter, DECODER: decoder})
        found = "" if path == root else path.relative_to(root).as_posix()
        notes = [f"the newest of its checkpoints is taken: {found}"] if not subfolder else []
        return cls(
            name=files.recorded_name(checkpoint),
            subfolder=found or None,
            revision=root.name if root.parent.name == "snapshots" else None,
            path=path,
            config=config,
            encoder=encoder,
            adapter=adapter,
            decoder=decoder,
            notes=notes if found else [],
            licences={"checkpoint": _find_licence(path)},
        )

    @classmethod
    def open_recorded(
        cls, folder: LclmFolder, *, checkpoint: str | Path | None = None
    ) -> LclmSource:
        """Open the source that a model folder says it was made from, or the place given instead.

        Raises:
            CheckpointError: It is not there any more, or is another one.
        """
        recorded = folder.description["source"]
        if checkpoint:
            return cls.open(checkpoint)
        return cls.open(
            recorded["checkpoint"], subfolder=recorded["subfolder"], revision=recorded["revision"]
        )

    @property
    def files_by_part(self) -> dict[str, dict[str, Path]]:
        """The files with the weights and their configs, under ``checkpoint``, by their names."""
        used = {ref.file for part in self._parts for ref in part.tensors.values()}
        configs = [self.path / CONFIG, *(self.path / p / "config.json" for p in (ENCODER, DECODER))]
        named = {file.relative_to(self.path).as_posix(): file for file in [*used, *configs]}
        return {"checkpoint": dict(sorted(named.items()))}

    @property
    def _parts(self) -> tuple[LclmPart, ...]:
        return self.encoder, self.adapter, self.decoder


def is_lclm(
    checkpoint: str | Path, subfolder: str | None = None, revision: str | None = None
) -> bool:
    """Whether a folder or a hub repository holds an LCLM checkpoint, by its layout.

    Of a repository, only `CONFIG` is downloaded, if there is one.
    """
    path = Path(checkpoint).expanduser()
    if not files.path_exists(path):
        inside = f"{subfolder}/" if subfolder else ""
        patterns = (f"{inside}{CONFIG}", f"{inside}{_NUMBERED}*/{CONFIG}")
        path = files.locate_folder(checkpoint, patterns, revision)
    root = _find_parts(path / subfolder if subfolder else path)
    return is_named(root / CONFIG) or all((root / part).is_dir() for part in _PARTS)


def _find_parts(root: Path) -> Path:
    """The folder itself, or the highest numbered one in it if it has none of the parts."""
    if any((root / part).is_dir() for part in _PARTS) or not root.is_dir():
        return root
    numbered = {
        int(number): folder
        for folder in root.iterdir()
        if (number := folder.name.removeprefix(_NUMBERED)) != folder.name
        and number.isascii()
        and number.isdecimal()
        and folder.is_dir()
    }
    return numbered[max(numbered)] if numbered else root


def _open_network(path: Path) -> LclmPart:
    """Encoder or decoder: config, tokenizer and tensors, as mlx-lm builds it."""
    where = path / "config.json"
    if is_named(path / "adapter_config.json"):
        raise CheckpointError(
            f"{path}: LoRA weights, which the published code can't load either; merge them into "
            "the model with peft's merge_and_unload, and save that"
        )
    raw = read_base_config(path)
    rows = raw.get("vocab_size")
    if type(rows) is not int or rows < 1:
        raise CheckpointError(f"{where}: vocab_size can't be {rows!r:.40}")
    is_encoder = path.name == ENCODER
    tied = is_encoder or bool(raw.get("tie_word_embeddings", False))
    config = mlx_config(raw, rows, where=where) | {"tie_word_embeddings": tied}
    network = build_network(config, where=where)
    if not is_plain(network):
        raise CheckpointError(
            f"{where}: model_type {config.get('model_type')!r:.40} with these layers is not "
            "supported: LCLM's encoder and decoder are Qwen3 models with full causal attention"
        )
    refuse_ignored(config, network, where=where)
    table = base_table(shapes(network))
    if is_encoder:  # the published encoder is saved without its head, and without this prefix
        table = tuple(
            Weight(line.source.removeprefix("model."), line.target, line.shape) for line in table
        )
    problem = find_problem(network, int(config["hidden_size"]))
    if problem:
        raise CheckpointError(
            f"{where}: a trial of this model failed: {problem}; mlx-lm can't run it as its config "
            "says, so correct the config"
        )
    tokenizer = read_tokenizer(path, path)
    return LclmPart(path, files.read_base(path), table, config, tokenizer)


def _open_adapter(path: Path, config: LclmConfig) -> LclmPart:
    """The adapter, whose shapes follow from the two networks'."""
    file = path / ADAPTER_FILE
    if not is_named(file):
        raise CheckpointError(
            f"{file}: missing; without it the published code would take random numbers for the "
            "adapter; download it again"
        )
    tensors = {clean_key(name): ref for name, ref in read_safetensors(file).items()}
    network = Adapter(config.encoder_hidden, config.hidden_size)
    return LclmPart(file.parent, tensors, base_table(shapes(network)), {}, {})


def _read_config(
    fields: Mapping[str, Any], encoder: LclmPart, decoder: LclmPart, where: Path
) -> LclmConfig:
    """The checkpoint's numbers and ids; refused if the port computes something else."""
    for name, (value, meaning) in _ONLY.items():
        given = fields.get(name)
        if given != value or isinstance(given, bool):
            raise CheckpointError(
                f"{where}: {name} is {given!r:.60}, but only {meaning} ({value!r}) is supported, "
                "as in all released checkpoints"
            )
    ids = _token_ids(decoder)
    config = LclmConfig.from_dict(
        {
            "ratio": fields.get("compression_ratio"),
            "encoder_window": fields.get("encoder_window_size"),
            "encoder_hidden": encoder.mlx_config.get("hidden_size"),
            "hidden_size": decoder.mlx_config.get("hidden_size"),
            "window": decoder.mlx_config.get("max_position_embeddings"),
            "rows": decoder.mlx_config["vocab_size"],
            **ids,
        },
        where=f"{where} (with the configs of {ENCODER} and {DECODER})",
    )
    most = encoder.mlx_config.get("max_position_embeddings")
    if type(most) is int and most < config.encoder_window:
        raise CheckpointError(
            f"{where}: windows of {config.encoder_window} tokens, but the encoder can attend to "
            f"{most}"
        )
    return config


def _token_ids(decoder: LclmPart) -> dict[str, int]:
    """The ids of the decoder's tokens that prompts are built with."""
    where = decoder.path / "tokenizer.json"
    added = {token["content"]: token["id"] for token in decoder.tokenizer["added_tokens"]}
    names = dict(zip(("memory_start_id", "memory_end_id", "memory_id"), MEMORY_TOKENS, strict=True))
    names |= {"turn_start_id": "<|im_start|>", "turn_end_id": "<|im_end|>"}
    missing = [token for token in names.values() if token not in added]
    if missing:
        raise CheckpointError(
            f"{where}: it has no {', '.join(missing)}; it is the base's tokenizer, not the one of "
            "an LCLM checkpoint; download the checkpoint again"
        )
    ids = {name: int(added[token]) for name, token in names.items()}
    first = ids["memory_start_id"]
    if (ids["memory_end_id"], ids["memory_id"]) != (first + 1, first + 2):
        raise CheckpointError(f"{where}: the ids of {', '.join(MEMORY_TOKENS)} do not follow")
    return ids


def _check_fit(path: Path, parts: Mapping[str, LclmPart]) -> None:
    """Refuse tensors and ids that a part does not know, or that it misses; some are listed."""
    problems = []
    for name, part in parts.items():
        found = misfits(part.tensors, part.table, {"layers": 1})
        problems += [f"{name}: {problem}" for problem in found]
        if part.tokenizer:
            ids = [*part.tokenizer["model"]["vocab"].values()]
            ids += [token["id"] for token in part.tokenizer["added_tokens"]]
            if max(ids) >= part.mlx_config["vocab_size"]:
                problems.append(
                    f"{name}: its tokenizer has ids up to {max(ids)}, but its table of embeddings "
                    f"has {part.mlx_config['vocab_size']} rows"
                )
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        raise CheckpointError(
            f"{path} is not a whole LCLM checkpoint; nothing was written:\n  "
            + "\n  ".join(f"{problem:.200}" for problem in problems[:_MOST_PROBLEMS])
            + (f"\n  and {more:,} more" if more > 0 else "")
        )


def _find_licence(path: Path) -> str | None:
    """The licence that the model card states, or else the one whose text lies beside it."""
    stated = files.read_licence(path)
    if stated is None and (path / "LICENSE").is_file():
        text = read_regular(path / "LICENSE", MOST_CONFIG).decode("utf-8", "replace")
        stated = licences.recognise(text)
    return stated
